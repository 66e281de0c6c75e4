"""Carries out a plan by moving files into a quarantine folder, and moves them back.

    <quarantine_dir>/moves.jsonl        the journal: which plan this is, then a line before and after each move
    <quarantine_dir>/applied-plan.json  the plan that was applied
    <quarantine_dir>/files/...          the files, under the paths that they had in their folder

What is moved is decided in `simimg.similarity.planned_moves`: images first, then the sidecars of those that are gone. A
link is moved as a link. Nothing is overwritten, in the quarantine or in the folder. A process that is killed at any
moment leaves every file in one of the two places, where `undo_plan` finds it. What was moved is remembered beside the
plan's index, see `simimg.similarity.plan_memory`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import filecmp
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from simimg.errors import UsageError
from simimg.similarity.decisions import Decision
from simimg.similarity.plan_file import APPLIED_PLAN, Plan
from simimg.similarity.plan_memory import (
    decisions_beside,
    forget_removals,
    outdated_decisions,
    remember_decisions,
    remember_removals,
)
from simimg.similarity.planned_moves import CHANGED, choose_images, choose_sidecars, outside_folder
from simimg.similarity.quarantine_journal import (
    FILES,
    Journal,
    Move,
    files_below,
    forgotten_moves,
    read_moves,
)
from tfrecords.convert.sources import printable
from tfrecords.convert.sources.source import QUARANTINE_JOURNAL
from tfrecords.format.atomic_files import TEMPORARY, locked_file, rename_new, sync_file

_LOCK = ".simimg-lock"
_COPY = ".simimg-copy-"  # begins the name of a file that is being copied to another file system
_MOVES_PER_SYNC = 64  # of the journal; a disk syncs some hundred times per second

_Progress = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Applied:
    """What `apply_plan` or `undo_plan` did.

    Attributes:
        moved: the paths of the files that were moved.
        num_bytes: their total size; a link counts as nothing.
        skipped: paths that were not moved, each with the reason.
        sidecars: paths of files that belong to an image which was moved, and stay, each with the reason.
        left: other files in the quarantine folder, because of which `undo_plan` left it.
        not_remembered: why the index does not know what was moved, or empty.
        outdated: decisions of the plan that do not count, because something else was decided since.
    """

    moved: tuple[str, ...]
    num_bytes: int
    skipped: tuple[tuple[str, str], ...]
    left: tuple[str, ...] = ()
    sidecars: tuple[tuple[str, str], ...] = ()
    not_remembered: str = ""
    outdated: tuple[Decision, ...] = ()


def apply_plan(plan: Plan, *, dry_run: bool, progress: _Progress = lambda num_files: None) -> Applied:
    """Move the files that the plan removes into its quarantine folder, and store its decisions.

    If it is interrupted, the same call continues, and `undo_plan` moves back what was moved.

    Args:
        plan: see `load_plan`.
        dry_run: only report what would be moved.
        progress: called with the number of files since the last call.

    Raises:
        UsageError: the folder of the images is missing, the quarantine folder belongs to another plan, another
            process is at work in it, or the plan has decisions and no index to keep them in.
        DataError: the file of decisions is damaged.
    """
    _check_image_dir(plan)
    decisions = decisions_beside(plan)
    skipped: list[tuple[str, str]] = []
    staying: list[tuple[str, str]] = []
    moved: list[str] = []
    num_bytes = 0
    with contextlib.nullcontext() if dry_run else _locked(plan):
        earlier = _moves(plan)
        if not dry_run:
            remember_decisions(plan)
        # What belongs to an image is chosen when the image is gone.
        for chosen in (
            choose_images(plan, earlier, decisions, skipped, progress),
            choose_sidecars(plan, earlier, moved, skipped, staying),
        ):
            while some := list(itertools.islice(chosen, _MOVES_PER_SYNC)):
                names = [one.name for one in some if one.is_unchanged()]
                skipped += [(printable(one.name), CHANGED) for one in some if one.name not in names]
                num_bytes += _total_bytes(plan, names)
                if not dry_run:
                    _quarantine(plan, Journal(plan), names)
                moved += names
        problem = "" if dry_run else remember_removals(plan, _moves(plan), moved)
        if not moved and not earlier and not dry_run:
            _remove_own(plan.quarantine_dir)
    outdated = tuple(outdated_decisions(plan, decisions))
    return Applied(tuple(map(printable, moved)), num_bytes, tuple(skipped), (), tuple(staying), problem, outdated)


def undo_plan(plan: Plan, *, progress: _Progress = lambda num_files: None) -> Applied:
    """Move all files of a plan's quarantine folder back to where they were, and remove the folder if it is empty then.

    Raises:
        UsageError: nothing was moved, the quarantine folder belongs to another plan, the folder of the images is
            missing, or another process is at work in it.
    """
    if not (plan.quarantine_dir / QUARANTINE_JOURNAL).is_file():
        raise UsageError(f"{plan.path} was not applied: {plan.quarantine_dir / QUARANTINE_JOURNAL} does not exist.")
    _check_image_dir(plan)
    moved, skipped, num_bytes = [], [], 0
    back: list[Move] = []
    with _locked(plan):
        moves = _moves(plan, undoing=True)
        journal = Journal(plan)
        for move in moves:
            source, target = plan.quarantine_dir / move.to, plan.image_dir / move.path
            _copy_name(source).unlink(missing_ok=True)  # of an apply that was killed; the original is in its place
            size = _num_bytes(source)
            if reason := _move_back(plan, move, source, target):
                skipped.append((printable(move.path), reason))
            elif size is not None:
                journal.write([{"undone": move.path, "to": move.to}])
                num_bytes += size
                moved.append(printable(move.path))
                back.append(move)
            progress(1)
        problem = forget_removals(plan, back)
        left = () if skipped else _remove_own(plan.quarantine_dir)
    return Applied(tuple(dict.fromkeys(moved)), num_bytes, tuple(skipped), left, (), problem)


def _moves(plan: Plan, *, undoing: bool = False) -> list[Move]:
    moves = read_moves(plan, undoing=undoing)
    return moves + forgotten_moves(plan, moves)


def _quarantine(plan: Plan, journal: Journal, names: list[str]) -> None:
    """Move some files of the folder, with a line in the journal before and after each."""
    moves = [Move(name, _free_name(plan, name)) for name in names]
    journal.write({"move": move.path, "to": move.to} for move in moves)
    for move in moves:
        source, target = plan.image_dir / move.path, plan.quarantine_dir / move.to
        if _is_same(source, target):  # copied to another file system by a process that was killed then
            source.unlink()
        else:
            _move(source, target)
    for folder in {folder for move in moves for folder in _parents(plan.quarantine_dir, move.to)}:
        sync_file(folder)
    for folder in {(plan.image_dir / move.path).parent for move in moves}:
        sync_file(folder)
    journal.write({"moved": move.path, "to": move.to} for move in moves)


def _move_back(plan: Plan, move: Move, source: Path, target: Path) -> str:
    """Move a file back, or return why it stays in quarantine."""
    if not os.path.lexists(source):
        if move.is_moved and not move.is_undone and not os.path.lexists(target):
            return f"it is no longer in quarantine: {source} is gone"
        return ""
    if outside := outside_folder(plan, move.path):
        return outside
    try:
        if _is_same(source, target):
            source.unlink()  # a process was killed between copying it back to another file system and this
        else:
            _move(source, target)
    except (FileExistsError, NotADirectoryError):
        return "there is a file of this name again; it stays in quarantine"
    sync_file(target.parent)
    sync_file(source.parent)
    return ""


def _move(source: Path, target: Path) -> None:
    """Rename a file or link, never over another; between file systems, a complete copy is synced before it goes.

    Raises:
        FileExistsError: there is something of this name, or a parent folder is a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        rename_new(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = _copy_name(target)
        temporary.unlink(missing_ok=True)  # of a process that was killed
        try:
            shutil.copy2(source, temporary, follow_symlinks=False)
            if not temporary.is_symlink():
                sync_file(temporary)
            rename_new(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_file(target.parent)
        source.unlink()


def _copy_name(target: Path) -> Path:
    return target.with_name(_COPY + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16])


def _is_same(source: Path, target: Path) -> bool:
    """Whether `target` is a complete copy of `source`: a link to the same place, or a file with the same bytes."""
    if source.is_symlink() or target.is_symlink():
        return source.is_symlink() and target.is_symlink() and os.readlink(source) == os.readlink(target)
    return source.is_file() and target.is_file() and filecmp.cmp(source, target, shallow=False)


def _free_name(plan: Plan, name: str) -> str:
    """Return a path in the quarantine folder that nothing else has: `files/<name>`, or `files~1/<name>` and so on."""
    number, to = 0, f"{FILES}/{name}"
    while not _is_free(plan, to) and not _is_same(plan.image_dir / name, plan.quarantine_dir / to):
        number += 1
        to = f"{FILES}~{number}/{name}"
    return to


def _is_free(plan: Plan, to: str) -> bool:
    if os.path.lexists(plan.quarantine_dir / to):
        return False
    return all(not os.path.lexists(folder) or folder.is_dir() for folder in _parents(plan.quarantine_dir, to))


def _remove_own(folder: Path) -> tuple[str, ...]:
    """Remove a quarantine folder without files; return the files because of which it was left."""
    begun = tuple(f".{name}{TEMPORARY}" for name in (APPLIED_PLAN, QUARANTINE_JOURNAL))  # by a killed process
    files = files_below(folder)
    own = [*(file for file in files if file.startswith(begun)), APPLIED_PLAN, QUARANTINE_JOURNAL, _LOCK]
    left = tuple(file for file in files if file not in own)
    for parent, _, _ in os.walk(folder, topdown=False):
        if parent != str(folder):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(parent)
    for name in own:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty
        folder.rmdir()
    return left


def _parents(folder: Path, name: str) -> list[Path]:
    return [folder / parent for parent in Path(name).parents]


def _num_bytes(path: Path) -> int | None:
    try:
        return 0 if path.is_symlink() else os.lstat(path).st_size
    except OSError:
        return None


def _total_bytes(plan: Plan, names: list[str]) -> int:
    return sum(_num_bytes(plan.image_dir / name) or 0 for name in names)


def _check_image_dir(plan: Plan) -> None:
    if not plan.image_dir.is_dir():
        raise UsageError(
            f"{plan.path} is about the images in {plan.image_dir}, which is not there. Mount or restore it."
        )


@contextlib.contextmanager
def _locked(plan: Plan) -> Iterator[None]:
    """Hold the quarantine folder, which is created if necessary."""
    folder = plan.quarantine_dir

    def held(holder: str) -> UsageError:
        return UsageError(f"Another process ({holder}) is moving files of {plan.path}. Wait for it.")

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{folder} is not a folder, so no file can be moved to it. Rename it.") from None
    with locked_file(folder / _LOCK, held) as file:
        if not (folder / _LOCK).exists() or not os.path.samestat(os.stat(folder / _LOCK), os.fstat(file.fileno())):
            raise held("which removes the folder now")
        yield
