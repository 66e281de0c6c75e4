"""Decides which files of a plan are moved: those that the plan removes, and their sidecars.

An image is moved only if its bytes, and those of the file that is kept in its place, are still those of the plan, and
if it is not that file under another name. A sidecar is moved only if its image is gone, if it belongs to no image that
stays (`simimg.similarity.sidecars`), and if its bytes are those of the plan. Files in the plan's reference folders
stay, and so does what lies behind a linked folder, and a file that a link leads to.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from simimg.similarity.decisions import Decisions
from simimg.similarity.fingerprint import Stamp, stamp_of
from simimg.similarity.plan_file import Plan, PlannedFile
from simimg.similarity.plan_memory import why_stays
from simimg.similarity.quarantine_journal import Move, has_bytes
from simimg.similarity.sidecars import sidecars_of
from tfrecords.convert.sources import printable, unprintable
from tfrecords.format.atomic_files import file_identity

CHANGED = "it, or the file that is kept in its place, was changed since the plan was made, or is gone"

_Skipped = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class ChosenFile:
    """A file to move: its name, and the stamps of the file and of its keeper when their bytes were compared."""

    name: str
    file: tuple[Path, Stamp | None]
    keeper: tuple[Path, Stamp | None]

    def is_unchanged(self) -> bool:
        """Whether both are still what they were."""
        return all(_stamp(path) == stamp for path, stamp in (self.file, self.keeper))


def choose_images(
    plan: Plan, moves: Sequence[Move], decisions: Decisions, skipped: _Skipped, progress: Callable[[int], object]
) -> Iterator[ChosenFile]:
    """Yield the images to move; append the paths that stay to `skipped`, each with the reason.

    Those that were decided to stay since the plan was made stay, too.
    """
    chosen: set[str] = set()
    removed = {file.path for file in plan.removals}
    earlier = {printable(move.path) for move in moves if os.path.lexists(plan.quarantine_dir / move.to)}
    keepers = [group.keep for group in plan.groups if group.keep.path not in removed]
    kept = {file_identity(_path(plan, file)): file.path for file in keepers}
    links = _links(plan.image_dir)
    for group in plan.groups:
        keeper = group.keep
        keeper_path = _path(plan, keeper)
        keeper_stamp = _stamp(keeper_path)
        is_kept = has_bytes(keeper_path, keeper.sha256)
        for file in sorted(group.remove, key=lambda file: not _path(plan, file).is_symlink()):  # links before files
            progress(1)
            path = _path(plan, file)
            stamp = _stamp(path)
            name = path.relative_to(plan.image_dir).as_posix()
            if name in chosen or (not os.path.lexists(path) and file.path in earlier):
                continue
            if folder := _reference_dir_of(plan, path):
                reason = f"it is in {folder}, a reference folder, whose files are kept"
            elif keeper.path in removed:
                reason = f"{keeper.path}, which is to be kept in its place, is to be removed as well"
            elif not is_kept:
                reason = f"{keeper.path}, which is to be kept in its place, is gone or was changed"
            elif not has_bytes(path, file.sha256):
                reason = CHANGED
            elif decided := why_stays(file, group, decisions):
                reason = decided
            elif same := kept.get(file_identity(path)):
                reason = f"it is the same file as {same}, which is kept: another name of it, not a copy"
            elif not (reason := outside_folder(plan, name) or _leading_to(path, name, links, chosen)):
                chosen.add(name)
                yield ChosenFile(name, (path, stamp), (keeper_path, keeper_stamp))
                continue
            skipped.append((file.path, reason))


def choose_sidecars(
    plan: Plan, moves: Sequence[Move], moved: Sequence[str], skipped: _Skipped, staying: _Skipped
) -> Iterator[ChosenFile]:
    """Yield the sidecars to move, of images that are gone: the names `moved`, and those moved earlier.

    The paths of planned sidecars that cannot be moved are appended to `skipped`, and those of other sidecars to
    `staying`, each with the reason.
    """
    removed, planned = {file.path for file in plan.removals}, _planned_sidecars(plan)
    gone = set(moved)
    for move in moves:
        is_there = os.path.lexists(plan.image_dir / move.path) or not os.path.lexists(plan.quarantine_dir / move.to)
        if printable(move.path) in removed and not is_there:
            gone.add(move.path)
    links = functools.cache(lambda: _links(plan.image_dir))  # which takes a while, and there may be no sidecars
    chosen: set[str] = set()
    for sidecar in list(sidecars_of(plan.image_dir, sorted(gone), gone.__contains__)):
        path = plan.image_dir / sidecar.path
        stamp = _stamp(path)
        file = planned.get(printable(sidecar.path))
        if file is None or sidecar.stays:
            staying.append((printable(sidecar.path), sidecar.stays or "the plan does not list it"))
        elif not has_bytes(path, file.sha256):
            skipped.append((file.path, "it was changed since the plan was made"))
        elif reason := outside_folder(plan, sidecar.path) or _leading_to(path, sidecar.path, links(), chosen):
            skipped.append((file.path, reason))
        else:
            chosen.add(sidecar.path)
            yield ChosenFile(sidecar.path, (path, stamp), (path, stamp))


def outside_folder(plan: Plan, name: str) -> str:
    """Return why a name is not one of a file that lies in the plan's folder itself, or an empty text."""
    for parent in reversed(Path(name).parents):
        if (plan.image_dir / parent).is_symlink() and parent != Path():
            target = os.readlink(plan.image_dir / parent)
            return (
                f"{printable(str(parent))} is a link to {printable(target)}; only files of the folder itself are moved"
            )
    if (plan.image_dir / name).absolute().is_relative_to(plan.quarantine_dir.absolute()):
        return f"it lies in {plan.quarantine_dir}"
    return ""


def _leading_to(path: Path, name: str, links: dict[str, list[str]], chosen: set[str]) -> str:
    """Return which link that stays leads to a file, as a reason, or an empty text."""
    pointing = [link for link in links.get(os.path.realpath(path), ()) if link != name and link not in chosen]
    if not pointing or path.is_symlink():
        return ""
    return f"{printable(pointing[0])} is a link to it, which would lead nowhere"


def _links(folder: Path) -> dict[str, list[str]]:
    """Return the links to files at and below a folder: relative to it, by the path that each leads to."""
    links = defaultdict(list)
    for parent, _, files in os.walk(folder):
        for name in files:
            if os.path.islink(path := os.path.join(parent, name)):
                links[os.path.realpath(path)].append(os.path.relpath(path, folder))
    return links


def _planned_sidecars(plan: Plan) -> dict[str, PlannedFile]:
    return {sidecar.path: sidecar for file in plan.removals for sidecar in file.sidecars}


def _reference_dir_of(plan: Plan, path: Path) -> str:
    """Return the reference folder that a file lies in, links to folders followed, or an empty text."""
    parent = path.parent.resolve()
    for folder in plan.reference_dirs:
        if parent.is_relative_to((plan.image_dir / unprintable(folder, plan.image_dir)).resolve()):
            return folder
    return ""


def _path(plan: Plan, file: PlannedFile) -> Path:
    return plan.image_dir / unprintable(file.path, plan.image_dir)


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None
