"""What decisions do to groups of copies: some are not shown again, and in others some images stay.

1. An image that is a copy of none of the others, as decided, leaves the group.
2. A group is left out if each of its pairs was decided to be no copies, or copies that all stay.
3. Any other group is shown. Its images say what was decided about them. A plan removes none of those that were decided
   to stay, and none that differ, as decided, from another image of the group.

Files of the same bytes count one by one: of three of them, a decision about two leaves one, which has joined since.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from simimg.similarity.decisions import KEEP_ALL, NOT_COPIES, THIS_ONE, Decision, Decisions

if TYPE_CHECKING:
    from simimg.similarity.duplicate_groups import Group, Member
    from simimg.similarity.search_index import SearchIndex

_NEXT = "the next one, since the one before is not a copy"


@dataclasses.dataclass(frozen=True, slots=True)
class ReturnedImage:
    """An image that a plan removed and that is in the folder again: its path now, its path then, and the day."""

    path: str
    removed_path: str
    date: str

    @property
    def text(self) -> str:
        """What happened."""
        return f"removed on {self.date} as {self.removed_path}, back as {self.path}"


def returned_images(index: SearchIndex, decisions: Decisions) -> tuple[ReturnedImage, ...]:
    """Return the images of an index that a plan removed once and whose files are there again."""
    if not decisions.removed:
        return ()
    rows = np.flatnonzero(np.isin(index.images.column("sha256").astype(str), list(decisions.removed)))
    found = []
    for image in index.images.rows(rows):
        if index.path_of(image).is_file():
            event = decisions.removed[image.sha256]
            found.append(ReturnedImage(image.path, event.images[0].path, event.date))
    return tuple(found)


def settled_groups(groups: Sequence[Group], decisions: Decisions) -> tuple[list[Group], set[frozenset[str]]]:
    """Return the groups that are to be shown, and the keys of the decisions because of which others are not."""
    shown, settling = [], set()
    for group in groups:
        members, keys = settled_members(group.members, decisions)
        settling |= keys
        if members:
            shown.append(dataclasses.replace(group, keeper=members[0], others=tuple(members[1:])))
    return shown, settling


def settled_members(members: Sequence[Member], decisions: Decisions) -> tuple[Sequence[Member], set[frozenset[str]]]:
    """Return the members that are to be shown, with what is known about each; the first one is the keeper.

    Returns no members if all is decided. The keys are those of the decisions because of which some are not shown.
    """
    last = [next(iter(decisions.about(member.image.sha256)), None) for member in members]
    if not any(last):
        return [_told(member, (), (), decisions) for member in members], set()
    numbers = _numbers(members, decisions)
    if (only := _only_decision(last, members, numbers)) is not None:
        return [], {only.key}
    decided = _decided_pairs([member for member, one in zip(members, last, strict=True) if one], numbers, decisions)
    num_different = {
        row: sum(decision.decision == NOT_COPIES for decision in others.values()) for row, others in decided.items()
    }
    left = [member for member in members if num_different.get(member.row) != len(members) - 1]
    keys = {
        decision.key
        for row, others in decided.items()
        if num_different[row] == len(members) - 1
        for decision in others.values()
    }
    rows = {member.row for member in left}
    pairs = {row: {other: one for other, one in others.items() if other in rows} for row, others in decided.items()}
    if all(len(pairs.get(row, ())) == len(left) - 1 for row in rows):
        found = [decision for row in rows for decision in pairs.get(row, {}).values()]
        if all(decision.decision != THIS_ONE for decision in found):
            return [], keys | {decision.key for decision in found}
    paths = {member.row: member.image.path for member in left}
    shown = []
    for member in left:
        of = pairs.get(member.row, {})
        with_keeper = of.get(left[0].row)
        protecting = _protecting(member, numbers, decisions)
        if with_keeper is not None:
            is_chosen = with_keeper.decision != THIS_ONE or _is_first(member, numbers, with_keeper)
            stays = protecting is not None or is_chosen
        else:
            stays = protecting is not None or any(one.decision == NOT_COPIES for one in of.values())
        others = [(decision, paths[row]) for row, decision in of.items()]
        told = _told(member, others, () if protecting is None else (protecting,), decisions)
        may_go = not stays and with_keeper is not None and _is_first(left[0], numbers, with_keeper)
        is_decided = bool(of) or protecting is not None
        shown.append(dataclasses.replace(told, stays=stays, may_go=may_go, is_decided=is_decided))
    if left[0] is not members[0]:
        shown[0] = dataclasses.replace(shown[0], similarity=1.0, reason=_NEXT)
    return shown, keys


def _only_decision(
    last: Sequence[Decision | None], members: Sequence[Member], numbers: dict[int, int]
) -> Decision | None:
    """Return the decision that settles all pairs, if one does: a group of thousands has millions of them."""
    only = last[0]
    if only is None or only.decision == THIS_ONE or (only.decision == NOT_COPIES and any(numbers.values())):
        return None
    covered = (one is only and _covers(only, member, numbers) for one, member in zip(last, members, strict=True))
    return only if all(covered) else None


def _numbers(members: Sequence[Member], decisions: Decisions) -> dict[int, int]:
    """Return the number of each member, by row, among those of the same bytes: first those with a decided path."""
    same: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        same[member.image.sha256].append(member)
    numbers = {}
    for sha256, files in same.items():
        if len(files) > 1:
            known = [image.path for decision in decisions.about(sha256) for image in decision.images]
            rank = {path: place for place, path in reversed(list(enumerate(known)))}
            files.sort(key=lambda member: (rank.get(member.image.path, len(known)), member.row))
        numbers.update({member.row: number for number, member in enumerate(files)})
    return numbers


def _covers(decision: Decision, member: Member, numbers: dict[int, int]) -> bool:
    """Whether a decision that names these bytes is about this file of them."""
    number = numbers[member.row]
    return not number or decision.decision == NOT_COPIES or number < decision.num_files(member.image.sha256)


def _decided_pairs(
    members: Sequence[Member], numbers: dict[int, int], decisions: Decisions
) -> dict[int, dict[int, Decision]]:
    """Return the last decision on each pair of members, by both rows."""
    decided: dict[int, dict[int, Decision]] = defaultdict(dict)
    for one, other in combinations(members, 2):
        for decision in decisions.about(one.image.sha256, other.image.sha256):
            same = one.image.sha256 == other.image.sha256
            if not (same and decision.decision == NOT_COPIES) and all(
                _covers(decision, member, numbers) for member in (one, other)
            ):
                decided[one.row][other.row] = decided[other.row][one.row] = decision
                break
    return decided


def _protecting(member: Member, numbers: dict[int, int], decisions: Decisions) -> Decision | None:
    """Return the decision because of which an image stays, whatever it is a copy of."""
    for decision in decisions.about(member.image.sha256):
        if decision.decision != NOT_COPIES and _covers(decision, member, numbers):
            return decision if decision.decision == KEEP_ALL or _is_first(member, numbers, decision) else None
    return None


def _is_first(member: Member, numbers: dict[int, int], decision: Decision) -> bool:
    return member.image.sha256 == decision.images[0].sha256 and not numbers[member.row]


def _told(
    member: Member,
    pairs: Sequence[tuple[Decision, str]],
    protecting: Sequence[Decision],
    decisions: Decisions,
) -> Member:
    """Return a member that says what was decided about it, given its decided pairs with the paths of the others."""
    texts = []
    different = [path for decision, path in pairs if decision.decision == NOT_COPIES]
    if different:
        more = f" and {len(different) - 1:,} more" if len(different) > 1 else ""
        texts.append(f"not a copy of {different[0]}{more}")
    if protecting:
        texts.append("all are kept" if protecting[0].decision == KEEP_ALL else "this one is kept")
    elif any(decision.decision == THIS_ONE for decision, _ in pairs):
        texts.append("may go")
    if texts:
        dates = [decision.date for decision in (*(one for one, _ in pairs), *protecting)]
        texts = [f"decided on {max(dates)}: {', '.join(texts)}"]
    if decisions.is_dropped(member.image.sha256, member.image.path):
        texts.append("to be dropped, as decided about a finding")
    if (removal := decisions.removed.get(member.image.sha256)) is not None:
        texts.append(f"removed on {removal.date} as {removal.images[0].path}, and back")
    if not texts and not member.remembered:
        return member
    # Nothing of what was decided earlier.
    return dataclasses.replace(member, remembered="; ".join(texts), stays=False, may_go=False, is_decided=False)
