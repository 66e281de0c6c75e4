"""A plan of what to do with duplicates, and doing it: files are moved into a quarantine folder, and can be moved back.

    plan.json                         to read and to change: groups, each with a file to keep and files to remove
    <quarantine_dir>/moves.jsonl      a line a file, written before the file is moved: undoing needs nothing else
    <quarantine_dir>/files/...        the files, under the paths that they had in their folder

A file is moved only if its bytes, and those of the file that is kept in its place, are still what the plan says.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from simimg.errors import DataError, UsageError
from simimg.similarity.duplicate_groups import Group
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import printable
from tfrecords.format.atomic_files import TEMPORARY, file_sha256, read_json, sync_dir, sync_file, write_json

__all__ = ["Applied", "Plan", "apply_plan", "load_plan", "reference_of", "undo_plan", "write_plan"]

_FORMAT = "simimg-plan/1"
_MOVES_FILE = "moves.jsonl"
_FILES = "files"

_Skipped = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be removed: files relative to `image_dir`, each with its checksum and the file that stays for it."""

    path: Path
    image_dir: Path
    removals: tuple[tuple[str, str], ...]
    keepers: tuple[tuple[str, str], ...]

    @property
    def quarantine_dir(self) -> Path:
        """Where the files go: beside the plan."""
        return self.path.with_name(f"{self.path.stem}-quarantine")


@dataclasses.dataclass(frozen=True)
class Applied:
    """What was moved, in bytes too, and what was left with the reason."""

    moved: tuple[str, ...]
    num_bytes: int
    skipped: tuple[_Skipped, ...]


def reference_of(index: SearchIndex, folders: Iterable[str]) -> Callable[[str], bool]:
    """Returns what tells the paths of an index that lie in reference folders, whose files are never touched.

    Args:
        index: of files.
        folders: relative to the index's own.

    Raises:
        UsageError: there is no such folder in it.
    """
    root = Path(index.info.image_dir) if index.info.image_dir else Path()
    prefixes = []
    for folder in folders:
        below = root / folder
        if not below.is_dir() or not below.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"--reference_dirs={folder}: there is no such folder below {root}.")
        prefixes.append(f"{printable(below.resolve().relative_to(root.resolve()).as_posix())}/")
    return lambda path: any(path.startswith(prefix) or prefix == "./" for prefix in prefixes)


def write_plan(path: Path, image_dir: Path, groups: Iterable[Group], reference: Callable[[str], bool]) -> None:
    """Writes a plan that keeps each group's keeper, and all files of reference folders.

    Args:
        path: the plan, JSON.
        image_dir: what the pictures' paths are relative to.
        groups: see `simimg.similarity.duplicate_groups`.
        reference: tells the paths that are never touched.
    """
    described = []
    for group in groups:
        keeper = {"path": group.keeper.picture.path, "sha256": group.keeper.picture.sha256, "why": group.keeper.reason}
        others = [
            {
                "path": member.picture.path,
                "sha256": member.picture.sha256,
                "num_bytes": member.picture.num_bytes,
                "similarity": round(member.similarity, 4),
                "reason": member.reason,
            }
            for member in group.others
            if not reference(member.picture.path)
        ]
        if others:
            described.append({"keep": keeper, "remove": others})
    write_json(path, {"format": _FORMAT, "image_dir": str(image_dir.resolve()), "groups": described})


def load_plan(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        DataError: it is missing, or is none.
    """
    values: Any = read_json(path, "a plan of `simimg duplicates`")
    try:
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']}, not {_FORMAT}")
        removals, keepers = [], []
        for group in values["groups"]:
            for one in group["remove"]:
                removals.append((_inside(one["path"]), str(one["sha256"])))
                keepers.append((_inside(group["keep"]["path"]), str(group["keep"]["sha256"])))
        return Plan(path, Path(values["image_dir"]), tuple(removals), tuple(keepers))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no plan of `simimg duplicates`: {error}. Make it again.") from None


def apply_plan(plan: Plan, *, dry_run: bool, progress: Callable[[int], object] = lambda num_files: None) -> Applied:
    """Moves what the plan removes into its quarantine folder.

    Stopped at any moment, the same call goes on, and `undo_plan` brings back what was moved.

    Args:
        plan: see `load_plan`.
        dry_run: only tell what would be moved.
        progress: called with the number of files since the last call.
    """
    moved, skipped, num_bytes = [], [], 0
    kept: dict[tuple[str, str], bool] = {}
    going = {path for path, _ in plan.removals}
    for removal, keeper in zip(plan.removals, plan.keepers, strict=True):
        (path, sha256), source = removal, plan.image_dir / removal[0]
        if keeper not in kept:
            kept[keeper] = _has_bytes(plan.image_dir / keeper[0], keeper[1])
        if not source.exists() and (plan.quarantine_dir / _FILES / path).exists():
            progress(1)
            continue  # an earlier call moved it
        if keeper[0] in going or not kept[keeper]:
            skipped.append((path, f"{keeper[0]}, which is to be kept in its place, is gone or was changed"))
        elif not _has_bytes(source, sha256):
            skipped.append((path, "it is gone, or was changed since the plan was made"))
        else:
            num_bytes += source.stat().st_size
            moved.append(path)
            if not dry_run:
                _quarantine(plan, source, path, sha256)
        progress(1)
    return Applied(tuple(moved), num_bytes, tuple(skipped))


def undo_plan(plan: Plan, *, progress: Callable[[int], object] = lambda num_files: None) -> Applied:
    """Moves all files of a plan's quarantine folder back to where they were.

    Raises:
        UsageError: nothing was moved.
    """
    journal = plan.quarantine_dir / _MOVES_FILE
    if not journal.is_file():
        raise UsageError(f"{plan.path} was not applied: there is no {journal}.")
    moved, skipped, num_bytes = [], [], 0
    for path in dict.fromkeys(_moves(journal)):
        source, target = plan.quarantine_dir / _FILES / path, plan.image_dir / path
        if source.exists() and target.exists():
            skipped.append((path, "there is a file of this name again; it stays in quarantine"))
        elif source.exists():
            num_bytes += source.stat().st_size
            _move(source, target)
            moved.append(path)
        progress(1)
    if not skipped:
        shutil.rmtree(plan.quarantine_dir)
    return Applied(tuple(moved), num_bytes, tuple(skipped))


def _quarantine(plan: Plan, source: Path, path: str, sha256: str) -> None:
    plan.quarantine_dir.mkdir(parents=True, exist_ok=True)
    with open(plan.quarantine_dir / _MOVES_FILE, "a", encoding="utf-8") as journal:
        journal.write(json.dumps({"path": path, "sha256": sha256}) + "\n")
        journal.flush()
        os.fsync(journal.fileno())
    _move(source, plan.quarantine_dir / _FILES / path)


def _move(source: Path, target: Path) -> None:
    """Renames a file; across file systems it is copied whole before the first goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target.with_name(f".{target.name}{TEMPORARY}{os.getpid()}")
        try:
            shutil.copy2(source, temporary)
            sync_file(temporary)
            os.rename(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_dir(target.parent)
        source.unlink()


def _moves(journal: Path) -> Iterator[str]:
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            yield _inside(json.loads(line)["path"])
        except (ValueError, KeyError, TypeError):  # a power failure in the middle of the last line: it was not moved
            continue


def _has_bytes(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and file_sha256(path) == sha256
    except OSError:
        return False


def _inside(path: Any) -> str:
    """A path of a plan, which somebody may have edited: relative, and not out of its folder."""
    if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"the path {path!r} leads out of the folder")
    return path
