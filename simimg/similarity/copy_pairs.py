"""Finds pairs of copies in a collection: cheap candidates first, and each candidate pair is verified.

1. Files with the same bytes: one of them represents all in the following steps.
2. Pairs with similar perceptual hashes; an image with transparent pixels has two, one on each background.
3. The nearest embeddings of each image, in groups of eight until a group has no copy.
4. Each pair of 2 and 3 is verified (`simimg.similarity.match_verification`), which also gives its similarity. Pairs
   that were decided to be no copies (`simimg.similarity.decisions`) are left out.
5. Each verified pair is compared at full size (`simimg.similarity.differences`). If it differs by edits that do not
   count, it is no pair of copies. Two images that differ in nothing from a third one are not compared, unless they
   may be planned for removal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.errors import UsageError
from simimg.similarity.decisions import read_decisions
from simimg.similarity.edits import COUNTED, PLANNED
from simimg.similarity.fingerprint import Fingerprint
from simimg.similarity.full_size import alike
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, near_pairs
from tfrecords.machine_limits import num_cores

_NEIGHBORS = 24  # nearest embeddings that are verified, at most
_GROUP = 8
_QUERIES_PER_BLOCK = 256


class PairExaminer:
    """Verifies pairs of rows of an index, each pair once, by one thread per core; the smaller row is the query.

    Attributes:
        copies: verifications of the pairs, smaller row first, that reach the threshold and differ by edits that count.
        neighbors: of each row, the rows it is a copy of.
        num_examined: number of verified pairs.
        decisions: those in the folder of the index.
        settling: keys of the decisions because of which pairs were not verified.
    """

    def __init__(self, index: SearchIndex, threshold: float, edits: frozenset[str] = COUNTED) -> None:
        """Take an index, the least similarity of copies, and the kinds of edits that count, see `edits`."""
        self.index = index
        self.images = IndexImages(index)
        self.executor = ThreadPoolExecutor(num_cores())
        self.copies: dict[tuple[int, int], Verification] = {}
        self.neighbors: dict[int, set[int]] = defaultdict(set)
        self.num_examined = 0
        self.decisions = read_decisions(index.index_dir)
        self.settling: set[frozenset[str]] = set()
        self._decided = self.decisions.rows(index.images)
        self._threshold = threshold
        self._edits = edits
        self._alike = DisjointSets()  # of rows that differ in nothing but their size, file, position and part
        self._done: set[tuple[int, int]] = set()
        self._explained: dict[tuple[int, int], Verification | None] = {}

    def examine_all(self, progress: Callable[[int], object], kinds: np.ndarray | None = None) -> dict[int, list[int]]:
        """Verify all candidate pairs; return `identical_rows`, whose keys represent all rows.

        With `kinds`, int `[num_images]`, only pairs of two kinds. `progress` is called with the number of images since
        its last call.
        """
        rows = np.arange(len(self.index.images))
        identical = identical_rows(self.images, kinds)
        single = np.isin(rows, list(identical))
        progress(int((~single).sum()))
        self.examine_pairs(_hash_pairs(self.index, rows[single], kinds))
        for kind in [None] if kinds is None else np.unique(kinds):
            own, others = (single, single) if kind is None else (single & (kinds == kind), single & (kinds != kind))
            self._examine_neighbors(rows[own], others, progress)
        return identical

    def examine_pairs(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Verify those pairs that were not verified before."""
        todo = sorted({(min(pair), max(pair)) for pair in pairs} - self._done)
        if self._decided:
            todo = [pair for pair in todo if not self._are_different(*pair)]
        with one_blas_thread():
            verified = list(self.executor.map(lambda pair: self.images.verify(*pair), todo))
        self._done.update(todo)
        self.num_examined += len(todo)
        reached = {
            pair: found
            for pair, found in zip(todo, verified, strict=True)
            if found is not None and found.similarity >= self._threshold
        }
        for pair, found in self._compared(reached):
            if found.similarity >= self._threshold and found.edits <= self._edits:
                self.copies[pair] = found
                self.neighbors[pair[0]].add(pair[1])
                self.neighbors[pair[1]].add(pair[0])

    def _compared(self, found: dict[tuple[int, int], Verification]) -> Iterator[tuple[tuple[int, int], Verification]]:
        """Yield the pairs with what differs at full size; rows that differ in nothing from a third are not compared."""
        left = list(found)
        while left:
            joined, now, later = self._alike.copy(), [], []
            for pair in left:
                if self._are_alike(pair, found[pair]):
                    yield pair, alike(found[pair])
                elif joined.join(*pair) or found[pair].edits <= PLANNED:
                    now.append(pair)
                else:  # perhaps the pairs before it show that nothing differs
                    later.append(pair)
            for pair, one in zip(
                now, self.executor.map(lambda at: self.images.compared(found[at], *at), now), strict=True
            ):
                if one.differs is not None and not one.differs.places:
                    self._alike.join(*pair)
                yield pair, one
            left = later

    def _are_alike(self, pair: tuple[int, int], found: Verification) -> bool:
        return self._alike.are_joined(*pair) and not found.edits <= PLANNED

    def _are_different(self, row: int, other: int) -> bool:
        """Whether it was decided that two rows are not copies."""
        if row not in self._decided or other not in self._decided:
            return False
        if decision := self.decisions.difference(self._decided[row], self._decided[other]):
            self.settling.add(decision.key)
        return decision is not None

    def _examine_neighbors(self, rows: np.ndarray, among: np.ndarray, progress: Callable[[int], object]) -> None:
        """Verify each row with its nearest embeddings among some, in groups of eight, as long as a group has a copy."""
        vectors = self.index.vectors["copy"]
        for start in range(0, len(rows), _QUERIES_PER_BLOCK):
            block = rows[start : start + _QUERIES_PER_BLOCK]
            _, found = self.index.nearest_vectors(np.asarray(vectors[block])[:, None], _NEIGHBORS + 1, among=among)
            nearest = {
                int(row): [one for one in near if one != row][:_NEIGHBORS]
                for row, near in zip(block.tolist(), found.tolist(), strict=True)
            }
            active = list(nearest)
            for first in range(0, _NEIGHBORS, _GROUP):
                group = {row: nearest[row][first : first + _GROUP] for row in active}
                self.examine_pairs((row, near) for row in active for near in group[row])
                active = [row for row in active if any(self.copy(row, near) for near in group[row])]
            progress(len(block))

    def copy(self, one: int, other: int) -> Verification | None:
        """Return the verification of a pair that was examined, if they are copies."""
        return self.copies.get((min(one, other), max(one, other)))

    def explain(self, row: int, other: int) -> Verification | None:
        """Return the verification with `row` as the query, whichever row is smaller."""
        if (row, other) not in self._explained:
            found = self.copies.get((row, other)) or self.images.verify(row, other)
            if found is not None and found.differs is None:
                known = self._are_alike((row, other), found)
                found = alike(found) if known else self.images.compared(found, row, other)
            self._explained[row, other] = found
        return self._explained[row, other]

    def explain_either(self, row: int, other: int) -> Verification | None:
        """Return the verification with `row` as the query, or else the one of the pair that made them copies."""
        return self.explain(row, other) or self.copy(row, other)

    def close(self) -> None:
        """Stop the threads."""
        self.executor.shutdown(cancel_futures=True)


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

    def copy(self) -> DisjointSets:
        """Return a copy, which can be joined further."""
        copied = DisjointSets()
        copied._parent = dict(self._parent)
        return copied


def copies_among(
    images: IndexImages,
    executor: ThreadPoolExecutor,
    new: Fingerprint,
    embedding: np.ndarray,
    phash: int,
    among: np.ndarray | None = None,
) -> dict[int, float]:
    """Return the rows of an index that a new image is a copy of, with their similarities, by the steps 2 to 4 above.

    So `simimg calibrate` measures pairs as `simimg duplicates` finds them.

    Args:
        images: the index.
        executor: for the verifications.
        new: the image's fingerprint, as a candidate.
        embedding: `[network_dim]`, of the image as it is.
        phash: its perceptual hash.
        among: bool `[num_images]`, the images that it may be a copy of; by default all.
    """
    index, found, done = images.index, dict[int, float](), set[int]()

    def examine(rows: Iterable[int]) -> bool:
        """Verify rows; return whether one of them is a copy."""
        todo = [row for row in rows if row not in done]
        done.update(todo)
        with one_blas_thread():
            verified = list(executor.map(lambda row: images.verify_new(new, row), todo))
        found.update({row: copy.similarity for row, copy in zip(todo, verified, strict=True) if copy is not None})
        return any(row in found for row in rows)

    if phash != NO_HASH:
        hashes = index.images.hashes()
        near = ((hashes != NO_HASH) & (np.bitwise_count(hashes ^ np.uint64(phash)) <= MAX_DISTANCE)).any(axis=0)
        examine(np.flatnonzero(near if among is None else near & among).tolist())
    vector = index.projections["copy"](embedding[None, None])
    nearest = index.nearest_vectors(vector, _NEIGHBORS, among=among)[1][0].tolist()
    for first in range(0, len(nearest), _GROUP):
        if not examine(nearest[first : first + _GROUP]):
            break
    return found


def check_threshold(threshold: float) -> None:
    """Raise UsageError for a similarity that no copy can have; 0 stands for the index's own, see `copy_threshold`."""
    if threshold and not 0.5 <= threshold <= 1:
        raise UsageError(f"--threshold={threshold}: should be between 0.5 and 1.")


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


def _hash_pairs(index: SearchIndex, rows: np.ndarray, kinds: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows (of two kinds) with similar perceptual hashes; the first row of a hash represents all."""
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
