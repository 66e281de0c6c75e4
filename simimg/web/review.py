"""Reviews copies: groups that were found or planned, the choice of what to remove, and the plan's file.

The file is that of `simimg duplicates --plan` and `simimg apply`. Its path is set when the server starts, never by the
browser. It is only replaced if the browser knows its current content: `version` is the checksum of the file. A file
that is not a plan of this index is never replaced. The plan's reference folders stay in it, and their files are kept.
Members of a group that are neither kept nor removed, and differ by more than a plan removes, are its questions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simimg.errors import DataError, SimimgError, UsageError
from simimg.similarity.decided_groups import returned_images, settled_members
from simimg.similarity.decisions import Decisions, read_decisions
from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.edits import CONTENT, COUNTED, LABEL, PLANNED
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import SAME_BYTES, Verification
from simimg.similarity.plan_file import PlannedFile, is_planned, is_reference, load_plan, write_plan
from simimg.similarity.plan_memory import keep_decisions_of
from simimg.similarity.search_index import SearchIndex
from simimg.web.background_job import BackgroundJob
from simimg.web.groups_so_far import GroupsSoFar
from simimg.web.request_guard import RequestError

_BY_HAND = "chosen by hand"
_UNKNOWN = frozenset((CONTENT,))  # a plan does not say by which edits its questions differ


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A plan, as far as it can be read.

    Attributes:
        version: checksum of its file; empty without a file.
        groups: those whose keeper and copies are in the index, questions included.
        removals: rows to remove.
        asked: rows that are questions.
        num_unknown: number of files to remove that are not in the index.
        problem: why it is not a plan of this index, or empty.
        reference_dirs: folders whose files are kept.
    """

    version: str
    groups: tuple[Group, ...] = ()
    removals: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    num_unknown: int = 0
    problem: str = ""
    reference_dirs: tuple[str, ...] = ()

    def is_kept(self, picture: IndexedImage) -> bool:
        """Whether the image is in a reference folder."""
        return is_reference(picture.path, self.reference_dirs)

    def asks_about(self, member: Member) -> bool:
        """Whether an image that is not kept is a question, in the plan or since it differs by more than others."""
        return not member.stays and (member.row in self.asked or not is_planned(member, PLANNED))


@dataclasses.dataclass(frozen=True)
class _Found:
    """The result of a search, and the least similarity that it was made with."""

    threshold: float
    duplicates: Duplicates


class Review:
    """The groups of an index and one plan. Thread-safe."""

    def __init__(
        self, index: SearchIndex, images: IndexImages, plan_path: Path, edits: frozenset[str] = COUNTED
    ) -> None:
        self.job = BackgroundJob("duplicates")
        self._threshold = round(index.copy_threshold, 4)  # of the last search that was started, or to begin with
        self._index = index
        self._images = images
        self._path = plan_path
        self._edits = edits
        self._so_far = GroupsSoFar()
        self._starting, self._saving = threading.Lock(), threading.Lock()

    def start(self, threshold: float) -> None:
        """Search for copies with a similarity of at least `threshold`, 0.5..1, in a thread.

        Raises:
            RequestError: a search with another threshold is running.
        """

        def search(progress: Callable[[int], object]) -> _Found:
            is_kept = self._planned().is_kept
            found = find_duplicates(
                self._index,
                threshold=threshold,
                edits=self._edits,
                reference=is_kept,
                progress=progress,
                noticed=self._so_far.join,
            )
            return _Found(threshold, found)

        with self._starting:
            if self.job.described()["state"] != "running":
                self._so_far = GroupsSoFar()
            if self.job.start(search, len(self._index.images)):
                self._threshold = threshold
            elif self._threshold != threshold:
                running = f"A search with the least similarity {self._threshold:g} is running."
                raise RequestError(409, f"{running} Search again when it has ended.")

    def described(self) -> dict[str, Any]:
        """Return the review as JSON values.

        A group has its members, the keeper first, and the rows to remove. Without a plan these are the removals that
        `simimg duplicates` would write; members that differ by more than these are marked as questions. With a plan
        they are those of the plan; a group that it lacks has none. Found and planned groups that share an image are one
        group, so that all removals of the plan are there. Images in reference folders are marked. `threshold` is that
        of the search which found the groups. What was decided is left out; `num_left_out` counts the decisions that did
        so. `so_far` has the rows of the groups that a search has probably found, and the time that is left.
        """
        job = self.job.described()  # first, because its result is there before it is done
        found: _Found | None = self.job.result
        plan = self._planned()
        decisions = Decisions() if job["state"] == "running" else self._decisions()
        settled = self._settled(plan, decisions)
        settling = {key for _, keys in settled for key in keys} | (found.duplicates.settling if found else set())
        return {
            "job": job,
            "so_far": {**self._so_far.described(), "seconds_left": self.job.seconds_left()},
            "threshold": found.threshold if found else self._threshold,
            "searched": found is not None,
            "num_missing": found.duplicates.num_missing if found else 0,
            "num_left_out": sum(decisions.of(key) is not None for key in settling),
            "returned": [one.text for one in returned_images(self._index, decisions)],
            "groups": [_group_values(members, plan) for members, _ in settled if members],
            "reference_dirs": plan.reference_dirs,
            "plan": {
                "path": str(self._path),
                "version": plan.version,
                "num_unknown": plan.num_unknown,
                "problem": plan.problem,
                "possible": self._index.info.image_dir is not None,
            },
        }

    def save(self, values: Any) -> dict[str, Any]:
        """Write the plan: `{"version": text, "groups": [{"keep": row, "remove": [row, …]}, …]}`, with its questions.

        Raises:
            RequestError: the values are invalid, an image to remove is in a reference folder or was decided to stay, or
                the file was changed in the meantime or is not a plan of this index.
        """
        if self._index.info.image_dir is None:
            raise RequestError(409, "The images of this index are not files of this machine, so none can be removed.")
        version, choices = self._checked(values)
        with self._saving:
            if version != self._version():
                raise RequestError(409, f"{self._path} was changed by another program. Load it again.")
            plan = self._planned()
            if plan.problem:
                raise RequestError(409, f"{plan.problem} It is left as it is. Start simimg serve with another --plan.")
            self._check_references(choices, plan)
            try:
                keep_decisions_of(self._path, self._index.index_dir)
            except SimimgError as error:
                raise RequestError(409, str(error)) from None
            groups = list(self._groups(choices, plan, self._decisions()))
            image_dir = Path(self._index.info.image_dir)
            write_plan(self._path, image_dir, groups, plan.reference_dirs, self._index.index_dir, PLANNED)
            removed = [member for group in groups for member in group.others if member.may_go]
            return {
                "version": self._version(),
                "path": str(self._path),
                "num_removals": len(removed),
                "num_bytes": sum(member.image.num_bytes for member in removed),
            }

    def pair(self, row: int, other: int) -> Verification | None:
        """Return the verification that one image is a copy of another one; None if it is not, or one is missing."""
        same = self._index.images[row].sha256 == self._index.images[other].sha256
        if same and not any(map(self._images.is_edited, (row, other))):
            return Verification(1.0, (SAME_BYTES,), 0)
        found = self._images.verify(row, other)
        return None if found is None else self._images.compared(found, row, other)

    def _checked(self, values: Any) -> tuple[str, list[tuple[int, list[int]]]]:
        wrong = RequestError(422, "This is not a review: a version, and groups with a row to keep and rows to remove.")
        if not isinstance(values, dict) or not isinstance(values.get("version"), str):
            raise wrong
        if not isinstance(values.get("groups"), list):
            raise wrong
        choices, seen = [], set()
        for group in values["groups"]:
            if not isinstance(group, dict) or not isinstance(group.get("remove"), list):
                raise wrong
            rows = [group.get("keep"), *group["remove"]]
            for row in rows:
                if type(row) is not int or not 0 <= row < len(self._index.images):
                    raise wrong
                if row in seen:
                    raise RequestError(422, f"Image {row} occurs twice. An image can be kept or removed, once.")
                seen.add(row)
            choices.append((rows[0], rows[1:]))
        return values["version"], choices

    def _check_references(self, choices: Sequence[tuple[int, list[int]]], plan: _Planned) -> None:
        for image in (self._index.images[row] for _, remove in choices for row in remove):
            if plan.is_kept(image):
                raise RequestError(422, f"{image.path} is in a reference folder of the plan, so it is kept.")

    def _groups(
        self, choices: Sequence[tuple[int, list[int]]], plan: _Planned, decisions: Decisions
    ) -> Iterator[Group]:
        """Yield the groups to write, with known reasons, or new ones if another file is kept.

        Raises:
            RequestError: an image to remove was decided to stay since the browser loaded the review.
        """
        found: _Found | None = self.job.result
        known: dict[tuple[int, int], Member] = {}
        for group in (*plan.groups, *(found.duplicates.groups if found else ())):
            for member in group.members:
                known[member.row, group.keeper.row] = member
        shown = {member.row: members for members, _ in self._settled(plan, decisions) for member in members}
        for keep, remove in choices:
            keeper = known.get((keep, keep)) or Member(keep, self._index.images[keep], 1.0, _BY_HAND)
            removed = [known.get((row, keep)) or self._copy(row, keep) for row in remove]
            going = {one.row for one in settled_members([keeper, *removed], decisions)[0][1:] if not one.stays}
            if stays := next((member for member in removed if member.row not in going), None):
                raise RequestError(
                    409, f"{stays.image.path} was decided to stay since this page was loaded. Load the page again."
                )
            others = [one for one in shown.get(keep, ()) if one.row not in (keep, *remove) and not one.stays]
            others = [known.get((one.row, keep)) or self._copy(one.row, keep) for one in others if plan.asks_about(one)]
            questions = [
                dataclasses.replace(one, may_go=False, edits=one.edits | _UNKNOWN)
                for one in others
                if plan.asks_about(one)
            ]
            yield Group(keeper, (*(dataclasses.replace(one, may_go=True) for one in removed), *questions))

    def _settled(self, plan: _Planned, decisions: Decisions) -> list[tuple[Sequence[Member], set[frozenset[str]]]]:
        """Return `settled_members` of all groups, found and planned ones."""
        found: _Found | None = self.job.result
        joined = _joined(found.duplicates.groups if found else (), plan.groups)
        planned = {group.keeper.row for group in plan.groups}
        return [
            settled_members(
                members if any(one.row in planned for one in members) else self._kept_first(members, decisions),
                decisions,
            )
            for members in joined
        ]

    def _kept_first(self, members: Sequence[Member], decisions: Decisions) -> Sequence[Member]:
        """Return the members of a group; the first one is that which was decided to stay since it was found."""
        kept = [one for one in members if decisions.is_kept(one.image.sha256, one.image.path)]
        if not kept or members[0] in kept:
            return members
        keeper = dataclasses.replace(kept[0], similarity=1.0, reason="as decided", edits=frozenset())
        in_classes = any(LABEL in one.edits for one in members)
        others = []
        for member in members:
            if member is not kept[0]:
                other = self._copy(member.row, keeper.row)
                conflict = in_classes and member.image.label != keeper.image.label
                others.append(dataclasses.replace(other, edits=other.edits | ({LABEL} if conflict else set())))
        return [keeper, *others]

    def _copy(self, row: int, keeper: int) -> Member:
        """Return a row as a copy of another one, compared now."""
        found = self.pair(row, keeper)
        similarity, reason, edits = (0.5, _BY_HAND, _UNKNOWN) if found is None else (
            found.similarity, found.text, found.edits
        )  # fmt: skip
        return Member(row, self._index.images[row], similarity, reason, edits=edits)

    def _decisions(self) -> Decisions:
        try:
            return read_decisions(self._index.index_dir)
        except DataError as error:
            raise RequestError(409, str(error)) from None

    def _version(self) -> str:
        try:
            return hashlib.sha256(self._path.read_bytes()).hexdigest()
        except OSError:
            return ""

    def _planned(self) -> _Planned:
        version = self._version()
        if not version:
            return _Planned(version)
        try:
            plan = load_plan(self._path)
        except (DataError, UsageError) as error:
            return _Planned(version, problem=str(error))
        if self._index.info.image_dir is None or plan.image_dir != Path(self._index.info.image_dir):
            return _Planned(version, problem=f"{self._path} is about {plan.image_dir}, not about this collection.")
        rows = {path: row for row, path in enumerate(self._index.images.column("path").tolist())}
        groups, removals, questions, num_unknown = [], set[int](), set[int](), 0
        for planned in plan.groups:
            keeper = self._planned_member(planned.keep, rows)
            removed, asked = (
                [member for file in files if keeper and (member := self._planned_member(file, rows))]
                for files in (planned.remove, planned.questions)
            )
            num_unknown += len(planned.remove) - len(removed)
            removals.update(member.row for member in removed)
            questions.update(member.row for member in asked)
            if keeper is not None and (removed or asked):
                groups.append(Group(keeper, (*removed, *asked)))
        rows_of = frozenset(removals), frozenset(questions - removals)
        return _Planned(version, tuple(groups), *rows_of, num_unknown, reference_dirs=plan.reference_dirs)

    def _planned_member(self, file: PlannedFile, rows: dict[str, int]) -> Member | None:
        row = rows.get(file.path)
        if row is None or self._index.images[row].sha256 != file.sha256:
            return None
        return Member(row, self._index.images[row], file.similarity, file.reason)


def _joined(found: Sequence[Group], planned: Sequence[Group]) -> list[list[Member]]:
    """Return the members of all groups, the keeper first; those that share a row are joined, and no row is twice.

    The members of a planned group come before those of the found groups that it extends or joins, because their
    similarities are to its keeper. The keeper of such a found group gets the similarity of an image that both have.
    """
    joined = [list(group.members) for group in found]
    place_of = {member.row: place for place, members in enumerate(joined) for member in members}
    for group in planned:
        rows = {member.row for member in group.members}
        places = sorted({place_of[row] for row in rows if row in place_of})
        if len(places) == 1 and rows <= {member.row for member in joined[places[0]]}:
            continue
        merged: dict[int, Member] = {}
        for member in group.members:
            merged.setdefault(member.row, member)
        for place in places:
            keeper, *others = joined[place]
            shared = next(member for member in joined[place] if member.row in merged)
            reason = f"similar to {shared.image.path}"
            for member in (dataclasses.replace(keeper, similarity=shared.similarity, reason=reason), *others):
                merged.setdefault(member.row, member)
            joined[place] = []
        if not places:
            places = [len(joined)]
            joined.append([])
        joined[places[0]] = list(merged.values())
        place_of.update(dict.fromkeys(merged, places[0]))
    return [members for members in joined if members]


def _group_values(members: Sequence[Member], plan: _Planned) -> dict[str, Any]:
    rows = [member.row for member in members]
    keep, planned = rows[0], not plan.version
    remove = {member.row for member in members[1:] if is_planned(member, PLANNED)}
    reference = {member.row for member in members if plan.is_kept(member.image)}
    stays = {member.row for member in members if member.stays}
    if plan.version:
        keepers = [group.keeper.row for group in plan.groups if group.keeper.row in rows]
        remove, planned = set(plan.removals.intersection(rows)), bool(keepers)
        keep = next((row for row in reversed(keepers) if row not in remove), keep)
    return {
        "members": [
            {
                "row": member.row,
                "similarity": round(member.similarity, 4),
                "reason": member.reason,
                "reference": member.row in reference,
                "remembered": member.remembered,
                "stays": member.stays,
                "question": place > 0 and plan.asks_about(member),
                "is_decided": member.is_decided,
            }
            for place, member in enumerate(members)
        ],
        "keep": keep,
        "remove": sorted(remove - {keep} - reference - stays),
        "planned": planned,
    }
