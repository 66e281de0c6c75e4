"""Carries out a plan by moving files into a quarantine folder, and moves them back.

    <quarantine_dir>/moves.jsonl      a line per file, written before the file is moved; sufficient for undoing
    <quarantine_dir>/files/...        the files, under the paths that they had in their folder

A file is moved only if its bytes, and those of the file that is kept in its place, are still those of the plan.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from simimg.errors import UsageError
from simimg.similarity.plan_file import Plan, PlannedFile, is_inside
from tfrecords.format.atomic_files import TEMPORARY, file_sha256, sync_file

__all__ = ["Applied", "apply_plan", "undo_plan"]

_MOVES_FILE = "moves.jsonl"
_FILES = "files"


@dataclasses.dataclass(frozen=True)
class Applied:
    """The paths that were moved, their total size, and the paths that were skipped with the reason."""

    moved: tuple[str, ...]
    num_bytes: int
    skipped: tuple[tuple[str, str], ...]


def apply_plan(plan: Plan, *, dry_run: bool, progress: Callable[[int], object] = lambda num_files: None) -> Applied:
    """Move the files that the plan removes into its quarantine folder.

    If it is interrupted, the same call continues, and `undo_plan` moves back what was moved.

    Args:
        plan: see `load_plan`.
        dry_run: only report what would be moved.
        progress: called with the number of files since the last call.
    """
    moved, skipped, num_bytes = [], [], 0
    removed = {file.path for file in plan.removals}
    for group in plan.groups:
        keeper = group.keep
        is_kept = keeper.path not in removed and _has_bytes(plan.image_dir, keeper)
        for file in group.remove:
            source = plan.image_dir / file.path
            progress(1)
            if not source.exists() and (plan.quarantine_dir / _FILES / file.path).exists():
                continue  # an earlier call moved it
            if not is_kept:
                skipped.append((file.path, f"{keeper.path}, which is to be kept in its place, is gone or was changed"))
            elif not _has_bytes(plan.image_dir, file):
                skipped.append((file.path, "it is gone, or was changed since the plan was made"))
            else:
                num_bytes += source.stat().st_size
                moved.append(file.path)
                if not dry_run:
                    _quarantine(plan, file)
    return Applied(tuple(moved), num_bytes, tuple(skipped))


def undo_plan(plan: Plan, *, progress: Callable[[int], object] = lambda num_files: None) -> Applied:
    """Move all files of a plan's quarantine folder back to where they were.

    Raises:
        UsageError: nothing was moved.
    """
    journal = plan.quarantine_dir / _MOVES_FILE
    if not journal.is_file():
        raise UsageError(f"{plan.path} was not applied: {journal} does not exist.")
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


def _quarantine(plan: Plan, file: PlannedFile) -> None:
    plan.quarantine_dir.mkdir(parents=True, exist_ok=True)
    with open(plan.quarantine_dir / _MOVES_FILE, "a", encoding="utf-8") as journal:
        journal.write(json.dumps({"path": file.path, "sha256": file.sha256}) + "\n")
        journal.flush()
        os.fsync(journal.fileno())
    _move(plan.image_dir / file.path, plan.quarantine_dir / _FILES / file.path)


def _move(source: Path, target: Path) -> None:
    """Rename a file; across file systems, a complete copy is synced before the source is removed."""
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
        sync_file(target.parent)
        source.unlink()


def _moves(journal: Path) -> Iterator[str]:
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            path = json.loads(line)["path"]
            if is_inside(path):
                yield path
        except (ValueError, KeyError, TypeError):  # a power failure cut off the last line; its file was not moved
            continue


def _has_bytes(folder: Path, file: PlannedFile) -> bool:
    path = folder / file.path
    try:
        return path.is_file() and file_sha256(path) == file.sha256
    except OSError:
        return False
