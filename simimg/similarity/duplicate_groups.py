"""Groups of copies in a collection, each member held against the group's middle.

1. Pairs of copies: see `simimg.similarity.copy_pairs`.
2. Groups: what is connected is no group yet, since a chain of pairs joins pictures that have nothing in common. The
   member that most others are copies of is the middle; a group is the middle and what is a copy of *it*, which is
   examined too where the pair did not come up. What is left is grouped on its own.
3. The keeper: of a reference folder, if one is; not what something was visibly done to; then the most pixels, a format
   without loss, the most bytes.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.similarity.copy_pairs import SAME_BYTES, PairExaminer, explained, hash_pairs, representatives
from simimg.similarity.match_verification import DAMAGE, Verification
from simimg.similarity.search_index import IndexedImage, SearchIndex

__all__ = ["Duplicates", "Group", "Member", "find_duplicates"]

_WITNESSES = 4  # members that say what was done to another
_LOSSLESS = frozenset((".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".heic", ".dng"))


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A picture of a group.

    Attributes:
        row: in the index.
        picture: itself.
        similarity: to the keeper, 0.5..1; 1 of the keeper.
        reason: why it is a copy of the keeper, or why the keeper is kept.
    """

    row: int
    picture: IndexedImage
    similarity: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Copies of one photo: the one to keep, and the others, the most similar first."""

    keeper: Member
    others: tuple[Member, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """All, the keeper first."""
        return (self.keeper, *self.others)


@dataclasses.dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups in the order of their keepers' rows, the number of pairs that were examined, and of files nobody could."""

    groups: tuple[Group, ...]
    num_pairs_examined: int
    num_missing: int


def find_duplicates(
    index: SearchIndex,
    *,
    threshold: float,
    reference: Callable[[IndexedImage], bool] = lambda picture: False,
    progress: Callable[[int], object] = lambda num_pictures: None,
) -> Duplicates:
    """Returns the groups of copies in an index's pictures.

    Args:
        index: opened.
        threshold: the least similarity of copies, 0.5..1.
        reference: tells the pictures that are kept whatever else there is.
        progress: called with the number of pictures since the last call.
    """
    rows = np.arange(len(index.pictures))
    same = representatives(index.pictures.column("sha256"))
    singles = rows[same == rows]
    progress(len(rows) - len(singles))
    examiner = PairExaminer(index, threshold)
    try:
        examiner.examine_pairs(hash_pairs(index, singles))
        examiner.examine_neighbors(singles, same == rows, progress)
        clusters = list(_clusters(examiner, singles))
        alike = defaultdict(list)
        for row in rows[same != rows]:
            alike[int(same[row])].append(int(row))
        grouped = {row for cluster in clusters for row in cluster}
        clusters += [[row] for row in alike if row not in grouped]
        with one_blas_thread():
            groups = list(
                examiner.executor.map(lambda cluster: _group(index, examiner, cluster, alike, reference), clusters)
            )
    finally:
        examiner.close()
    groups.sort(key=lambda group: min(member.row for member in group.members))
    return Duplicates(tuple(groups), examiner.num_examined, len(examiner.originals.missing))


def _clusters(examiner: PairExaminer, rows: np.ndarray) -> Iterator[list[int]]:
    """Yields groups of two and more rows, each of copies of its first, the middle."""
    left = {int(row) for row in rows if examiner.neighbors[int(row)]}
    while left:
        component = _connected(min(left), left, examiner)
        while len(component) > 1:
            medoid = max(
                sorted(component), key=lambda row: sum(one.similarity for one in _edges(examiner, row, component))
            )
            examiner.examine_pairs((medoid, other) for other in component if other != medoid)
            members = [other for other in sorted(component) if other != medoid and examiner.copy(medoid, other)]
            if not members:
                break
            yield [medoid, *members]
            rest = component - {medoid, *members}
            left -= {medoid, *members}
            component = _connected(min(rest), rest, examiner) if rest else set()
        left -= component


def _edges(examiner: PairExaminer, row: int, among: set[int]) -> list[Verification]:
    return [seen for other in examiner.neighbors[row] & among if (seen := examiner.copy(row, other))]


def _connected(start: int, among: set[int], examiner: PairExaminer) -> set[int]:
    found, border = {start}, [start]
    while border:
        for other in examiner.neighbors[border.pop()] & among:
            if other not in found:
                found.add(other)
                border.append(other)
    return found


def _group(
    index: SearchIndex,
    examiner: PairExaminer,
    cluster: Sequence[int],
    alike: dict[int, list[int]],
    reference: Callable[[IndexedImage], bool],
) -> Group:
    rows = [row for single in cluster for row in (single, *alike.get(single, ()))]
    single_of = {row: single for single in cluster for row in (single, *alike.get(single, ()))}
    damaged = {row: _damage(examiner, single_of[row], cluster) for row in rows}
    pictures = {row: index.pictures[row] for row in rows}

    def worth(row: int) -> tuple[bool, int, int, bool, int, int]:
        picture = pictures[row]
        return (
            reference(picture),
            -damaged[row],
            picture.width * picture.height,
            PurePosixPath(picture.path).suffix.lower() in _LOSSLESS,
            picture.num_bytes,
            -row,
        )

    ranked = sorted(rows, key=worth, reverse=True)
    keeper = ranked[0]
    why = _why(worth(keeper), worth(ranked[1]), pictures[keeper])
    others = []
    for row in ranked[1:]:
        if single_of[row] == single_of[keeper]:
            others.append(Member(row, pictures[row], 1.0, SAME_BYTES))
            continue
        seen = examiner.explain(single_of[row], single_of[keeper])
        of_middle = ""
        if seen is None and (seen := examiner.explain(single_of[row], cluster[0])) is not None:
            of_middle = f"of {index.pictures[cluster[0]].path}: "  # of the middle, if not of the keeper
        others.append(Member(row, pictures[row], seen.similarity if seen else 0.5, of_middle + explained(seen)))
    others.sort(key=lambda member: (-member.similarity, member.row))
    return Group(Member(keeper, pictures[keeper], 1.0, why), tuple(others))


def _damage(examiner: PairExaminer, row: int, cluster: Sequence[int]) -> int:
    """How many things were visibly done to it, as most of its group see it: crops, text, blur; not its size."""
    counts = []
    for other in cluster[: _WITNESSES + 1]:
        if other != row and examiner.copy(row, other) and (seen := examiner.explain(row, other)) is not None:
            counts.append(sum(any(word in reason for word in DAMAGE) for reason in seen.reasons))
    return int(np.median(counts)) if counts else 0


def _why(
    best: tuple[bool, int, int, bool, int, int], next_best: tuple[bool, int, int, bool, int, int], kept: IndexedImage
) -> str:
    reasons = (
        "in a reference folder",
        "nothing was done to it",
        f"the most pixels, {kept.width} x {kept.height}",
        "as many pixels, without loss",
        f"as many pixels, more bytes: {kept.num_bytes:,}",
    )
    for reason, ours, theirs in zip(reasons, best, next_best, strict=False):
        if ours != theirs:
            return reason
    return "the first of equals"
