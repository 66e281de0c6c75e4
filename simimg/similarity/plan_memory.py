"""What a plan leaves in its index's file of decisions: those that it contains, and which images it removed.

Only a plan that was made with an index has a place for them: it names the folder of that index.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from simimg.errors import DataError, SearchIndexError, SimimgError, UsageError
from simimg.similarity.decisions import (
    REMOVED,
    RETURNED,
    THIS_ONE,
    DecidedImage,
    Decision,
    Decisions,
    read_decisions,
    record,
)
from simimg.similarity.index_info import INFO_FILE
from simimg.similarity.plan_file import Plan, PlannedFile, PlannedGroup, load_plan
from simimg.similarity.quarantine_journal import Move
from simimg.similarity.remote_index import local_index
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.sources import printable
from tfrecords.locations import location_text


def decisions_beside(plan: Plan) -> Decisions:
    """Return the decisions in the folder of the plan's index, those of the plan included; none without an index.

    Raises:
        UsageError: the plan has decisions, and there is no index for them; or it is at a URL, and the store does not
            answer.
        DataError: the file of decisions is damaged.
    """
    folder = _folder(plan)
    if plan.decisions and folder is None:
        where = "it names no index to keep them in"
        if plan.index_dir is not None:
            where = f"its index, {location_text(plan.index_dir)}, is not there"
        number = "a decision" if len(plan.decisions) == 1 else f"{len(plan.decisions):,} decisions"
        raise UsageError(
            f"{plan.path} has {number} about its groups, but {where}. "
            'Make the plan with --index_dir=PATH, or write "index_dir" into it.'
        )
    decisions = Decisions() if folder is None else read_decisions(folder)
    for decision in _new(plan, decisions):
        decisions.add(decision)
    return decisions


def remember_decisions(plan: Plan) -> None:
    """Store the decisions of a plan, unless they are known."""
    folder = _folder(plan)
    if folder is not None and plan.decisions:
        record(folder, lambda decisions: _new(plan, decisions))


def keep_decisions_of(path: Path, index_dir: Path | None) -> None:
    """Store the decisions in a plan that is about to be replaced; of an index it names none, in `index_dir`.

    Raises:
        UsageError: it has decisions, and one is not valid, or there is no index.
    """
    if not path.is_file():
        return
    try:
        plan = load_plan(path)
    except DataError as error:
        raise UsageError(f"{error} It is left as it is: name another file, or remove it.") from None
    plan = dataclasses.replace(plan, index_dir=plan.index_dir or index_dir)
    decisions_beside(plan)
    remember_decisions(plan)


def outdated_decisions(plan: Plan, decisions: Decisions) -> list[Decision]:
    """Return the decisions of a plan that do not count, because something else was decided since."""
    return [decision for decision in plan.decisions if not _counts(decision, decisions)]


def why_stays(file: PlannedFile, group: PlannedGroup, decisions: Decisions) -> str:
    """Return why a file that a plan removes shall stay, as was decided since the plan was made, or an empty text."""
    keeper = group.keep
    if decisions.is_kept(file.sha256, file.path):
        return "it stays, as was decided"
    if group.decision is not None and not _counts(group.decision, decisions):
        return f"it stays: since the plan was changed, something else than its {group.decision.decision!r} was decided"
    if file.sha256 == keeper.sha256:
        return ""
    for decision in decisions.about(file.sha256, keeper.sha256):
        if decision.decision == THIS_ONE and decision.images[0].sha256 != file.sha256:
            return ""
        when = f" on {decision.date}" if decision.time else ""
        return f"it stays: {decision.decision!r} was decided{when} about it and {keeper.path}"
    return ""


def remember_removals(plan: Plan, moves: Iterable[Move], names: Sequence[str]) -> str:
    """Store that files were moved away whose bytes are nowhere else in the index; return why it cannot, or "".

    Args:
        plan: whose files they are.
        moves: all moves of its journal.
        names: the files that were moved now; of the others, those that are known are not stored again.
    """
    gone = _images(plan, [move for move in moves if move.is_moved and not move.is_undone])
    if not gone or plan.index_dir is None:
        return ""
    now = {printable(name) for name in names}
    try:
        if (folder := _folder(plan, whole=True)) is None:
            return f"its index, {location_text(plan.index_dir)}, is not there"
        there = {group.keep.sha256 for group in plan.groups} | _checksums_there(folder, gone)
        record(
            folder,
            lambda decisions: [
                Decision(REMOVED, (image,))
                for image in gone
                if image.sha256 not in there and (image.path in now or image.sha256 not in decisions.removed)
            ],
        )
    except SimimgError as error:
        return str(error)
    return ""


def forget_removals(plan: Plan, moves: Iterable[Move]) -> str:
    """Store that files were moved back; return why it cannot, or "": nothing keeps files in quarantine."""
    if not (back := _images(plan, moves)):
        return ""
    try:
        if (folder := _folder(plan)) is not None:
            record(
                folder,
                lambda decisions: [Decision(RETURNED, (image,)) for image in back if image.sha256 in decisions.removed],
            )
    except SimimgError as error:
        return str(error)
    return ""


def _folder(plan: Plan, *, whole: bool = False) -> Path | None:
    """Return the folder of the plan's index, if it is there; see `local_index`, also for errors of one at a URL."""
    if plan.index_dir is None:
        return None
    try:
        folder = local_index(plan.index_dir, whole=whole)
    except SearchIndexError:
        return None
    return folder if (folder / INFO_FILE).is_file() else None


def _new(plan: Plan, decisions: Decisions) -> list[Decision]:
    """Return those decisions of a plan that say something new, and then the newer ones that they would override.

    A decision that was made, or taken back, about exactly the same images since the plan was changed replaces its own.
    """
    new = []
    for decision in plan.decisions:
        last = decisions.last(decision.key)
        if not _counts(decision, decisions) and (last is None or last.seconds <= decision.seconds):
            new.append(decision)
    named = {sha256 for decision in new for sha256 in decision.key}
    return new + [one for one in decisions if one.key & named and one.seconds > new[0].seconds]


def _counts(decision: Decision, decisions: Decisions) -> bool:
    """Whether the same was decided about exactly these images, and nothing else since."""
    known = decisions.of(decision.key)
    if known is None or known.decision != decision.decision:
        return False
    return decision.decision != THIS_ONE or known.images[0].sha256 == decision.images[0].sha256


def _images(plan: Plan, moves: Iterable[Move]) -> list[DecidedImage]:
    checksums = {file.path: file.sha256 for file in plan.removals}
    paths = [printable(move.path) for move in moves]
    return [DecidedImage(checksums[path], path) for path in paths if path in checksums]


def _checksums_there(folder: Path, images: Sequence[DecidedImage]) -> set[str]:
    """Return the checksums of those images that are still in the indexed folder, under whatever name."""
    try:
        index = SearchIndex.open(folder)
    except SearchIndexError:  # it is made again some time
        return set()
    wanted = list({image.sha256 for image in images})
    rows = np.flatnonzero(np.isin(index.images.column("sha256").astype(str), wanted))
    return {image.sha256 for image in index.images.rows(rows) if index.path_of(image).is_file()}
