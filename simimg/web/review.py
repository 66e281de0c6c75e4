"""Reviewing copies: groups that were found, or that a plan has, what is to be removed of each, and the plan's file.

The file is that of `simimg duplicates --plan` and `simimg apply`. It is written where the server was told to, never
where a browser says, and only over what the browser has seen: `version` is the checksum of the file that it knows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.errors import DataError
from simimg.similarity import (
    Duplicates,
    Group,
    Member,
    SearchIndex,
    Verification,
    find_duplicates,
    load_plan,
    write_plan,
)
from simimg.similarity.fingerprint import fingerprint, jpeg_quality
from simimg.similarity.match_verification import verify
from simimg.web.background_job import BackgroundJob
from simimg.web.request_errors import RequestError
from simimg.web.thumbnails import Thumbnails
from tfrecords.convert.image.decoder import decode
from tfrecords.format.atomic_files import read_json
from tfrecords.format.quarantine import Refusal

__all__ = ["Review"]

_BY_HAND = "chosen by hand"
_SAME_BYTES = "the same bytes"


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A plan's file: its checksum, empty without a file; its groups; how many of its files the index lacks."""

    version: str
    groups: tuple[Group, ...]
    num_unknown: int


class Review:
    """The groups of an index and one plan. Safe to use from many threads."""

    def __init__(self, index: SearchIndex, shown: Thumbnails, plan_path: Path) -> None:
        self.job = BackgroundJob("duplicates")
        self.threshold = index.info.thresholds.get("copy", 0.9)  # as `simimg duplicates`
        self._index = index
        self._shown = shown
        self._path = plan_path
        self._lock = threading.Lock()

    def start(self, threshold: float) -> None:
        """Looks for copies of a least similarity of `threshold`, 0.5..1, in a thread."""
        self.threshold = threshold

        def work(progress: Callable[[int], object]) -> Duplicates:
            return find_duplicates(self._index, threshold=threshold, progress=progress)

        self.job.start(work, len(self._index.pictures))

    def described(self) -> dict[str, Any]:
        """Returns what there is to review, as JSON has it.

        Groups have their members, the keeper first, and the rows that are to be removed. Without a plan that is what
        `simimg duplicates` would write; with one it is what the plan says, and nothing where it says nothing.
        """
        found: Duplicates | None = self.job.result
        problem = ""
        try:
            plan = self._planned()
        except DataError as error:
            plan, problem = _Planned(self._version(), (), 0), str(error)
        groups = [_group_values(group, plan) for group in found.groups] if found else []
        there = {member["row"] for group in groups for member in group["members"]}
        for group in plan.groups:
            if not there & {member.row for member in group.members}:
                groups.append(_group_values(group, plan))
        return {
            "job": self.job.described(),
            "threshold": self.threshold,
            "searched": found is not None,
            "num_missing": found.num_missing if found else 0,
            "groups": groups,
            "plan": {
                "path": str(self._path),
                "version": plan.version,
                "num_unknown": plan.num_unknown,
                "problem": problem,
                "possible": self._index.info.image_dir is not None,
            },
        }

    def save(self, values: Any) -> dict[str, Any]:
        """Writes the plan: `{"version": text, "groups": [{"keep": row, "remove": [row, …]}, …]}`.

        Raises:
            Refused: the values are none, or the file was changed by somebody else.
        """
        if self._index.info.image_dir is None:
            raise RequestError(409, "This index is of pictures that are no files here: there is nothing to plan.")
        version, choices = self._checked(values)
        with self._lock:
            if version != self._version():
                raise RequestError(409, f"{self._path} was changed by somebody else. Load it again.")
            groups = self._groups(choices)
            write_plan(self._path, Path(self._index.info.image_dir), groups, lambda path: False)
            return {
                "version": self._version(),
                "path": str(self._path),
                "num_removals": sum(len(group.others) for group in groups),
                "num_bytes": sum(member.picture.num_bytes for group in groups for member in group.others),
            }

    def pair(self, row: int, other: int) -> Verification | None:
        """Returns how the picture of `row` is a copy of that of `other`; raises Refused as `Shown.read`."""
        pictures = [self._index.pictures[one] for one in (row, other)]
        if pictures[0].sha256 == pictures[1].sha256:
            return Verification(1.0, (_SAME_BYTES,), 0)
        try:
            data = [self._shown.read(one) for one in (row, other)]
            query, candidate = (fingerprint(decode(one), quality=jpeg_quality(one)) for one in data)
        except Refusal:
            return None
        return verify(query, candidate)

    def _checked(self, values: Any) -> tuple[str, list[tuple[int, list[int]]]]:
        wrong = RequestError(422, "This is no review: a version, and groups with a row to keep and rows to remove.")
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
                if type(row) is not int or not 0 <= row < len(self._index.pictures):
                    raise wrong
                if row in seen:
                    raise RequestError(422, f"Picture {row} is there twice: nothing can be kept and removed.")
                seen.add(row)
            if len(rows) > 1:
                choices.append((rows[0], rows[1:]))
        return values["version"], choices

    def _groups(self, choices: Sequence[tuple[int, list[int]]]) -> list[Group]:
        """The groups to write, with the reasons that are known, and new ones where another file is kept."""
        found: Duplicates | None = self.job.result
        try:
            planned = self._planned().groups
        except DataError:
            planned = ()
        known: dict[tuple[int, int], Member] = {}
        for group in (*planned, *(found.groups if found else ())):
            for member in group.members:
                known[member.row, group.keeper.row] = member
        groups = []
        for keep, remove in choices:
            keeper = known.get((keep, keep)) or Member(keep, self._index.pictures[keep], 1.0, _BY_HAND)
            groups.append(Group(keeper, tuple(known.get((row, keep)) or self._member(row, keep) for row in remove)))
        return groups

    def _member(self, row: int, keeper: int) -> Member:
        try:
            seen = self.pair(row, keeper)
        except RequestError:
            seen = None
        if seen is None:
            return Member(row, self._index.pictures[row], 0.5, _BY_HAND)
        return Member(row, self._index.pictures[row], seen.similarity, ", ".join(seen.reasons) or "looks the same")

    def _version(self) -> str:
        try:
            return hashlib.sha256(self._path.read_bytes()).hexdigest()
        except OSError:
            return ""

    def _planned(self) -> _Planned:
        """The plan's file; raises DataError if it is none of this index."""
        version = self._version()
        if not version:
            return _Planned("", (), 0)
        plan = load_plan(self._path)
        if self._index.info.image_dir is None or plan.image_dir != Path(self._index.info.image_dir):
            raise DataError(f"{self._path} is about {plan.image_dir}, not about this collection.")
        rows = {path: row for row, path in enumerate(self._index.pictures.column("path").tolist())}
        groups, num_unknown = [], 0
        for values in read_json(self._path, "the plan")["groups"]:
            keeper, *others = (self._planned_member(one, rows) for one in (values["keep"], *values["remove"]))
            there = [member for member in others if member is not None]
            num_unknown += len(others) - len(there) if keeper is not None else len(others)
            if keeper is not None and there:
                groups.append(Group(keeper, tuple(there)))
        return _Planned(version, tuple(groups), num_unknown)

    def _planned_member(self, values: dict[str, Any], rows: dict[str, int]) -> Member | None:
        row = rows.get(values["path"])
        if row is None or self._index.pictures[row].sha256 != values["sha256"]:
            return None
        try:
            similarity = float(values.get("similarity", 1.0))
        except (TypeError, ValueError):  # somebody has edited it
            similarity = 0.5
        return Member(row, self._index.pictures[row], similarity, str(values.get("reason", values.get("why", ""))))


def _group_values(group: Group, plan: _Planned) -> dict[str, Any]:
    rows = {member.row for member in group.members}
    keep, remove, planned = group.keeper.row, [member.row for member in group.others], not plan.version
    if plan.version:
        remove = []
        for one in plan.groups:
            if one.keeper.row in rows:
                keep, planned = one.keeper.row, True
            remove += [member.row for member in one.others if member.row in rows]
    return {
        "members": [
            {"row": member.row, "similarity": round(member.similarity, 4), "reason": member.reason}
            for member in group.members
        ],
        "keep": keep,
        "remove": sorted(set(remove) - {keep}),
        "planned": planned,
    }
