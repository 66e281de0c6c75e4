"""What people decided about copies and findings, and which images a plan removed: a file beside the index.

    <index_dir>/decisions.jsonl     a header, then a line per event, oldest first; lines are only appended

    {"format": "simimg-decisions/1"}
    {"time": "2026-11-29T15:40:07+00:00", "decision": "not copies", "images": [{"sha256": …, "path": "a.jpg"}, …]}
    {"time": …, "decision": "keep all", "images": […]}      they are copies, and all of them stay
    {"time": …, "decision": "this one", "images": […]}      the first one is kept, the others may go
    {"time": …, "decision": "undone", "images": […]}        nothing is decided about exactly these images any more
    {"time": …, "decision": "removed", "images": […]}       `simimg apply` moved them away
    {"time": …, "decision": "returned", "images": […]}      `simimg undo` moved them back, or somebody kept them

An image is the SHA-256 of its bytes, so that a decision survives moves and renames; the path is the last known one, for
people. An image that is listed twice stands for two files of the same bytes. A decision covers all pairs of its images.
It replaces an earlier one about the same images, and of several about a pair the last counts. A decision that was
written into a plan has the time of the plan's file; decisions that are newer follow it once more.

Decisions about the findings of an audit are events of the same file, with the key `finding`; see
`simimg.similarity.finding_decisions`.

Writers hold a lock on the file while they read and append, so that none of them loses what another one wrote.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from simimg.errors import DataError, UsageError
from simimg.similarity.finding_decisions import (
    DROP,
    FINDING_DECISIONS,
    DecidedFinding,
    FindingDecisions,
    check_finding_decision,
)
from simimg.similarity.image_table import ImageTable
from tfrecords.format.atomic_files import atomic_file, parse_json, rename_new
from tfrecords.storage.uploads import rewritten

DECISIONS_FILE = "decisions.jsonl"
NOT_COPIES, KEEP_ALL, THIS_ONE = DECISIONS = ("not copies", "keep all", "this one")
UNDONE, REMOVED, RETURNED = "undone", "removed", "returned"

_FORMAT = "simimg-decisions/1"
_SHA256 = re.compile("[0-9a-f]{64}")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclasses.dataclass(frozen=True, slots=True)
class DecidedImage:
    """An image: the SHA-256 of its bytes, in hexadecimal, and its last known path, relative to the indexed folder."""

    sha256: str
    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """A decision about images, or another event of the file; of `THIS_ONE`, the first image is the one to keep.

    `time` is in ISO format; `record` fills it in where it is empty. `finding` is what it is about if it is not about
    copies. `has_copies` says that a file to drop or relabel was one of several of the same bytes and label.
    """

    decision: str
    images: tuple[DecidedImage, ...]
    time: str = ""
    finding: DecidedFinding | None = None
    has_copies: bool = False

    @property
    def key(self) -> frozenset[str]:
        """The checksums of the images; the last decision with the same ones counts."""
        return frozenset(image.sha256 for image in self.images)

    @property
    def seconds(self) -> float:
        """The time in seconds since 1970."""
        return datetime.fromisoformat(self.time).timestamp()

    @property
    def date(self) -> str:
        """The day, where simimg runs, such as 2026-11-29; empty before the decision is stored."""
        return "" if not self.time else datetime.fromisoformat(self.time).astimezone().date().isoformat()

    def num_files(self, sha256: str) -> int:
        """Return how many files of these bytes it is about."""
        return sum(image.sha256 == sha256 for image in self.images)


class Decisions:
    """The decisions that count, and the images that were removed: what is left after all events, in their order.

    Its methods and its length are about copies; `findings` has what was decided about those of an audit.
    """

    def __init__(self, events: Iterable[Decision] = ()) -> None:
        self.findings = FindingDecisions()
        self.removed: dict[str, Decision] = {}  # by checksum
        self._of: dict[str, dict[frozenset[str], int]] = defaultdict(dict)  # by checksum: number by key
        self._active: dict[frozenset[str], tuple[int, Decision]] = {}
        self._last: dict[frozenset[str], Decision] = {}
        self._num_events = 0
        for event in events:
            self.add(event)

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[Decision]:
        """Yield the decisions that count, oldest first."""
        return iter([decision for _, decision in self._active.values()])

    def add(self, event: Decision) -> None:
        """Take the next event into account."""
        self._num_events += 1
        key = event.key
        if event.finding is not None:
            self.findings.add(event, self._num_events)
            return
        if event.decision == REMOVED:
            self.removed.update({image.sha256: dataclasses.replace(event, images=(image,)) for image in event.images})
            return
        if event.decision == RETURNED:
            self._forget_removals(key)
            return
        self._last[key] = event
        self._active.pop(key, None)
        for sha256 in key:
            self._of[sha256].pop(key, None)
        if event.decision == UNDONE:
            return
        # Of images that are to stay, a removal is history.
        self._forget_removals([event.images[0].sha256] if event.decision == THIS_ONE else key)
        self._active[key] = self._num_events, event
        for sha256 in key:
            self._of[sha256][key] = self._num_events

    def _forget_removals(self, checksums: Iterable[str]) -> None:
        for sha256 in checksums:
            self.removed.pop(sha256, None)

    def of(self, key: frozenset[str]) -> Decision | None:
        """Return the decision about exactly these images."""
        return self._active[key][1] if key in self._active else None

    @property
    def latest(self) -> Decision | None:
        """The decision that was made last, about copies or about a finding."""
        copies: tuple[int, Decision | None] = next(reversed(self._active.values()), (0, None))
        return max(copies, self.findings.latest, key=lambda numbered: numbered[0])[1]

    def last(self, key: frozenset[str]) -> Decision | None:
        """Return the last decision about exactly these images, also one that took an earlier one back."""
        return self._last.get(key)

    def rows(self, images: ImageTable) -> dict[int, str]:
        """Return the rows of those images that decisions name, with their checksums."""
        if not self._active:
            return {}
        named = {sha256 for sha256, keys in self._of.items() if keys}
        return {row: sha256 for row, sha256 in enumerate(images.column("sha256").tolist()) if sha256 in named}

    def about(self, *checksums: str) -> list[Decision]:
        """Return the decisions that name all of these images, the last one first."""
        found = [self._of.get(sha256, {}) for sha256 in set(checksums)]
        fewest = min(found, key=len, default={})
        keys = [key for key in fewest if all(key in others for others in found)]
        return [self._active[key][1] for key in sorted(keys, key=lambda key: -fewest[key])]

    def difference(self, one: str, other: str) -> Decision | None:
        """Return the decision that two images are not copies, if that is the last one about both."""
        found = self.about(one, other)[:1] if one != other else []
        return found[0] if found and found[0].decision == NOT_COPIES else None

    def is_kept(self, sha256: str, path: str) -> bool:
        """Whether an image shall stay, whatever it is a copy of."""
        for decision in self.about(sha256):
            if decision.decision == KEEP_ALL:
                return True
            if decision.decision == THIS_ONE:
                kept = decision.images[0]
                return sha256 == kept.sha256 and (decision.num_files(sha256) == 1 or path == kept.path)
        return False

    def is_dropped(self, sha256: str, path: str) -> bool:
        """Whether somebody decided that this file is to be dropped because of a finding."""
        return any(event.decision == DROP and event.images[0].path == path for event in self.findings.about(sha256))


def read_decisions(index_dir: Path) -> Decisions:
    """Return the decisions of an index folder; none if there is no file.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    path = index_dir / DECISIONS_FILE
    try:
        with _locked(path, "rb", fcntl.LOCK_SH) as file:
            return Decisions(_parse(path, file.read()))
    except (FileNotFoundError, NotADirectoryError):
        return Decisions()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def record(index_dir: Path, change: Callable[[Decisions], Sequence[Decision]]) -> Decisions:
    """Append the events that `change` returns, given the decisions so far; return the decisions that count then.

    No other process writes between the two. In the folder of an index at a URL, the file at the URL is changed, too.

    Raises:
        DataError: the file is damaged; it is left as it is.
        UsageError: the folder does not exist or cannot be written.
        ConversionError: another process is writing the file at the URL.
    """
    with rewritten(index_dir, DECISIONS_FILE, "--index_dir") as folder:
        return _record(folder, change)


def _record(index_dir: Path, change: Callable[[Decisions], Sequence[Decision]]) -> Decisions:
    path = index_dir / DECISIONS_FILE
    try:
        if not path.exists():
            _create(path)
        with _locked(path, "r+b", fcntl.LOCK_EX) as file:
            decisions = Decisions(_parse(path, file.read()))
            # Finer than seconds, because times are compared with those of plans.
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            events = [dataclasses.replace(event, time=event.time or now) for event in change(decisions)]
            for event in events:
                check_decision(event)
            size = file.seek(0, os.SEEK_END)
            try:
                file.write(b"".join(map(_line_of, events)))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), size)  # the disk is full: no half of a line stays
                raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}. Make the folder writable, or free some disk space."
        ) from None
    for event in events:
        decisions.add(event)
    return decisions


def check_decision(event: Decision) -> None:
    """Raise ValueError if a decision is about too few images, or about a finding that is not complete."""
    check_finding_decision(event)
    if event.decision in DECISIONS and len(event.images) < 2:
        raise ValueError(f"{event.decision!r} needs two images or more")
    if event.decision == NOT_COPIES and len(event.key) < 2:
        raise ValueError("the files have the same bytes, so they are copies")


def _create(path: Path) -> None:
    """Write the header, unless another process does so first."""
    with contextlib.suppress(FileExistsError):
        temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
        with atomic_file(temporary) as file:
            file.write(_line({"format": _FORMAT}))
        try:
            rename_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, mode: str, lock: int) -> Iterator[IO[bytes]]:
    """Open a file that is never replaced, with a lock; other processes hold it for milliseconds, so it waits."""
    with open(path, mode) as file:
        try:
            fcntl.flock(file, lock)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield file


def _parse(path: Path, data: bytes) -> list[Decision]:
    header, *lines = data.split(b"\n")
    try:
        values: Any = parse_json(header)
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']}, not {_FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a file of decisions: {error}. Restore it from a backup, or rename it to begin a new one."
        ) from None
    events = []
    for number, line in enumerate(lines, 2):
        if number == len(lines) + 1 and not line:
            break
        try:
            if number == len(lines) + 1:
                raise ValueError("it is cut off")
            events.append(_event(parse_json(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged in line {number}: {error}. Correct that line or delete it, which forgets "
                "this decision alone."
            ) from None
    return events


def _event(values: Any) -> Decision:
    if missing := {"time", "decision", "images"} - set(values):
        raise ValueError(f"it has no {sorted(missing)[0]!r}")
    decision, time = values["decision"], values["time"]
    finding = DecidedFinding.of(values["finding"]) if "finding" in values else None
    if decision not in ((*FINDING_DECISIONS, UNDONE) if finding else (*DECISIONS, UNDONE, REMOVED, RETURNED)):
        raise ValueError(f"there is no decision {decision!r}")
    datetime.fromisoformat(time)
    images = tuple(DecidedImage(image["sha256"], image["path"]) for image in values["images"])
    for image in images:
        if not _SHA256.fullmatch(image.sha256) or not isinstance(image.path, str):
            raise ValueError(f"{image.sha256!r} is not a SHA-256")
    event = Decision(decision, images, time, finding, bool(values.get("has_copies")))
    check_decision(event)
    return event


def _line_of(event: Decision) -> bytes:
    images = [dataclasses.asdict(image) for image in event.images]
    values: dict[str, Any] = {"time": event.time, "decision": event.decision, "images": images}
    if event.finding is not None:
        values["finding"] = {name: text for name, text in dataclasses.asdict(event.finding).items() if text}
        values["finding"].setdefault("kind", "")
    if event.has_copies:
        values["has_copies"] = True
    return _line(values)


def _line(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()
