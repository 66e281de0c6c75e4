"""Candidates for pairs of copies: the same bytes, similar perceptual hashes, and unusually near embeddings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from simimg.errors import UsageError
from simimg.similarity.index_images import IndexImages
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, near_pairs


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


def at_least(values: dict[tuple[int, int], float], least: float) -> Callable[[tuple[int, int]], bool]:
    """Return a function that says whether a pair's value reaches `least`; those without one do."""
    return lambda pair: values.get(pair, least) >= least


def background(cosines: np.ndarray) -> np.ndarray:
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
