"""Groups of copies in a collection, cheap stages first, each member held against the group's middle.

1. Files of the same bytes: one of them stands for all in what follows.
2. Pairs that may be copies: near perceptual hashes, and for each picture those with the nearest embeddings, eight at a
   time until eight in a row are none.
3. Each pair is examined (`simimg.search.verify`); similarity is that of the verification.
4. Groups: what is connected is no group yet, since a chain of pairs joins pictures that have nothing in common. The
   member that most others are copies of is the middle; a group is the middle and what is a copy of *it*, which is
   examined too where the pair did not come up. What is left is grouped on its own.
5. The keeper: of a reference folder, if one is; not what something was visibly done to; then the most pixels, a format
   without loss, the most bytes.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np

from simimg.search.examine import Examined, examine_file
from simimg.search.index import Picture, SearchIndex
from simimg.search.threads import threads_of_one
from simimg.search.verify import DAMAGE, Verification, verify
from tfrecords.convert.copies import MAX_DISTANCE, NO_HASH, near_pairs
from tfrecords.convert.pool import num_cores
from tfrecords.convert.quarantine import Refusal

__all__ = ["Duplicates", "Group", "Member", "find_duplicates"]

_NEIGHBOURS = 24  # the nearest by their embeddings that are examined at most
_AT_A_TIME = 8
_QUERIES_A_BLOCK = 256
_WITNESSES = 4  # members that say what was done to another
_LOSSLESS = frozenset((".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".heic", ".dng"))
_SAME_BYTES = "the same bytes"


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
    picture: Picture
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
    reference: Callable[[Picture], bool] = lambda picture: False,
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
    same = _representatives(index.pictures.column("sha256"))
    singles = rows[same == rows]
    progress(len(rows) - len(singles))
    examiner = _Examiner(index, threshold)
    try:
        examiner.examine_pairs(_hash_pairs(index, singles))
        examiner.examine_neighbours(singles, progress)
        clusters = list(_clusters(examiner, singles))
        alike = defaultdict(list)
        for row in rows[same != rows]:
            alike[int(same[row])].append(int(row))
        grouped = {row for cluster in clusters for row in cluster}
        clusters += [[row] for row in alike if row not in grouped]
        with threads_of_one():
            groups = list(
                examiner.executor.map(lambda cluster: _group(index, examiner, cluster, alike, reference), clusters)
            )
    finally:
        examiner.close()
    groups.sort(key=lambda group: min(member.row for member in group.members))
    return Duplicates(tuple(groups), examiner.num_examined, len(examiner.missing))


class _Examiner:
    """Verifications of pairs of rows, each made once; the smaller row is the query."""

    def __init__(self, index: SearchIndex, threshold: float) -> None:
        self.index = index
        self.missing: set[int] = set()
        self.num_examined = 0
        self.copies: dict[tuple[int, int], Verification] = {}
        self.neighbours: dict[int, set[int]] = defaultdict(set)
        self._threshold = threshold
        self._paths = [index.path_of(picture) for picture in index.pictures]
        self._done: set[tuple[int, int]] = set()
        self._explained: dict[tuple[int, int], Verification | None] = {}
        self.executor = ThreadPoolExecutor(num_cores())

    def examine_pairs(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Examines pairs that were not."""
        todo = sorted({(min(pair), max(pair)) for pair in pairs} - self._done)
        with threads_of_one():
            verified = list(self.executor.map(self._verify, todo))
        for pair, seen in zip(todo, verified, strict=True):
            self._done.add(pair)
            self.num_examined += 1
            if seen is not None and seen.similarity >= self._threshold:
                self.copies[pair] = seen
                self.neighbours[pair[0]].add(pair[1])
                self.neighbours[pair[1]].add(pair[0])

    def examine_neighbours(self, rows: np.ndarray, progress: Callable[[int], object]) -> None:
        """Examines each row with its nearest, eight at a time, as long as copies are among the eight."""
        vectors = self.index.vectors["copy"]
        there = np.zeros(len(vectors), bool)
        there[rows] = True
        for start in range(0, len(rows), _QUERIES_A_BLOCK):
            block = rows[start : start + _QUERIES_A_BLOCK]
            _, found = self.index.nearest_vectors(np.asarray(vectors[block])[:, None], 2 * _NEIGHBOURS)
            nearest = {
                int(row): [int(one) for one in near if one != row and there[one]][:_NEIGHBOURS]
                for row, near in zip(block, found, strict=True)
            }
            going = list(nearest)
            for first in range(0, _NEIGHBOURS, _AT_A_TIME):
                some = {row: nearest[row][first : first + _AT_A_TIME] for row in going}
                self.examine_pairs((row, near) for row in going for near in some[row])
                going = [row for row in going if any(self.copy(row, near) for near in some[row])]
            progress(len(block))

    def copy(self, one: int, other: int) -> Verification | None:
        """Returns the verification of a pair that was examined."""
        return self.copies.get((min(one, other), max(one, other)))

    def explain(self, row: int, other: int) -> Verification | None:
        """Returns the verification with `row` as the query, whichever came first."""
        if (row, other) in self.copies:
            return self.copies[row, other]
        if (row, other) not in self._explained:
            self._explained[row, other] = self._verify((row, other))
        return self._explained[row, other]

    def close(self) -> None:
        """Ends the threads."""
        self.executor.shutdown(cancel_futures=True)

    def _verify(self, pair: tuple[int, int]) -> Verification | None:
        query, candidate = (self._examined(row) for row in pair)
        return None if query is None or candidate is None else verify(query, candidate)

    def _examined(self, row: int) -> Examined | None:
        try:
            return examine_file(self._paths[row])
        except (OSError, Refusal):
            self.missing.add(row)
            return None


def _representatives(sha256: np.ndarray) -> np.ndarray:
    """The first row of the same bytes, for each row: int64 `[num_images]`."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(digest, row) for row, digest in enumerate(sha256.tolist())])


def _hash_pairs(index: SearchIndex, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    hashes = index.pictures.column("phash")[rows].astype(np.uint64)
    hashed = rows[hashes != NO_HASH]
    unique, first, inverse = np.unique(hashes[hashes != NO_HASH], return_index=True, return_inverse=True)
    for row, one in zip(hashed.tolist(), hashed[first][inverse].tolist(), strict=True):
        if row != one:
            yield one, row
    for ones, others in near_pairs(unique, MAX_DISTANCE):
        yield from zip(hashed[first[ones]].tolist(), hashed[first[others]].tolist(), strict=True)


def _clusters(examiner: _Examiner, rows: np.ndarray) -> Iterator[list[int]]:
    """Yields groups of two and more rows, each of copies of its first, the middle."""
    left = {int(row) for row in rows if examiner.neighbours[int(row)]}
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


def _edges(examiner: _Examiner, row: int, among: set[int]) -> list[Verification]:
    return [seen for other in examiner.neighbours[row] & among if (seen := examiner.copy(row, other))]


def _connected(start: int, among: set[int], examiner: _Examiner) -> set[int]:
    found, border = {start}, [start]
    while border:
        for other in examiner.neighbours[border.pop()] & among:
            if other not in found:
                found.add(other)
                border.append(other)
    return found


def _group(
    index: SearchIndex,
    examiner: _Examiner,
    cluster: Sequence[int],
    alike: dict[int, list[int]],
    reference: Callable[[Picture], bool],
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
            others.append(Member(row, pictures[row], 1.0, _SAME_BYTES))
            continue
        seen = examiner.explain(single_of[row], single_of[keeper])
        of_middle = ""
        if seen is None and (seen := examiner.explain(single_of[row], cluster[0])) is not None:
            of_middle = f"of {index.pictures[cluster[0]].path}: "  # of the middle, if not of the keeper
        reasons = ", ".join(seen.reasons) if seen and seen.reasons else "looks the same"
        others.append(Member(row, pictures[row], seen.similarity if seen else 0.5, of_middle + reasons))
    others.sort(key=lambda member: (-member.similarity, member.row))
    return Group(Member(keeper, pictures[keeper], 1.0, why), tuple(others))


def _damage(examiner: _Examiner, row: int, cluster: Sequence[int]) -> int:
    """How many things were visibly done to it, as most of its group see it: crops, text, blur; not its size."""
    counts = []
    for other in cluster[: _WITNESSES + 1]:
        if other != row and examiner.copy(row, other) and (seen := examiner.explain(row, other)) is not None:
            counts.append(sum(any(word in reason for word in DAMAGE) for reason in seen.reasons))
    return int(np.median(counts)) if counts else 0


def _why(
    best: tuple[bool, int, int, bool, int, int], next_best: tuple[bool, int, int, bool, int, int], kept: Picture
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
