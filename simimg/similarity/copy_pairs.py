"""Finds pairs of copies in a collection: cheap candidates first, and each candidate pair is verified.

1. Files with the same bytes: one of them represents all in the following steps.
2. Pairs with similar perceptual hashes; each image has one that its eight positions (turned, mirrored) share, and one
   with transparent pixels has two more, one on each background. Of images that are the same but for their position,
   size and compression, one represents all in the following steps.
3. The nearest embeddings of each image, in groups of four as long as most of a group are copies.
4. Each pair of 2 and 3 is verified (`simimg.similarity.match_verification`), which also gives its similarity. Pairs of
   3 whose embeddings are not unusually close are compared by their thumbnails alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.errors import UsageError
from simimg.similarity.affine import compose, determinant, inverse
from simimg.similarity.fingerprint import Fingerprint
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, near_pairs
from tfrecords.machine_limits import num_cores

_NEIGHBORS = 24  # nearest embeddings that are verified, at most
_GROUP = (
    4  # of the photos of imagededup's protocol that have a copy among their first eight neighbors, all have one here
)
# A neighbor is examined if its cosine is this many times that of an image's farther neighbors, and by fine keypoints
# from that cosine on, which 3 % of images reach with another photo.
_NEARER, _CLOSE = 1.3, 0.3
_FEW_IMAGES = 500  # their neighbors are examined in any case: that takes little time
_SAME_POSITION = 0.96  # similarity of images that are the same but for their position, size and compression
_POSITION_TOLERANCE = 0.01  # of the map between the unit squares of two images
_NO_AREA = 1e-6  # a map of that determinant has no inverse
_QUERIES_PER_BLOCK = 256


class PairExaminer:
    """Verifies pairs of rows of an index, each pair once, by one thread per core.

    The query is the image with fewer pixels, or else the smaller row: it is rarely the one that is kept, so that this
    verification tells what was done to it.

    Attributes:
        copies: verifications that reach the threshold, by pair, smaller row first.
        neighbors: of each row, the rows it is a copy of.
        num_examined: number of verified pairs.
    """

    def __init__(self, index: SearchIndex, threshold: float) -> None:
        self.index = index
        self.images = IndexImages(index)
        self.executor = ThreadPoolExecutor(num_cores())
        self.copies: dict[tuple[int, int], Verification] = {}
        self.neighbors: dict[int, set[int]] = defaultdict(set)
        self.num_examined = 0
        self._threshold = threshold
        self._num_pixels = (index.images.column("width").astype(np.int64) * index.images.column("height")).tolist()
        self._done: set[tuple[int, int]] = set()
        self._glanced: set[tuple[int, int]] = set()  # compared by their thumbnails alone
        self._explained: dict[tuple[int, int], Verification | None] = {}

    def examine_all(
        self, progress: Callable[[int], object], kinds: np.ndarray | None = None, *, by_hash: bool = False
    ) -> dict[int, list[int]]:
        """Verify all candidate pairs; return `identical_rows`, whose keys represent all rows.

        With `kinds`, int `[num_images]`, only pairs of two kinds. With `by_hash`, only pairs with similar hashes, by
        their thumbnails alone. `progress` is called with the number of images since its last call.
        """
        rows = np.arange(len(self.index.images))
        identical = identical_rows(self.images, kinds)
        single = np.isin(rows, list(identical))
        progress(int((~single).sum()))
        self.examine_pairs(_hash_pairs(self.index, rows[single], kinds), lambda pair: not by_hash)
        if by_hash:
            progress(int(single.sum()))
            return identical
        if kinds is None:
            single[list(self._represented())] = False
        for kind in [None] if kinds is None else np.unique(kinds):
            own, others = (single, single) if kind is None else (single & (kinds == kind), single & (kinds != kind))
            self._examine_neighbors(rows[own], others, progress)
        return identical

    def _represented(self) -> set[int]:
        """Return the rows that are, but for their position, size and compression, the same as an earlier row."""
        found: set[int] = set()
        for (row, other), copy in sorted(self.copies.items()):
            linear = np.abs([copy.place[number] for number in (0, 1, 3, 4)])
            whole = np.abs(linear - np.rint(linear)).max() < _POSITION_TOLERANCE and np.rint(linear).sum() == 2
            if whole and copy.similarity >= _SAME_POSITION and row not in found:
                found.add(other)
        return found

    def examine_pairs(
        self, pairs: Iterable[tuple[int, int]], is_close: Callable[[tuple[int, int]], bool] = lambda pair: True
    ) -> None:
        """Verify those pairs that were not verified before; those that are not close, by their thumbnails alone."""
        close = {pair: is_close(pair) for pair in {(min(pair), max(pair)) for pair in pairs} - self._done}
        todo = sorted(pair for pair in close if close[pair] or pair not in self._glanced)
        with one_blas_thread():
            verified = list(
                self.executor.map(
                    lambda pair: (self.images.verify if close[pair] else self.images.glance)(*self._directed(pair)),
                    todo,
                )
            )
        self._done.update(pair for pair in todo if close[pair])
        self._glanced.update(todo)
        self.num_examined += len(todo)
        for pair, verification in zip(todo, verified, strict=True):
            if verification is not None and verification.similarity >= self._threshold:
                self.copies[pair] = self._explained[self._directed(pair)] = verification
                self.neighbors[pair[0]].add(pair[1])
                self.neighbors[pair[1]].add(pair[0])

    def _directed(self, pair: tuple[int, int]) -> tuple[int, int]:
        """Return the rows of a pair, the query first."""
        row, other = pair
        return pair if self._num_pixels[row] <= self._num_pixels[other] else (other, row)

    def _examine_neighbors(self, rows: np.ndarray, among: np.ndarray, progress: Callable[[int], object]) -> None:
        """Verify each row with its nearest embeddings among some, in groups as long as most of a group are copies."""
        vectors = self.index.vectors["copy"]
        few = len(vectors) <= _FEW_IMAGES
        for start in range(0, len(rows), _QUERIES_PER_BLOCK):
            block = rows[start : start + _QUERIES_PER_BLOCK]
            cosines, found = self.index.nearest_vectors(
                np.asarray(vectors[block])[:, None], _NEIGHBORS + 1, among=among
            )
            least = -1.0 if few else _NEARER * np.minimum(_background(cosines), 1.5 * np.median(_background(cosines)))
            near = cosines >= least
            cosine_of = {
                (min(row, other), max(row, other)): cosine
                for row, others, values in zip(block.tolist(), found.tolist(), cosines.tolist(), strict=True)
                for other, cosine in zip(others, values, strict=True)
            }
            nearest = {
                row: [other for other, flag in zip(others, flags, strict=True) if flag and other != row][:_NEIGHBORS]
                for row, others, flags in zip(block.tolist(), found.tolist(), near.tolist(), strict=True)
            }
            active = list(nearest)
            for first in range(0, _NEIGHBORS, _GROUP):
                group = {row: nearest[row][first : first + _GROUP] for row in active}
                pairs = [(row, other) for row in active for other in group[row]]
                self.examine_pairs(pairs, _at_least({} if few else cosine_of, _CLOSE))
                active = [
                    row for row in active if sum(bool(self.copy(row, other)) for other in group[row]) > _GROUP // 2
                ]
            progress(len(block))

    def copy(self, one: int, other: int) -> Verification | None:
        """Return the verification of a pair that was examined, if they are copies."""
        return self.copies.get((min(one, other), max(one, other)))

    def explain(self, row: int, other: int) -> Verification | None:
        """Return the verification with `row` as the query, whichever row is smaller."""
        if (row, other) not in self._explained:
            place = self._place(row, other)
            found = None if place is None else self.images.verify_placed(row, other, place)
            self._explained[row, other] = found or self.images.verify(row, other)
        return self._explained[row, other]

    def geometric_edits(self, row: int, other: int) -> list[str] | None:
        """Return what the alignment of a row with another one shows; None if it is not known."""
        place = self._place(row, other)
        return None if place is None else self.images.geometric_edits(row, other, place)

    def _place(self, row: int, other: int) -> np.ndarray | None:
        """Return where a row lies in another one, see `Verification.place`, if both are copies of one image."""
        if (direct := self._direct_place(row, other)) is not None:
            return direct
        for common in sorted(self.neighbors[row] & self.neighbors[other]):
            there, back = self._direct_place(row, common), self._direct_place(common, other)
            if there is not None and back is not None:
                return compose(back, there)
        return None

    def _direct_place(self, row: int, other: int) -> np.ndarray | None:
        pair = (min(row, other), max(row, other))
        if (copy := self.copies.get(pair)) is None:
            return None
        place = np.reshape(copy.place, (2, 3))
        if self._directed(pair) == (row, other):
            return place
        return inverse(place) if abs(determinant(place)) > _NO_AREA else None

    def explain_either(self, row: int, other: int) -> Verification | None:
        """Return the verification with `row` as the query, or else the one of the pair that made them copies."""
        return self.explain(row, other) or self.copy(row, other)

    def close(self) -> None:
        """Stop the threads, and keep what they computed of the images."""
        self.executor.shutdown(cancel_futures=True)
        self.images.save()


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

    def examine(rows: Sequence[int]) -> bool:
        """Verify rows; return whether most of them are copies."""
        todo = [row for row in rows if row not in done]
        done.update(todo)
        with one_blas_thread():
            verified = list(executor.map(lambda row: images.verify_new(new, row), todo))
        found.update({row: copy.similarity for row, copy in zip(todo, verified, strict=True) if copy is not None})
        return sum(row in found for row in rows) > _GROUP // 2

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


def _at_least(values: dict[tuple[int, int], float], least: float) -> Callable[[tuple[int, int]], bool]:
    """Return a function that says whether a pair's value reaches `least`; those without one do."""
    return lambda pair: values.get(pair, least) >= least


def _background(cosines: np.ndarray) -> np.ndarray:
    """Return the median cosine of the farther half of each row's neighbors: `[n, k]`, best first, to `[n, 1]`."""
    return np.median(cosines[:, cosines.shape[1] // 2 :], axis=1, keepdims=True)


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
