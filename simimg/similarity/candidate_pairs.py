"""Candidates for pairs of copies: the same bytes, similar perceptual hashes, and unusually near embeddings.

Of images that are the same but for their position (turned by quarters, mirrored), size and compression, one represents
all where neighbors are searched for, so that each picture is examined once. But a mirrored image may be far from a crop
of the original by its embedding, so a picture is also found by one image in each other position.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from simimg.errors import UsageError
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, near_pairs

NEIGHBORS = 24
"""Nearest embeddings that are verified, at most."""

Block = tuple[dict[int, list[int]], Callable[[tuple[int, int]], bool]]
"""The rows with which each row is compared, nearest first, and whether two rows are close."""

Position = tuple[int, ...]
"""The linear part of the map from an image's unit square to another one's, by rows: (1, 0, 0, 1) is upright."""

# A neighbor is examined if its cosine is this many times that of an image's farther neighbors, and by fine keypoints
# from that cosine on, which 3 % of images reach with another photo.
_NEARER, _CLOSE = 1.3, 0.3
_FEW_IMAGES = 500  # their neighbors are examined in any case: that takes little time
_UPRIGHT: Position = (1, 0, 0, 1)
_SAME_POSITION = 0.96  # similarity of images that are the same but for their position, size and compression
_POSITION_TOLERANCE = 0.01  # of that map


def identical_rows(images: IndexImages, kinds: np.ndarray | None = None) -> dict[int, list[int]]:
    """Return all rows with the same bytes (and the same kind) by the first of them, which represents them.

    Without kinds, a file that has several names (links, hard links) is there once: it is not a copy of itself. A file
    that was edited since it was indexed is the same as no other.
    """
    index = images.index
    rows_of: dict[tuple[str, int], list[int]] = defaultdict(list)
    kind_of = [0] * len(index.images) if kinds is None else kinds.tolist()
    for row, key in enumerate(zip(index.images.column("sha256").tolist(), kind_of, strict=True)):
        rows_of[key].append(row)
    if kinds is not None:
        return {rows[0]: rows for rows in rows_of.values()}
    return {rows[0]: rows for same in rows_of.values() for rows in _unedited_together(images, same)}


def _unedited_together(images: IndexImages, same: list[int]) -> Iterator[list[int]]:
    """Yield the rows that still have the same bytes, each file by its first name, and other rows by themselves."""
    if len(same) == 1:
        yield same
        return
    of_files = images.index.info.dataset_dir is None  # what a dataset stores stays as it was
    distinct: dict[object, int] = {}
    for row in same:
        if of_files and images.is_edited(row):
            yield [row]
        else:
            distinct.setdefault(images.index.file_identity(row) or row, row)
    if distinct:
        yield list(distinct.values())


def represented_rows(copies: Iterable[tuple[int, int, Verification]]) -> dict[int, tuple[int, Position]]:
    """Return the rows that another one represents, with that row and their position to it, in the order of `copies`.

    `copies` are a row, another one of which it is a copy that differs in nothing at full size, and the verification.
    What comes first decides.
    """
    found: dict[int, tuple[int, Position]] = {}
    for row, other, copy in copies:
        position = _position(copy)
        if position is not None and row not in found and other not in found:
            found[row] = other, position
    return found


def further_positions(represented: Mapping[int, tuple[int, Position]]) -> dict[int, int]:
    """Return one row for each position in which no other row shows the row that represents it, with the latter."""
    shown = {(representative, _UPRIGHT) for representative, _ in represented.values()}
    found = {}
    for row, place in represented.items():
        if place not in shown:
            shown.add(place)
            found[row] = place[0]
    return found


def _position(copy: Verification) -> Position | None:
    """Return in which of the eight positions one whole image lies in another one, None if in none."""
    linear = np.array([copy.place[number] for number in (0, 1, 3, 4)])
    nearest = np.rint(linear)
    is_whole = np.abs(linear - nearest).max() < _POSITION_TOLERANCE and np.abs(nearest).sum() == 2
    return tuple(nearest.astype(int).tolist()) if is_whole and copy.similarity >= _SAME_POSITION else None


def hash_pairs(index: SearchIndex, rows: np.ndarray, kinds: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows (of two kinds) with similar perceptual hashes; the first row of a hash represents all.

    `rows` are int64 `[n]`, in the order that says which one is the first.
    """
    hashes = index.images.hashes()[:, rows]
    hashed, hashes = np.tile(rows, (len(hashes), 1))[hashes != NO_HASH], hashes[hashes != NO_HASH]
    unique, inverse = np.unique(hashes, return_inverse=True)
    firsts: list[dict[int, int]] = [{} for _ in unique]
    kind_of = [0] * len(hashed) if kinds is None else kinds[hashed].tolist()
    listed = list(zip(hashed.tolist(), inverse.tolist(), kind_of, strict=True))
    for row, place, kind in listed:
        firsts[place].setdefault(kind, row)
    for row, place, kind in listed:
        for other_kind, first in firsts[place].items():
            if first != row and (kinds is None or kind != other_kind):
                yield first, row
    for ones, others in near_pairs(unique, MAX_DISTANCE):
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            for kind, row in firsts[one].items():
                for other_kind, near in firsts[other].items():
                    if row != near and (kinds is None or kind != other_kind):
                        yield row, near


def spanning_pairs(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return as few of the pairs as connect all rows that they connect, the first ones."""
    joined = DisjointSets()
    return [pair for pair in pairs if joined.join(*pair)]


class NearestRows:
    """The nearest embeddings of rows. Of equal cosines, the first image comes first.

    Attributes:
        represented_by: int64 `[n]`; of each row itself, or the row that it is another position of.
    """

    def __init__(self, index: SearchIndex, ranks: np.ndarray) -> None:
        """Take an index, and of each row its place in the order of the images, int64 `[n]`."""
        self._index, self._ranks = index, ranks
        self.represented_by = np.arange(len(ranks))

    def rows(self, block: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines and rows of the nearest ones of each row of a block, itself among them: `[m, NEIGHBORS + 1]`.

        `block` is int64 `[m]`, and `among`, bool `[n]`, says which rows are searched.
        """
        vectors = np.asarray(self._index.vectors["copy"][block])[:, None]
        cosines, found = self._index.nearest_vectors(vectors, NEIGHBORS + 1, among=among)
        found = self.represented_by[found]
        by_rank = np.lexsort((self._ranks[found], -cosines))
        return np.take_along_axis(cosines, by_rank, axis=1), np.take_along_axis(found, by_rank, axis=1)

    def examined(self, block: np.ndarray, among: np.ndarray) -> Block:
        """Return for each row of a block those of its nearest ones that are examined, and which pairs are close."""
        cosines, found = self.rows(block, among)
        few = len(self._ranks) <= _FEW_IMAGES
        least = -1.0 if few else _NEARER * np.minimum(_background(cosines), 1.5 * np.median(_background(cosines)))
        near = cosines >= least
        cosine_of = {
            (min(row, other), max(row, other)): cosine
            for row, others, values in zip(block.tolist(), found.tolist(), cosines.tolist(), strict=True)
            for other, cosine in zip(reversed(others), reversed(values), strict=True)  # of several, the nearest counts
        }
        nearest = {
            row: list(dict.fromkeys(other for other, flag in zip(others, flags, strict=True) if flag and other != row))
            for row, others, flags in zip(block.tolist(), found.tolist(), near.tolist(), strict=True)
        }
        return nearest, lambda pair: few or cosine_of.get(pair, _CLOSE) >= _CLOSE


def _background(cosines: np.ndarray) -> np.ndarray:
    """Return the median cosine of the farther half of each row's neighbors: `[n, k]`, best first, to `[n, 1]`."""
    return np.median(cosines[:, cosines.shape[1] // 2 :], axis=1, keepdims=True)


class DisjointSets:
    """Sets of numbers that are joined pair by pair."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, number: int) -> int:
        """Return the number that stands for the set of this one."""
        while (parent := self._parent.get(number, number)) != number:
            self._parent[number] = self._parent.get(parent, parent)
            number = parent
        return number

    def are_joined(self, one: int, other: int) -> bool:
        """Whether both are in one set."""
        return self.find(one) == self.find(other)

    def join(self, one: int, other: int) -> bool:
        """Join the sets of both; return whether they were two."""
        one, other = self.find(one), self.find(other)
        self._parent[one] = other
        return one != other


def check_threshold(threshold: float) -> None:
    """Raise UsageError for a similarity that no copy can have; 0 stands for the index's own, see `copy_threshold`."""
    if threshold and not 0.5 <= threshold <= 1:
        raise UsageError(f"--threshold={threshold}: should be between 0.5 and 1.")
