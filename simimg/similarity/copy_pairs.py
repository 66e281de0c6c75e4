"""Which pictures of a collection are copies of each other: pairs that may be, cheap ones first, each of them examined.

1. Files of the same bytes: one of them stands for all in what follows (`representatives`).
2. Pairs of near perceptual hashes (`hash_pairs`).
3. For each picture those with the nearest embeddings, eight at a time until eight in a row are none.
4. Each pair of 2 and 3 is examined (`simimg.similarity.match_verification`); similarity is that of the verification.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.errors import UsageError
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification, verify
from simimg.similarity.search_index import SearchIndex
from tfrecords.convert.image.near_duplicates import MAX_DISTANCE, NO_HASH, near_pairs
from tfrecords.convert.workers.pool import num_cores

__all__ = ["SAME_BYTES", "PairExaminer", "check_threshold", "explained", "hash_pairs", "representatives"]

SAME_BYTES = "the same bytes"

_NEIGHBORS = 24  # the nearest by their embeddings that are examined at most
_AT_A_TIME = 8
_QUERIES_PER_BLOCK = 256


class PairExaminer:
    """Verifications of pairs of rows, each made once; the smaller row is the query.

    Attributes:
        index: whose rows they are.
        originals: what is looked at.
        executor: examines with as many threads as cores.
        copies: verifications of pairs, the smaller row first, whose similarity is the threshold or more.
        neighbors: of each row, those that it is in such a pair with.
        num_examined: pairs.
    """

    def __init__(self, index: SearchIndex, threshold: float) -> None:
        """Take an opened index, and the least similarity of copies."""
        self.index = index
        self.originals = IndexImages(index)
        self.executor = ThreadPoolExecutor(num_cores())
        self.copies: dict[tuple[int, int], Verification] = {}
        self.neighbors: dict[int, set[int]] = defaultdict(set)
        self.num_examined = 0
        self._threshold = threshold
        self._done: set[tuple[int, int]] = set()
        self._explained: dict[tuple[int, int], Verification | None] = {}

    def examine_pairs(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Examines pairs that were not."""
        todo = sorted({(min(pair), max(pair)) for pair in pairs} - self._done)
        with one_blas_thread():
            verified = list(self.executor.map(self._verify, todo))
        for pair, seen in zip(todo, verified, strict=True):
            self._done.add(pair)
            self.num_examined += 1
            if seen is not None and seen.similarity >= self._threshold:
                self.copies[pair] = seen
                self.neighbors[pair[0]].add(pair[1])
                self.neighbors[pair[1]].add(pair[0])

    def examine_neighbors(self, rows: np.ndarray, among: np.ndarray, progress: Callable[[int], object]) -> None:
        """Examines each row with its nearest, eight at a time, as long as copies are among the eight.

        Args:
            rows: int `[n]`.
            among: bool `[num_images]`, the rows that are looked at.
            progress: called with the number of rows since the last call.
        """
        vectors = self.index.vectors["copy"]
        for start in range(0, len(rows), _QUERIES_PER_BLOCK):
            block = rows[start : start + _QUERIES_PER_BLOCK]
            _, found = self.index.nearest_vectors(np.asarray(vectors[block])[:, None], _NEIGHBORS + 1, among=among)
            nearest = {
                int(row): [one for one in near if one != row][:_NEIGHBORS]
                for row, near in zip(block.tolist(), found.tolist(), strict=True)
            }
            going = list(nearest)
            for first in range(0, _NEIGHBORS, _AT_A_TIME):
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
        examined = self.originals.pair(*pair)
        return None if examined is None else verify(*examined)


def check_threshold(threshold: float) -> None:
    """Raises UsageError for a similarity that no copy can have; 0 is the index's own, see `copy_threshold`."""
    if threshold and not 0.5 <= threshold <= 1:
        raise UsageError(f"--threshold={threshold}: should be between 0.5 and 1.")


def explained(seen: Verification | None) -> str:
    """Returns what was done to the query of a verification, for people."""
    return ", ".join(seen.reasons) if seen and seen.reasons else "looks the same"


def representatives(sha256: np.ndarray, kinds: np.ndarray | None = None) -> np.ndarray:
    """The first row of the same bytes, for each row: int64 `[num_images]`.

    Args:
        sha256: str `[num_images]`.
        kinds: int `[num_images]`: of the same bytes and the same kind; all are of one by default.
    """
    first: dict[tuple[str, int], int] = {}
    of_kind = [0] * len(sha256) if kinds is None else kinds.tolist()
    return np.array(
        [first.setdefault(key, row) for row, key in enumerate(zip(sha256.tolist(), of_kind, strict=True))], np.int64
    )


def hash_pairs(index: SearchIndex, rows: np.ndarray, kinds: np.ndarray | None = None) -> Iterator[tuple[int, int]]:
    """Yields pairs of rows whose perceptual hashes are near; of those of one hash, the first stands for all.

    Args:
        index: whose rows they are.
        rows: int `[n]`.
        kinds: int `[num_images]`: only pairs of two kinds, and the first of each kind stands for those of one hash.
    """
    hashes = index.pictures.column("phash")[rows].astype(np.uint64)
    hashed, hashes = rows[hashes != NO_HASH], hashes[hashes != NO_HASH]
    unique, inverse = np.unique(hashes, return_inverse=True)
    firsts: list[dict[int, int]] = [{} for _ in unique]
    of_kind = [0] * len(hashed) if kinds is None else kinds[hashed].tolist()
    listed = list(zip(hashed.tolist(), inverse.tolist(), of_kind, strict=True))
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
                    if kinds is None or kind != other_kind:
                        yield row, near
