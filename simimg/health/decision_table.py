"""What people decided about findings: the CSV of an audit, in which they filled in the column `decision`.

    path,kind,…,suggestion,reason,decision
    ferry/1.jpg,label,…,ketch,…,relabel         the class is the one of the column `suggestion`
    ferry/2.jpg,label,…,ketch,…,right           the finding is wrong, and is not shown again
    ferry/3.jpg,blurred,…,drop,…,drop           the image is to be deleted

A list of decisions about several audits is one file: rows of later ones are added at its end, and of several rows about
a finding the last counts. An image that is dropped for one reason is dropped.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from simimg.errors import UsageError
from simimg.health.finding import KINDS, Finding
from tfrecords.format.atomic_files import atomic_file

RIGHT, DROP, RELABEL = WORDS = ("right", "drop", "relabel")

_NEEDED = ("path", "kind", "decision")


@dataclasses.dataclass(frozen=True, slots=True)
class FindingDecision:
    """A decision, one of `WORDS`, about a finding, with the new class of `RELABEL` and the reason of the finding."""

    word: str
    label: str = ""
    reason: str = ""


Decided = Mapping[tuple[str, str], FindingDecision]
"""Decisions by path and kind of the finding."""


def read_finding_decisions(path: Path) -> dict[tuple[str, str], FindingDecision]:
    """Return the decisions in a file; rows without one are left out.

    Raises:
        UsageError: the file cannot be read, lacks a column, or has another word than `WORDS`.
    """
    where = f"--decisions={path}"
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}. `simimg audit --csv=FILE` writes one.") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
    if missing:
        raise UsageError(f"{where} has no column {missing[0]!r}. Use the file that `simimg audit --csv=FILE` writes.")
    found: dict[tuple[str, str], FindingDecision] = {}
    for number, row in enumerate(rows, 2):
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
        found[row["path"] or "", row["kind"]] = FindingDecision(
            word, label if word == RELABEL else "", (row.get("reason") or "").strip()
        )
    return found


def undecided(findings: Iterable[Finding], decided: Decided) -> list[Finding]:
    """Return the findings that nothing was decided about; all findings about a dropped image are left out."""
    dropped = {path for (path, _), one in decided.items() if one.word == DROP and path}
    return [one for one in findings if (one.path, one.kind) not in decided and one.path not in dropped]


def write_deletions(decided: Decided, path: Path) -> int:
    """Write the images to drop as a list for `simimg edit --delete`; return their number."""
    reasons = {name: f"{kind}: {one.reason}" for (name, kind), one in decided.items() if one.word == DROP and name}
    _write(path, ("path", "reason"), reasons.items())
    return len(reasons)


def write_labels(decided: Decided, path: Path) -> int:
    """Write the new labels as a list for `simimg edit --relabel`; return their number. Dropped images are left out."""
    dropped = {name for (name, _), one in decided.items() if one.word == DROP}
    rows = {
        name: (name, one.label, one.reason)
        for (name, _), one in decided.items()
        if one.word == RELABEL and name not in dropped
    }
    _write(path, ("path", "label", "reason"), rows.values())
    return len(rows)


def sure_labels(findings: Iterable[Finding], least: float) -> dict[tuple[str, str], FindingDecision]:
    """Return the suggestions of `label` findings of at least this score, as if somebody had agreed to them."""
    return {
        (one.path, one.kind): FindingDecision(RELABEL, one.suggestion, one.reason)
        for one in findings
        if one.kind == "label" and one.score >= least
    }


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))
