"""The CSV of an audit, in which people fill in the column `decision`, and the lists that `simimg edit` takes.

    path,kind,…,suggestion,reason,decision
    ferry/1.jpg,label,…,ketch,…,relabel         the class is the one of the column `suggestion`
    ferry/2.jpg,label,…,ketch,…,right           the finding is wrong, and is not shown again
    ferry/3.jpg,blurred,…,drop,…,drop           the image is to be deleted

Its decisions are taken into the decisions beside the index (`simimg.similarity.finding_decisions`), which the search
page and `simimg decide` write as well. Of several rows about a finding the last counts. An image that is dropped for
one reason is dropped.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from simimg.errors import UsageError
from simimg.health.finding import COLUMNS, KINDS, Finding
from simimg.similarity.decisions import NOT_COPIES, UNDONE, DecidedImage, Decision, Decisions
from simimg.similarity.finding_decisions import DROP, RELABEL, RIGHT, DecidedFinding, with_copies
from simimg.similarity.finding_decisions import FINDING_DECISIONS as WORDS
from simimg.similarity.image_table import IndexedImage
from tfrecords.format.atomic_files import atomic_file

_OF_LABELS, _OF_COPIES = ("label", "label_conflict"), ("label_conflict", "leak")
_BY_HAND = "chosen by hand"
_NEEDED = ("path", "kind", "decision")


@dataclasses.dataclass(frozen=True, slots=True)
class FindingDecision:
    """A decision about a finding.

    Attributes:
        word: one of `WORDS`.
        label: the new class of `RELABEL`.
        reason: of the finding.
        given: the class of the image, or that the finding is about, as far as it is known.
        split: of the image, or that the finding is about, as far as it is known.
        date: on which it was stored, or empty.
    """

    word: str
    label: str = ""
    reason: str = ""
    given: str = ""
    split: str = ""
    date: str = ""


Decided = Mapping[tuple[str, str], FindingDecision]
"""Decisions by path and kind of the finding; without a path, by its kind, class and split."""


def read_finding_decisions(path: Path) -> dict[tuple[str, str], FindingDecision]:
    """Return the decisions in a file; rows without one are left out.

    Raises:
        UsageError: the file cannot be read, is no table in UTF-8, lacks a column, or has another word than `WORDS`.
    """
    where = f"--decisions={path}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}. `simimg audit --csv=FILE` writes one.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not in UTF-8. Save it as CSV in UTF-8, so that names of classes stay.") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
    if missing:
        raise UsageError(f"{where} has no column {missing[0]!r}. Use the file that `simimg audit --csv=FILE` writes.")
    found: dict[tuple[str, str], FindingDecision] = {}
    for number, row in enumerate(_readable(rows, where), 2):
        word = (row["decision"] or "").strip().lower()
        if not word:
            continue
        if word not in WORDS:
            raise UsageError(f"{where}, row {number}: {word!r} should be one of {', '.join(WORDS)}, or empty.")
        if row["kind"] not in KINDS:
            raise UsageError(f"{where}, row {number}: there is no kind of finding {row['kind']!r}.")
        label = (row.get("suggestion") or "").strip()
        if word == RELABEL and (not label or label in ("look", "drop")):
            raise UsageError(f"{where}, row {number}: write the new class into the column `suggestion`.")
        key = _key(row["path"] or "", row["kind"], row.get("label") or "", row.get("split") or "")
        known = ((row.get(name) or "").strip() for name in ("reason", "label", "split"))
        found[key] = FindingDecision(word, label if word == RELABEL else "", *known)
    return found


def _readable(rows: Iterable[dict[str, str]], where: str) -> Iterator[dict[str, str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise UsageError(f"{where} is no table: {error}. Save it as CSV in UTF-8.") from None


def _key(path: str, kind: str, label: str, split: str) -> tuple[str, str]:
    return (path, kind) if path else ("", f"{kind}: {label}: {split}")


def decision_events(decided: Decided, images: Sequence[IndexedImage], known: Decisions) -> list[Decision]:
    """Return the decisions of a file as events, without those that `known` has already.

    Rows about images that are not among `images`, and images without a checksum, are left out.
    """
    by_path = {image.path: image for image in images if image.sha256}
    dropped = {path for (path, _), one in decided.items() if one.word == DROP}
    copied = with_copies(images)
    events = []
    for (path, kind), one in decided.items():
        image = by_path.get(path)
        if path and image is None:
            continue
        of = () if image is None else (DecidedImage(image.sha256, image.path),)
        label, split = (one.given, one.split) if image is None else (image.label, image.split)
        word = one.word if path else RIGHT  # a class or a split can only be left as it is
        kind = kind if path else kind.partition(":")[0]
        about = DecidedFinding(kind, label, split, one.label if path else "", one.reason)
        has_copies = word != RIGHT and image is not None and (image.sha256, label) in copied
        event = Decision(word, of, finding=about, has_copies=has_copies)
        same = known.findings.same(event)
        if same is None or dataclasses.replace(same, time="") != event:
            events += [*without_drops(event, known, dropped), event]
    return events


def without_drops(event: Decision, known: Decisions, dropped: Iterable[str] = ()) -> list[Decision]:
    """Return events that take back that an image is dropped, if it gets a label now; paths in `dropped` stay so."""
    if event.decision != RELABEL or event.images[0].path in dropped:
        return []
    return [
        dataclasses.replace(one, decision=UNDONE, time="")
        for one in known.findings.about(event.images[0].sha256)
        if one.decision == DROP and one.images == event.images
    ]


def decided_among(
    images: Sequence[IndexedImage], decisions: Decisions, findings: Iterable[Finding] = (), more: Decided | None = None
) -> dict[tuple[str, str], FindingDecision]:
    """Return what the decisions say about images, as they are now, oldest first.

    Of `more`, the decisions of a file, those about images that are not among `images` are included. If two images were
    decided not to be copies, the findings that follow from their being copies are settled with the word `not copies`.
    """
    by_path = {image.path: image for image in images}
    found = {key: one for key, one in (more or {}).items() if key[0] and key[0] not in by_path}
    by_row = decisions.findings.by_row(images)
    for row, events in sorted(by_row.items()):
        found |= {(images[row].path, event.finding.kind): _decision(event) for event in events if event.finding}
    for event in decisions.findings:
        if not event.images and (about := event.finding):
            found[_key("", about.kind, about.label, about.split)] = _decision(event)
    for finding in findings:
        if finding.kind in _OF_COPIES and finding.evidence:
            one, other = (by_path.get(path) for path in (finding.path, finding.evidence[0]))
            if one and other and (difference := decisions.difference(one.sha256, other.sha256)):
                found.setdefault((finding.path, finding.kind), FindingDecision(NOT_COPIES, date=difference.date))
    return found


def _decision(event: Decision) -> FindingDecision:
    about = event.finding
    assert about is not None
    return FindingDecision(event.decision, about.new_label, about.reason, about.label, about.split, event.date)


def settling(findings: Iterable[Finding], decided: Decided) -> list[FindingDecision | None]:
    """Return the decision that settles each finding, or None.

    All findings about a dropped image are settled, and both kinds about its label if it gets another one.
    """
    fates: dict[str, FindingDecision] = {}
    for (path, _), one in decided.items():
        if path and (one.word == DROP or (one.word == RELABEL and fates.get(path, one).word != DROP)):
            fates[path] = one
    found: list[FindingDecision | None] = []
    for finding in findings:
        settled = decided.get(_key(finding.path, finding.kind, finding.label, finding.split))
        fate = fates.get(finding.path)
        if fate is not None and (fate.word == DROP or (settled is None and finding.kind in (*_OF_LABELS, ""))):
            settled = fate
        found.append(settled)
    return found


def write_deletions(decided: Decided, path: Path) -> int:
    """Write the images to drop as a list for `simimg edit --delete`; return their number."""
    rows = deletions(decided)
    write_table(path, rows)
    return len(rows) - 1


def write_labels(decided: Decided, path: Path) -> int:
    """Write the new labels as a list for `simimg edit --relabel`; return their number. Dropped images are left out."""
    rows = new_labels(decided)
    write_table(path, rows)
    return len(rows) - 1


def deletions(decided: Decided) -> list[tuple[str, ...]]:
    """Return a header, and path and reason of the images to drop."""
    reasons = {
        name: f"{kind}: {one.reason}" if kind else one.reason or _BY_HAND
        for (name, kind), one in decided.items()
        if one.word == DROP and name
    }
    return [("path", "reason"), *reasons.items()]


def new_labels(decided: Decided) -> list[tuple[str, ...]]:
    """Return a header, and path, class and reason of the images to relabel."""
    dropped = {name for (name, _), one in decided.items() if one.word == DROP}
    rows = {
        name: (name, one.label, one.reason or _BY_HAND)
        for (name, _), one in decided.items()
        if one.word == RELABEL and name and name not in dropped
    }
    return [("path", "label", "reason"), *rows.values()]


def sure_labels(findings: Iterable[Finding], least: float) -> dict[tuple[str, str], FindingDecision]:
    """Return the suggestions of `label` findings of at least this score, as if somebody had agreed to them."""
    return {
        (one.path, one.kind): FindingDecision(RELABEL, one.suggestion, one.reason)
        for one in findings
        if one.kind == "label" and one.score >= least
    }


def write_findings(findings: Sequence[Finding], decided: Decided, path: Path) -> None:
    """Write findings as CSV with `COLUMNS`: first those that are not settled, whose `decision` is empty."""
    open_ones, settled = [], []
    for one, decision in zip(findings, settling(findings, decided), strict=True):
        word = decision.word if decision is not None and decision.word in WORDS else ""
        suggestion = decision.label if decision is not None and decision.label else one.suggestion
        row = (one.path, one.kind, f"{one.score:.4f}", one.label, one.split, suggestion, one.reason, word)
        if decision is None:
            open_ones.append(row)
        elif word:
            settled.append(row)
    write_table(path, [COLUMNS, *open_ones, *settled])


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Return a table as CSV, with its header as the first row."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a table as CSV, with its header as the first row; the folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(table_text(rows).encode(errors="surrogateescape"))
