"""The plan that `simimg duplicates --plan` writes and `simimg apply` carries out: which files stay and which go.

plan.json    for reading and editing: reference folders, and groups, each with a file to keep and the files to remove

An entry of `remove` also lists the image's sidecars that go along with it, with their checksums, and those that stay,
with the reason (`simimg.similarity.sidecars`). Files in reference folders are never moved. The plan names these
folders, so that whoever writes it again, or carries it out after somebody edited it, knows them. Whoever edits it may
write a decision into a group, such as `"decision": "not copies"`, see `simimg.similarity.decisions`: it is stored in
the folder of the plan's index, with the time of the last change to the plan, and does not override newer decisions.

By default, only copies that differ in nothing but size and compression are to be removed. The others are the
`questions` of a group: nothing happens to them unless somebody moves their entries to `remove`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from simimg.errors import DataError, UsageError
from simimg.similarity.decisions import DECISIONS, THIS_ONE, DecidedImage, Decision, check_decision
from simimg.similarity.duplicate_groups import Group, Member
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.sidecars import sidecars_of
from tfrecords.convert.sources import printable, unprintable
from tfrecords.convert.sources.source import QUARANTINE_JOURNAL
from tfrecords.format.atomic_files import file_sha256, parse_json, read_bytes, write_json
from tfrecords.storage.remote_folder import origin_of

APPLIED_PLAN = "applied-plan.json"
"""The copy of a plan in its quarantine folder, which `simimg undo` takes as well."""

_FORMAT = "simimg-plan/1"


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file: path relative to `image_dir`, checksum, similarity to the kept file, and why it goes or stays.

    `sidecars` go along with it; plans of older versions list none.
    """

    path: str
    sha256: str
    similarity: float
    reason: str
    sidecars: tuple[PlannedFile, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A file to keep, its copies to remove, and those that are questions.

    With a decision, it is about the kept file and all others. It says which of them are removed.
    """

    keep: PlannedFile
    remove: tuple[PlannedFile, ...]
    questions: tuple[PlannedFile, ...] = ()
    decision: Decision | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan: its file, the folder of the images, the groups, the content of the file, and the reference folders.

    Reference folders are relative to the folder of the images. `index_dir` is the index that the plan was made with, a
    folder or a URL, which may be gone.
    """

    path: Path
    image_dir: Path
    groups: tuple[PlannedGroup, ...]
    data: bytes = dataclasses.field(repr=False)
    reference_dirs: tuple[str, ...] = ()
    index_dir: Path | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions that somebody wrote into groups."""
        return tuple(group.decision for group in self.groups if group.decision is not None)

    @property
    def sha256(self) -> str:
        """The checksum of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def removals(self) -> tuple[PlannedFile, ...]:
        """All files to remove."""
        return tuple(file for group in self.groups for file in group.remove)

    @property
    def checksums(self) -> dict[str, str]:
        """The SHA-256 of all files that may be moved, by their paths."""
        files = (*self.removals, *(sidecar for file in self.removals for sidecar in file.sidecars))
        return {file.path: file.sha256 for file in files}

    @property
    def quarantine_dir(self) -> Path:
        """The folder that removed files are moved to, next to the plan."""
        if self.path.name == APPLIED_PLAN and (self.path.parent / QUARANTINE_JOURNAL).exists():
            return self.path.parent
        return self.path.with_name(f"{self.path.stem}-quarantine")


def reference_dirs_of(index: SearchIndex, folders: Iterable[str]) -> tuple[str, ...]:
    """Return the names of reference folders in a plan: relative to the folder of the index, also with links followed.

    The folders are relative to that of the index, too.

    Raises:
        UsageError: a folder does not exist there.
    """
    root = Path(index.info.image_dir) if index.info.image_dir else Path()
    names = []
    for folder in folders:
        below = root / folder
        if not below.is_dir() or not below.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"--reference_dirs={folder}: there is no such folder below {root}.")
        for name in (os.path.relpath(below.resolve(), root.resolve()), os.path.relpath(below, root)):
            if is_inside(name):
                names.append(printable(PurePosixPath(name).as_posix()))
    return tuple(dict.fromkeys(names))


def is_reference(path: str, reference_dirs: Iterable[str]) -> bool:
    """Whether a file lies in a reference folder; all paths are relative to the folder of the images."""
    return any(PurePosixPath(path).is_relative_to(folder) for folder in reference_dirs)


def write_plan(
    path: Path,
    image_dir: Path,
    groups: Iterable[Group],
    reference_dirs: Sequence[str] = (),
    index_dir: Path | None = None,
    edits: frozenset[str] | None = None,
) -> None:
    """Write a plan, a JSON file, that keeps the keeper of each group, what was decided to stay, and reference folders.

    All paths in a plan are relative to `image_dir`. For `reference_dirs`, see `reference_dirs_of`. `index_dir` is the
    index, unless it is a temporary one. Copies that differ by more than `edits`, see `simimg.similarity.edits`, are
    questions; None: all copies are to be removed.
    """
    described: list[dict[str, Any]] = []
    for group in groups:
        keeper = {"path": group.keeper.image.path, "sha256": group.keeper.image.sha256, "why": group.keeper.reason}
        remove, questions = list[dict[str, Any]](), list[dict[str, Any]]()
        for member in group.others:
            if not is_reference(member.image.path, reference_dirs) and not member.stays:
                (remove if is_planned(member, edits) else questions).append(_described(member))
        if remove or questions:
            described.append({"keep": keeper, "remove": remove} | ({"questions": questions} if questions else {}))
    removed = [file for group in described for file in group["remove"]]
    _add_sidecars(image_dir, removed)
    _add_sidecars(image_dir, [file for group in described for file in group.get("questions", ())], removed)
    values: dict[str, Any] = {"format": _FORMAT, "image_dir": str(image_dir.resolve())}
    if index_dir is not None:
        values["index_dir"] = origin_of(index_dir)
    write_json(path, {**values, "reference_dirs": list(reference_dirs), "groups": described})


def is_planned(member: Member, edits: frozenset[str] | None) -> bool:
    """Whether a copy is to be removed, as decided or since it differs by these edits at most (None: by any)."""
    return edits is None or member.may_go or member.edits <= edits


def _described(member: Member) -> dict[str, Any]:
    return {
        "path": member.image.path,
        "sha256": member.image.sha256,
        "num_bytes": member.image.num_bytes,
        "similarity": round(member.similarity, 4),
        "reason": member.reason,
    }


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        DataError: the file is missing, or is not a plan.
        UsageError: a decision that somebody wrote into it is not valid.
    """
    data = read_bytes(path, "a plan of `simimg duplicates`")
    try:
        values: Any = parse_json(data)
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']}, not {_FORMAT}")
        time = _last_change(path)
        groups = tuple(_group_at(number, path, group, time) for number, group in enumerate(values["groups"], 1))
        index_dir = Path(values["index_dir"]) if values.get("index_dir") else None
        return Plan(path, Path(values["image_dir"]), groups, data, _reference_dirs(values), index_dir)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a plan of `simimg duplicates`: {error}. Correct it, or make it again."
        ) from None


def is_inside(path: str) -> bool:
    """Whether a path, which somebody may have edited, is relative and stays in its folder."""
    return bool(path) and not Path(path).is_absolute() and ".." not in Path(path).parts


def _reference_dirs(values: dict[str, Any]) -> tuple[str, ...]:
    folders = values.get("reference_dirs", [])  # plans of older versions do not have it
    if not isinstance(folders, list) or not all(isinstance(folder, str) and is_inside(folder) for folder in folders):
        raise ValueError(f"reference_dirs should be a list of folders below image_dir, but is {folders!r}")
    return tuple(PurePosixPath(folder).as_posix() for folder in folders)


def _add_sidecars(image_dir: Path, files: list[dict[str, Any]], others: Sequence[dict[str, Any]] = ()) -> None:
    """Add to each described file which sidecars go along with it, if it and some others go, and which stay."""
    by_name, gone = (
        {Path(unprintable(file["path"], image_dir)).as_posix(): file for file in some}
        for some in (files, (*files, *others))
    )
    for sidecar in sidecars_of(image_dir, by_name, gone.__contains__):
        file, path = by_name[sidecar.image], printable(sidecar.path)
        why = sidecar.stays
        try:
            sha256 = "" if why else file_sha256(image_dir / sidecar.path)
        except OSError as error:
            why = f"it cannot be read: {error.strerror}"
        if why:
            file.setdefault("sidecars_that_stay", []).append({"path": path, "why": why})
        else:
            file.setdefault("sidecars", []).append({"path": path, "sha256": sha256})


def _last_change(path: Path) -> str:
    """Return when a file was last changed, in ISO format; now, if its time is in the future."""
    now = datetime.now(UTC)
    try:
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return now.isoformat(timespec="milliseconds")
    return min(now, changed).isoformat(timespec="milliseconds")


def _group_at(number: int, path: Path, values: dict[str, Any], time: str) -> PlannedGroup:
    try:
        return _planned_group(path, values, time)
    except KeyError as error:
        raise ValueError(f"group {number}, or a file in it, has no {error}") from None
    except (TypeError, AttributeError):
        raise ValueError(f"group {number} is not an object with files to keep and to remove") from None


def _planned_group(path: Path, values: dict[str, Any], time: str) -> PlannedGroup:
    keep, remove = _planned_file(values["keep"]), tuple(map(_planned_file, values["remove"]))
    questions = tuple(map(_planned_file, values.get("questions") or ()))
    word = values.get("decision", "")
    if not word:
        return PlannedGroup(keep, remove, questions)
    others = (*remove, *questions)
    decision = Decision(word, tuple(DecidedImage(file.sha256, file.path) for file in (keep, *others)), time)
    try:
        if word not in DECISIONS:
            raise ValueError(f"should be one of {', '.join(DECISIONS)}")
        check_decision(decision)
    except ValueError as error:
        raise UsageError(f"{path}: the decision {word!r} about {keep.path}: {error}. Correct the file.") from None
    return PlannedGroup(keep, others if word == THIS_ONE else (), () if word == THIS_ONE else others, decision)


def _planned_file(values: dict[str, Any]) -> PlannedFile:
    path = values["path"]
    if not isinstance(path, str) or not is_inside(path):
        raise ValueError(f"the path {path!r} leads out of the folder")
    path = PurePosixPath(path).as_posix()  # without "./" and "//", which somebody may have written
    try:
        similarity = float(values.get("similarity", 1.0))
    except (TypeError, ValueError, OverflowError):  # edited by hand
        similarity = 0.5
    reason = str(values.get("reason", values.get("why", "")))
    sidecars = tuple(map(_planned_file, values.get("sidecars", [])))
    return PlannedFile(path, str(values["sha256"]).lower(), similarity, reason, sidecars)
