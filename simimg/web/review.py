"""Reviews copies: groups that were found or planned, the choice of what to remove, and the plan's file.

The file is that of `simimg duplicates --plan` and `simimg apply`. Its path is set when the server starts, never by the
browser. It is only replaced if the browser knows its current content: `version` is the checksum of the file. A file
that is not a plan of this index is never replaced. The plan's reference folders stay in it, and their files are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.errors import DataError, SimimgError, UsageError
from simimg.similarity.decided_groups import returned_images, settled_members
from simimg.similarity.decisions import Decisions, read_decisions
from simimg.similarity.duplicate_groups import Duplicates, Group, Member, find_duplicates
from simimg.similarity.edits import COUNTED, PLANNED
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import SAME_BYTES, Verification
from simimg.similarity.plan_file import PlannedFile, is_planned, is_reference, load_plan, write_plan
from simimg.similarity.plan_memory import keep_decisions_of
from simimg.similarity.search_index import SearchIndex
from simimg.web.background_job import BackgroundJob
from simimg.web.request_guard import RequestError

_BY_HAND = "chosen by hand"


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A plan, as far as it can be read.

    Attributes:
        version: checksum of its file; empty without a file.
        groups: those whose keeper and copies are in the index.
        num_unknown: number of files to remove that are not in the index.
        problem: why it is not a plan of this index, or empty.
        reference_dirs: folders whose files are kept.
    """

    version: str
    groups: tuple[Group, ...] = ()
    num_unknown: int = 0
    problem: str = ""
    reference_dirs: tuple[str, ...] = ()

    def is_kept(self, picture: IndexedImage) -> bool:
        """Whether the image is in a reference folder."""
        return is_reference(picture.path, self.reference_dirs)


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
        self._starting, self._saving = threading.Lock(), threading.Lock()

    def start(self, threshold: float) -> None:
        """Search for copies with a similarity of at least `threshold`, 0.5..1, in a thread.

        Raises:
            RequestError: a search with another threshold is running.
        """

        def search(progress: Callable[[int], object]) -> _Found:
            is_kept = self._planned().is_kept
            found = find_duplicates(
                self._index, threshold=threshold, edits=self._edits, reference=is_kept, progress=progress
            )
            return _Found(threshold, found)

        with self._starting:
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
        so.
        """
        job = self.job.described()  # first, because its result is there before it is done
        found: _Found | None = self.job.result
        plan = self._planned()
        decisions = Decisions() if job["state"] == "running" else self._decisions()
        joined = _joined(found.duplicates.groups if found else (), plan.groups)
        settled = [settled_members(members, decisions) for members in joined]
        settling = {key for _, keys in settled for key in keys} | (found.duplicates.settling if found else set())
        return {
            "job": job,
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
        """Write the plan: `{"version": text, "groups": [{"keep": row, "remove": [row, …]}, …]}`.

        Raises:
            RequestError: the values are invalid, an image to remove is in a reference folder, or the file was changed
                in the meantime or is not a plan of this index.
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
            groups = self._groups(choices, plan)
            try:
                keep_decisions_of(self._path, self._index.index_dir)
            except SimimgError as error:
                raise RequestError(409, str(error)) from None
            image_dir = Path(self._index.info.image_dir)
            write_plan(self._path, image_dir, groups, plan.reference_dirs, self._index.index_dir)
            return {
                "version": self._version(),
                "path": str(self._path),
                "num_removals": sum(len(group.others) for group in groups),
                "num_bytes": sum(member.image.num_bytes for group in groups for member in group.others),
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
            if len(rows) > 1:
                choices.append((rows[0], rows[1:]))
        return values["version"], choices

    def _groups(self, choices: Sequence[tuple[int, list[int]]], plan: _Planned) -> list[Group]:
        """Return the groups to write, with known reasons, or new ones if another file is kept."""
        found: _Found | None = self.job.result
        known: dict[tuple[int, int], Member] = {}
        for group in (*plan.groups, *(found.duplicates.groups if found else ())):
            for member in group.members:
                known[member.row, group.keeper.row] = member
        groups = []
        for keep, remove in choices:
            for picture in (self._index.images[row] for row in remove):
                if plan.is_kept(picture):
                    raise RequestError(422, f"{picture.path} is in a reference folder of the plan, so it is kept.")
            keeper = known.get((keep, keep)) or Member(keep, self._index.images[keep], 1.0, _BY_HAND)
            groups.append(Group(keeper, tuple(known.get((row, keep)) or self._member(row, keep) for row in remove)))
        return groups

    def _member(self, row: int, keeper: int) -> Member:
        found = self.pair(row, keeper)
        similarity, reason = (found.similarity, found.text) if found else (0.5, _BY_HAND)
        return Member(row, self._index.images[row], similarity, reason)

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
        groups, num_unknown = [], 0
        for planned in plan.groups:
            keeper, *others = (self._planned_member(file, rows) for file in (planned.keep, *planned.remove))
            known = [member for member in others if member is not None and keeper is not None]
            num_unknown += len(others) - len(known)
            if keeper is not None and known:
                groups.append(Group(keeper, tuple(known)))
        return _Planned(version, tuple(groups), num_unknown, reference_dirs=plan.reference_dirs)

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
    remove = [member.row for member in members[1:] if is_planned(member, PLANNED)]
    reference = {member.row for member in members if plan.is_kept(member.image)}
    stays = {member.row for member in members if member.stays}
    if stays and keep not in stays:  # what was decided since the search
        keep = next(row for row in rows if row in stays)
        remove = [row for row in (*remove, rows[0]) if row != keep]
    if plan.version:
        there = set(rows)
        groups = [group for group in plan.groups if group.keeper.row in there]
        remove, planned = [member.row for group in groups for member in group.others], bool(groups)
        for group in groups:
            if group.keeper.row not in remove:
                keep = group.keeper.row
    return {
        "members": [
            {
                "row": member.row,
                "similarity": round(member.similarity, 4),
                "reason": member.reason,
                "reference": member.row in reference,
                "remembered": member.remembered,
                "stays": member.stays,
                "question": place > 0 and not member.stays and not is_planned(member, PLANNED),
                "is_decided": member.is_decided,
            }
            for place, member in enumerate(members)
        ],
        "keep": keep,
        "remove": sorted(set(remove) - {keep} - reference - stays),
        "planned": planned,
    }
