"""Findings of an audit on the page: computed once, kept beside the index, and decided about.

    GET  /api/findings                  the audit as columns, or the progress of one that runs
    POST /api/findings                  audit again: {"state", …}
    GET  /api/findings/decisions        what is decided; its ETag changes with the file of decisions
    POST /api/findings/decisions        decide: {"version", "decisions": [{"finding": n, "decision": "drop", …}, …]}
    GET  /api/findings/delete.csv  /api/findings/relabel.csv    the lists for `simimg edit`

Decisions are stored at once, in the one file that `simimg audit`, `decide` and `duplicates` read. A browser sends what
it believes is decided, so that of two browsers none overwrites what it has not seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shlex
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simimg.errors import SimimgError
from simimg.health.audited_images import AuditedImages
from simimg.health.collection_audit import audit_images
from simimg.health.decision_table import decided_among, deletions, new_labels, settling, table_text
from simimg.health.finding import KINDS, Finding
from simimg.health.findings_file import KeptAudit, load_findings, save_findings
from simimg.similarity.decisions import (
    DECISIONS_FILE,
    UNDONE,
    DecidedImage,
    Decision,
    Decisions,
    read_decisions,
    record,
)
from simimg.similarity.finding_decisions import DROP, FINDING_DECISIONS, RELABEL, RIGHT, DecidedFinding, with_copies
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.search_index import SearchIndex
from simimg.web.background_job import BackgroundJob
from simimg.web.request_guard import RequestError, json_of
from tfrecords.base_errors import as_named
from tfrecords.locations import url_of

_MAX_BYTES = 16 << 20
_LONGEST_LABEL = 200
_STAGES = ("measuring", "judging", "comparing")
_WRONG = (
    "This is no decision: a version, and decisions with a finding or a row, and one of right, drop, relabel, undone."
)
_STALE = "The audit was repeated in the meantime. Load the page again."


@dataclasses.dataclass(frozen=True)
class _State:
    """What is decided at one version of the file of decisions."""

    version: str
    values: dict[str, Any]
    lists: dict[str, str]


class Findings:
    """The findings of an index and the decisions about them. Thread-safe."""

    def __init__(self, index: SearchIndex) -> None:
        self.job = BackgroundJob("audit")
        self._index = index
        self._lock = threading.Lock()
        self._kept: KeptAudit | None = None
        self._state: _State | None = None
        self._stage = ""

    # Computed when the findings are asked for: a large index takes seconds, which a start must not wait for.
    @functools.cached_property
    def _audited(self) -> AuditedImages:
        return AuditedImages.of_index(self._index)

    @property
    def _images(self) -> Sequence[IndexedImage]:
        return self._audited.images

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {image.path: row for row, image in enumerate(self._images)}

    @functools.cached_property
    def _copied(self) -> set[tuple[str, str]]:
        return with_copies(self._images)

    def routes(self) -> list[Route]:
        """Return the routes of the application."""
        return [
            Route("/api/findings", self._describe, methods=["GET"]),
            Route("/api/findings", self._start, methods=["POST"]),
            Route("/api/findings/decisions", self._decisions, methods=["GET"]),
            Route("/api/findings/decisions", self._decide, methods=["POST"]),
            Route("/api/findings/{name}.csv", self._list),
        ]

    def start(self) -> None:
        """Audit in a thread, unless one is at work."""

        def work(advance: Callable[[int], object]) -> KeptAudit:
            done = dict.fromkeys(_STAGES, 0)

            def progress(stage: str, number: int, total: int) -> None:
                self._stage = stage
                advance(number - done[stage])
                done[stage] = number

            found = audit_images(self._audited, tuple(KINDS), self._index, progress=progress)
            kept = save_findings(self._index, found)
            with self._lock:
                self._kept = kept
            return kept

        self.job.start(work, len(_STAGES) * len(self._index.images))

    def described(self) -> dict[str, Any]:
        """Return the findings as JSON values, in columns; those of another window's audit as soon as it is done.

        `row` is -1 for findings about classes and splits. `likely` are classes, the suggested one first.
        """
        job = self.job.described()
        kept = self._known()
        values: dict[str, Any] = {"job": job, "stage": self._stage, "audited": kept is not None}
        if kept is None or job["state"] == "running":
            return values
        found = kept.audit
        return values | {
            "version": kept.version,
            "kinds": KINDS,
            "num_images": found.num_images,
            "refused": [list(one) for one in found.refused],
            "notes": list(found.notes),
            "label_accuracy": found.label_accuracy,
            "agreement": None if found.agreement is None else [
                None if np.isnan(value) else round(value, 3) for value in found.agreement.tolist()
            ],
            "findings": {
                "kind": [one.kind for one in found.findings],
                "row": [self._rows.get(one.path, -1) for one in found.findings],
                "score": [round(one.score, 4) for one in found.findings],
                "reason": [one.reason for one in found.findings],
                "suggestion": [one.suggestion for one in found.findings],
                "label": [one.label for one in found.findings],
                "split": [one.split for one in found.findings],
                "evidence": [
                    [self._rows[path] for path in one.evidence if path in self._rows] for one in found.findings
                ],
                "likely": [list(found.likely.get(one.path, ())) for one in found.findings],
            },
            "decisions": self.state(kept).values,
            "commands": self._commands(),
        }  # fmt: skip

    def state(self, kept: KeptAudit | None) -> _State:
        """Return what is decided now.

        Raises:
            RequestError: the file of decisions is damaged.
        """
        try:
            status = (self._index.index_dir / DECISIONS_FILE).stat()
            stamp = f"{status.st_size}-{status.st_mtime_ns}"
        except OSError:
            stamp = ""
        name = f"{stamp}-{'' if kept is None else kept.version}"
        version = hashlib.sha256(name.encode()).hexdigest()[:16]
        with self._lock:
            if self._state is not None and self._state.version == version:
                return self._state
        try:
            decisions = read_decisions(self._index.index_dir)
        except SimimgError as error:
            raise RequestError(409, str(error)) from None
        findings = () if kept is None else kept.audit.findings
        decided = decided_among(self._images, decisions, findings)
        settled = {
            number: {
                "decision": one.word,
                "label": one.label,
                "date": one.date,
                "own": decided.get((finding.path, finding.kind)) is one or not finding.path,
            }
            for number, (finding, one) in enumerate(zip(findings, settling(findings, decided), strict=True))
            if one is not None
        }
        lists = {"delete": deletions(decided), "relabel": new_labels(decided)}
        fates = {self._rows[row[0]]: [RELABEL, row[1]] for row in lists["relabel"][1:]}
        fates |= {self._rows[row[0]]: [DROP, ""] for row in lists["delete"][1:]}
        audit = "" if kept is None else kept.version
        values = {"version": version, "audit": audit, "decided": settled, "images": fates}
        state = _State(version, values, {word: table_text(rows) for word, rows in lists.items()})
        with self._lock:
            self._state = state
        return state

    def decide(self, values: Any) -> dict[str, Any]:
        """Store decisions: `{"version": text, "decisions": [one, …]}`; return what is decided then, and `undo`.

        Each names a `finding` by its number, or an image that was chosen without one by its `row`; the `decision`, of
        which `undone` takes back all that settles a finding; the new `label` of `relabel`; and as `before` what the
        browser believes is decided: null or `[decision, label]`. `undo` are decisions that restore what counted before.

        Raises:
            RequestError: the values are invalid, or something else was decided in the meantime.
        """
        kept = self._known()
        if not isinstance(values, dict) or not isinstance(values.get("decisions"), list) or not values["decisions"]:
            raise RequestError(422, _WRONG)
        if values.get("version") != (kept.version if kept else ""):
            raise RequestError(409, _STALE)
        findings = kept.audit.findings if kept else ()
        wanted = [self._wanted(one, findings) for one in values["decisions"]]
        numbers = {(one.path, one.kind): number for number, one in enumerate(findings) if one.path}
        undo: list[dict[str, Any]] = []

        def change(known: Decisions) -> list[Decision]:
            decided = decided_among(self._images, known, findings)
            by_row = known.findings.by_row(self._images)
            events: list[Decision] = []
            for one, now in zip(wanted, settling([one.finding for one in wanted], decided), strict=True):
                if one.has_before and one.before != (None if now is None else (now.word, now.label)):
                    what = "nothing" if now is None else f"{now.word} {now.label}".strip()
                    raise RequestError(
                        409, f"{what} was decided about {one.finding.path} in the meantime.".capitalize()
                    )
                about = by_row.get(one.row, []) if one.row >= 0 else _about_class(one.finding, known)
                if one.word == UNDONE:
                    removed = _settling_events(one.finding, about)
                    if now is not None and not removed:
                        raise RequestError(
                            409, "They were decided to be no copies. simimg decide --undo takes it back."
                        )
                else:
                    event = one.event(self._images, self._copied)
                    same = known.findings.same(event)
                    if same is not None and same.decision == event.decision and same.finding == event.finding:
                        continue
                    drops = [old for old in about if old.decision == DROP and old is not same]
                    removed = [] if one.word == DROP else drops
                    events.append(event)
                    word, label = UNDONE, ""
                    if same is not None and same.finding is not None:
                        word, label = same.decision, same.finding.new_label
                    undo.append({**one.subject, "decision": word, "label": label})
                events += [dataclasses.replace(old, decision=UNDONE, time="") for old in removed]
                undo.extend(_restoring(old, one, numbers) for old in removed)
            return events

        try:
            record(self._index.index_dir, change)
        except ValueError as error:
            raise RequestError(422, f"This cannot be decided: {error}.") from None
        except SimimgError as error:
            raise RequestError(409, str(error)) from None
        return {**self.state(kept).values, "undo": undo}

    def _commands(self) -> dict[str, str]:
        """Return the commands that carry decisions into a dataset."""
        lists = ["--delete=drop.csv", "--relabel=labels.csv"]
        stored = self._index.info.dataset_dir
        dataset_dir = stored if stored and not url_of(stored) else "DATA_DIR/NAME/VERSION"  # as it was made
        return {
            "lists": shlex.join(["simimg", "decide", f"--index_dir={as_named(self._index.index_dir)}", *lists]),
            "edit": shlex.join(["simimg", "edit", f"--dataset_dir={dataset_dir}", *lists]),
        }

    def _wanted(self, values: Any, findings: Sequence[Finding]) -> _Wanted:
        wrong = RequestError(422, _WRONG)
        if not isinstance(values, dict) or values.get("decision") not in (*FINDING_DECISIONS, UNDONE):
            raise wrong
        word, label = values["decision"], values.get("label") or ""
        if not isinstance(label, str) or len(label) > _LONGEST_LABEL or any(ord(letter) < 32 for letter in label):
            raise RequestError(422, f"A class has a name of up to {_LONGEST_LABEL} letters.")
        number, row = values.get("finding"), values.get("row")
        if type(number) is int and 0 <= number < len(findings):
            finding, subject = findings[number], {"finding": number}
            row = self._rows.get(finding.path, -1)
        elif number is None and type(row) is int and 0 <= row < len(self._images):
            image, subject = self._images[row], {"row": row}
            finding = Finding(kind="", score=1.0, reason="", path=image.path, label=image.label, split=image.split)
        else:
            raise wrong
        before = values.get("before")
        if before is not None and not (isinstance(before, list) and len(before) == 2):
            raise wrong
        sent = None if before is None else (before[0], before[1])
        return _Wanted(subject, finding, row, word, label.strip() if word == RELABEL else "", "before" in values, sent)

    def _known(self) -> KeptAudit | None:
        with self._lock:
            if self._kept is None:
                self._kept = load_findings(self._index)
            return self._kept

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.described))

    async def _start(self, request: Request) -> Response:
        self.start()
        return JSONResponse(self.job.described(), 202)

    async def _decisions(self, request: Request) -> Response:
        state = await run_in_threadpool(lambda: self.state(self._known()))
        headers = {"etag": f'"{state.version}"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(None, 304, headers)
        return JSONResponse(state.values, headers=headers)

    async def _decide(self, request: Request) -> Response:
        values = await json_of(request, _MAX_BYTES)
        return JSONResponse(await run_in_threadpool(self.decide, values))

    async def _list(self, request: Request) -> Response:
        name = request.path_params["name"]
        state = await run_in_threadpool(lambda: self.state(self._known()))
        if name not in state.lists:
            raise RequestError(404, "There is no such list.")
        headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
        return Response(state.lists[name].encode(errors="surrogateescape"), media_type="text/csv", headers=headers)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """A decision that a browser sent.

    Attributes:
        subject: how the browser names the finding or the image.
        finding: that it is about; without a kind if the image was chosen without one.
        row: of the image; -1 if it is about a class or a split.
        word: the decision.
        new_label: of `relabel`.
        has_before: whether the browser said what it believes is decided.
        before: that decision and its label, or None.
    """

    subject: dict[str, int]
    finding: Finding
    row: int
    word: str
    new_label: str
    has_before: bool
    before: tuple[Any, Any] | None

    def event(self, images: Sequence[IndexedImage], copied: set[tuple[str, str]]) -> Decision:
        """Return the event to store; for `copied` see `with_copies`."""
        one = self.finding
        of = (DecidedImage(images[self.row].sha256, one.path),) if self.row >= 0 else ()
        about = DecidedFinding(one.kind, one.label, one.split, self.new_label, one.reason)
        has_copies = self.word != RIGHT and any((image.sha256, one.label) in copied for image in of)
        return Decision(self.word, of, finding=about, has_copies=has_copies)


def _about_class(finding: Finding, known: Decisions) -> list[Decision]:
    key = finding.kind, finding.label, finding.split
    return [
        event
        for event in known.findings
        if not event.images and event.finding and (event.finding.kind, event.finding.label, event.finding.split) == key
    ]


def _settling_events(finding: Finding, about: Sequence[Decision]) -> list[Decision]:
    """Return those of the decisions about an image, or a class, that settle a finding."""
    of_labels = finding.kind in ("", "label", "label_conflict")
    return [
        event
        for event in about
        if event.finding is not None
        and (event.decision == DROP or event.finding.kind == finding.kind or (of_labels and event.decision == RELABEL))
    ]


def _restoring(event: Decision, one: _Wanted, numbers: dict[tuple[str, str], int]) -> dict[str, Any]:
    """Return what a browser sends to restore a decision about the same image."""
    assert event.finding is not None
    number = numbers.get((one.finding.path, event.finding.kind), -1)
    subject = one.subject if one.row < 0 else {"finding": number} if number >= 0 else {"row": one.row}
    return {**subject, "decision": event.decision, "label": event.finding.new_label}
