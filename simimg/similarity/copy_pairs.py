"""Finds pairs of copies in a collection: cheap candidates first, and each candidate pair is verified.

1. Files with the same bytes: one of them represents all in the following steps.
2. Pairs with similar perceptual hashes; each image has one that its eight positions (turned, mirrored) share, and one
   with transparent pixels has two more, one on each background. Of images that are the same but for their position,
   size and compression, one represents all in the following steps; it is also found by the embedding of one in each
   other position.
3. The nearest embeddings of each image, in groups of four as long as most of a group are copies. Of images for which
   this finds no copy, more of them, by fine keypoints, as long as some of these images turn out to have one.
4. Each pair of 2 and 3 is verified (`simimg.similarity.match_verification`), which also gives its similarity. Pairs of
   3 whose embeddings are not unusually close are compared by their thumbnails alone. Pairs that were decided to be no
   copies (`simimg.similarity.decisions`) are left out.
5. Pairs that copies connect already decide nothing and are left out, unless these are no group
   (`PairExaminer.examine_postponed`). Pairs of two kinds, such as splits, are counted one by one, and none is left out.
6. Each verified pair is compared at full size (`simimg.similarity.differences`). If it differs by edits that do not
   count, it is no pair of copies. Two images that differ in nothing from a third one are not compared, unless they
   may be planned for removal.

Where an order matters, it is that of sizes and checksums, so the pairs are a function of the set of images,
unless more images than are compared have the very same embedding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.similarity import candidate_pairs
from simimg.similarity.affine import compose
from simimg.similarity.candidate_pairs import (
    NEIGHBORS,
    Block,
    DisjointSets,
    NearestRows,
    further_positions,
    hash_pairs,
    identical_rows,
    represented_rows,
)
from simimg.similarity.decisions import read_decisions
from simimg.similarity.edits import COUNTED, EDITS, OVERLAY, PLANNED
from simimg.similarity.fingerprint_store import FingerprintStore
from simimg.similarity.full_size import alike
from simimg.similarity.index_images import IndexImages
from simimg.similarity.match_verification import Verification
from simimg.similarity.pair_tasks import PairTasks
from simimg.similarity.search_index import SearchIndex
from tfrecords.machine_limits import num_cores

# Of the photos of imagededup's protocol that have a copy among their first eight neighbors, all have one in a group.
GROUP = 4
_FIRST_GROUP = 0.9  # of the time for an image goes to its first group of neighbors, in a collection with few copies
# Of images that have no copy by then, so many neighbors are examined, for a few images at a time, as long as at least
# this share of the pairs are copies. Of 74 of the 10,800 files of the protocol, that finds copies of 33.
_FURTHER, _YIELD = 12, 0.02
_AT_A_TIME = (4, 64, 256)  # at least, at most, and one in so many of all
_QUERIES_PER_BLOCK = 256
_BLOCKS_AHEAD = 64  # whose first groups are verified at once by the tasks of an engine


class PairExaminer:
    """Verifies pairs of rows of an index, each pair once, by one thread per core.

    The query is the image with fewer pixels: it is rarely the one that is kept, so that this verification tells what
    was done to it.

    Attributes:
        edits: the kinds of edits that count, see `simimg.similarity.edits`.
        copies: verifications that reach the threshold and differ by edits that count, by pair, smaller row first; the
            query is the row of the larger rank.
        neighbors: of each row, the rows it is a copy of.
        num_examined: number of verified pairs.
        order: the rows, int64 `[num_images]`: most pixels first, and then by checksum.
        rank: of each row, its place in that order.
        decisions: those in the folder of the index.
        settling: keys of the decisions because of which pairs were not verified.
    """

    def __init__(
        self,
        index: SearchIndex,
        threshold: float,
        edits: frozenset[str] = COUNTED,
        store: FingerprintStore | None = None,
        noticed: Callable[[int, int], object] = lambda row, other: None,
        tasks: PairTasks | None = None,
        compared: Iterable[str] = EDITS,
        num_threads: int = 0,
    ) -> None:
        """Take an index, the least similarity of copies, and the kinds of edits that count, see `edits`.

        For `store`, see `IndexImages`. `noticed` is called with each pair that reaches the threshold, at once. `tasks`
        verify those pairs elsewhere that are sure to be needed. Pairs that show other kinds of edits than `compared`
        are not compared at full size, or no further once they show one. There are `num_threads`, or one per core for 0.
        """
        self.index = index
        self.images = IndexImages(index, store=store)
        self.executor = ThreadPoolExecutor(num_threads or num_cores())
        self.copies: dict[tuple[int, int], Verification] = {}
        self.neighbors: dict[int, set[int]] = defaultdict(set)
        self.num_examined = 0
        self.decisions = read_decisions(index.index_dir)
        self.settling: set[frozenset[str]] = set()
        self._decided = self.decisions.rows(index.images)
        self._threshold = threshold
        self._noticed = noticed
        self._tasks = tasks
        self._at_full_size = frozenset(compared) | {OVERLAY}  # which the thumbnails may show in vain
        num_pixels = index.images.column("width").astype(np.int64) * index.images.column("height")
        self.order = np.lexsort((index.images.column("sha256").astype(str), -num_pixels))
        ranks = np.argsort(self.order)
        self.rank: list[int] = ranks.tolist()
        self._nearest = NearestRows(index, ranks)
        self.edits = edits
        self._alike = DisjointSets()  # of rows that differ in nothing but their size, file, position and part
        self._connected = DisjointSets()  # of rows between which there are pairs of copies
        self._postpones = True  # whether pairs that decide nothing are left out
        self._postponed: dict[int, dict[int, bool]] = defaultdict(dict)  # of rows, these others; whether they are close
        self._done: set[tuple[int, int]] = set()
        self._glanced: set[tuple[int, int]] = set()  # compared by their thumbnails alone
        self._explained: dict[tuple[int, int], Verification | None] = {}
        self._seen: dict[tuple[int, int], Verification | None] = {}  # by the thumbnails

    def examine_all(self, progress: Callable[[int], object], kinds: np.ndarray | None = None) -> dict[int, list[int]]:
        """Verify all candidate pairs; return `identical_rows`, whose keys represent all rows.

        With `kinds`, int `[num_images]`, only pairs of two kinds. `progress` is called with the number of images since
        its last call.
        """
        rows, self._postpones = self.order, kinds is None
        identical = identical_rows(self.images, kinds)
        single = np.isin(np.arange(len(rows)), list(identical))
        for row, members in identical.items():
            for other in members[1:]:
                self._noticed(row, other)
        progress(int((~single).sum()))
        pairs = set(hash_pairs(self.index, rows[single[rows]], kinds))
        self.examine_hashed(pairs)
        among = single.copy()
        if kinds is None:
            alike_pairs = [pair for pair in sorted(self.copies, key=self._place_of) if self._alike.are_joined(*pair)]
            represented = represented_rows((*self._directed(pair), self.copies[pair]) for pair in alike_pairs)
            single[list(represented)] = among[list(represented)] = False
            for row, representative in further_positions(represented).items():
                among[row], self._nearest.represented_by[row] = True, representative
            progress(len(represented))
        for kind in [None] if kinds is None else np.unique(kinds):
            own, others = (single, among) if kind is None else (single & (kinds == kind), among & (kinds != kind))
            self._examine_neighbors(rows[own[rows]], others, progress)
        return identical

    def examine_hashed(self, pairs: set[tuple[int, int]], *, thorough: bool = True) -> None:
        """Verify pairs with similar hashes; unless `thorough`, by their thumbnails alone."""
        if self._postpones:
            spanning = candidate_pairs.spanning_pairs(sorted(pairs, key=self._place_of))
            self._examine_ahead(spanning, lambda pair: thorough)
            self.examine_pairs(spanning, lambda pair: thorough)
        self._examine_ahead(pairs, lambda pair: thorough)
        self._examine_unconnected(pairs, lambda pair: thorough)

    def examine_pairs(
        self,
        pairs: Iterable[tuple[int, int]],
        is_close: Callable[[tuple[int, int]], bool] = lambda pair: True,
        advance: Callable[[float], object] = lambda share: None,
    ) -> None:
        """Verify those pairs that were not verified before; those that are not close, by their thumbnails alone.

        `advance` is called after each pair, with the share of the pairs that is done.
        """
        close = {pair: is_close(pair) for pair in {(min(pair), max(pair)) for pair in pairs} - self._done}
        todo = sorted((pair for pair in close if close[pair] or pair not in self._glanced), key=self._place_of)
        if self._decided:
            todo = [pair for pair in todo if not self._are_different(*pair)]
        verified: list[Verification | None] = []
        with one_blas_thread():
            for pair, one in zip(
                todo,
                self.executor.map(
                    lambda pair: (self.images.verify if close[pair] else self.images.glance)(*self._directed(pair)),
                    todo,
                ),
                strict=True,
            ):
                verified.append(one)
                if one is not None and one.similarity >= self._threshold:
                    self._noticed(*pair)
                advance(len(verified) / len(todo))
        self._done.update(pair for pair, found in zip(todo, verified, strict=True) if close[pair] or found is not None)
        self._glanced.update(todo)
        self.num_examined += len(todo)
        reached = {
            pair: found
            for pair, found in zip(todo, verified, strict=True)
            if found is not None and found.similarity >= self._threshold
        }
        for pair, found in self._compared(reached):
            if found.similarity >= self._threshold and found.edits <= self.edits:
                self.copies[pair] = self._explained[self._directed(pair)] = found
                self.neighbors[pair[0]].add(pair[1])
                self.neighbors[pair[1]].add(pair[0])
                self._connected.join(*pair)

    def _examine_ahead(self, pairs: Iterable[tuple[int, int]], is_close: Callable[[tuple[int, int]], bool]) -> None:
        """Have pairs that are not postponed verified by the tasks, if there are any, for `examine_pairs`."""
        if self._tasks is None:
            return
        pairs = [pair for pair in pairs if not (self._postpones and self._connected.are_joined(*pair))]
        todo = sorted({(min(pair), max(pair)) for pair in pairs} - self._done)
        wanted = [(*self._directed(pair), is_close(pair)) for pair in todo if not self._are_different(*pair)]
        self.images.ahead = self._tasks.examine(wanted, self._threshold)

    def examine_postponed(self, rows: Iterable[int]) -> None:
        """Verify the pairs that were left out of rows that copies connect, all of them."""
        pairs = {(row, other): close for row in rows for other, close in self._postponed.pop(row, {}).items()}
        self.examine_pairs(pairs, pairs.__getitem__)

    def _compared(self, found: dict[tuple[int, int], Verification]) -> Iterator[tuple[tuple[int, int], Verification]]:
        """Yield the pairs with what differs at full size; rows that differ in nothing from a third are not compared."""
        left = list(found)
        while left:
            joined, now, later = DisjointSets(), [], []
            for pair in left:
                if self._are_alike(pair, found[pair]):
                    yield pair, alike(found[pair])
                elif not found[pair].edits <= self._at_full_size:
                    yield pair, found[pair]
                elif joined.join(*map(self._alike.find, pair)) or found[pair].edits - {OVERLAY} <= PLANNED:
                    now.append(pair)
                else:  # perhaps the pairs before it show that nothing differs
                    later.append(pair)
            compared = self.executor.map(lambda at: self._compare(found[at], *self._directed(at)), now)
            for pair, one in zip(now, compared, strict=True):
                if one.differs is not None and not (one.differs.places or one.differs.kinds):
                    self._alike.join(*pair)
                yield pair, one
            left = later

    def _compare(self, found: Verification, row: int, other: int) -> Verification:
        return self.images.compared(found, row, other, self._at_full_size)

    def _are_alike(self, pair: tuple[int, int], found: Verification) -> bool:
        # What only the thumbnails show as covered is left out of the edits, so that the pair may be planned.
        return self._alike.are_joined(*pair) and not found.edits - {OVERLAY} <= PLANNED

    def _are_different(self, row: int, other: int) -> bool:
        """Whether it was decided that two rows are not copies."""
        if row not in self._decided or other not in self._decided:
            return False
        if decision := self.decisions.difference(self._decided[row], self._decided[other]):
            self.settling.add(decision.key)
        return decision is not None

    def _directed(self, pair: tuple[int, int]) -> tuple[int, int]:
        """Return the rows of a pair, the query first."""
        row, other = pair
        return pair if self.rank[row] > self.rank[other] else (other, row)

    def _place_of(self, pair: tuple[int, int]) -> tuple[int, int]:
        """Return the place of a pair in the order of all."""
        query, other = self._directed(pair)
        return self.rank[other], self.rank[query]

    def _examine_neighbors(self, rows: np.ndarray, among: np.ndarray, progress: Callable[[int], object]) -> None:
        """Verify each row with its nearest embeddings among some, in groups as long as most of a group are copies."""
        starts = range(0, len(rows), _QUERIES_PER_BLOCK)
        for first in range(0, len(starts), _BLOCKS_AHEAD):
            blocks: Iterator[Block] = (
                self._nearest.examined(rows[start : start + _QUERIES_PER_BLOCK], among)
                for start in starts[first : first + _BLOCKS_AHEAD]
            )
            if self._tasks is not None:
                blocks = self._with_first_groups_ahead(list(blocks))
            for nearest, close in blocks:
                self._examine_block(nearest, close, progress)
        self._examine_further(rows, among)

    def _examine_further(self, rows: np.ndarray, among: np.ndarray) -> None:
        """Verify rows without copies with more of their neighbors, by fine keypoints, as long as that finds copies.

        A photo that was turned by some degrees may have other photos nearer than its original.
        """
        alone = np.array([row for row in rows.tolist() if not self.neighbors.get(row)], np.int64)
        least, most, share = _AT_A_TIME
        num_blocks = -(-len(alone) // min(most, max(least, len(rows) // share)))
        num_pairs = num_copies = 0
        for block in (alone[first::num_blocks] for first in range(num_blocks)):  # each is like all of them
            if num_copies < _YIELD * num_pairs:
                break
            found = self._nearest.rows(block, among)[1]
            pairs = {
                (min(row, other), max(row, other))
                for row, others in zip(block.tolist(), found.tolist(), strict=True)
                for other in [other for other in others if other != row][:_FURTHER]
            } - self._done
            num_pairs, num_copies = num_pairs + len(pairs), num_copies - len(self.copies)
            self._examine_ahead(pairs, lambda pair: True)
            self._examine_unconnected(pairs, lambda pair: True)
            num_copies += len(self.copies)

    def _with_first_groups_ahead(self, blocks: list[Block]) -> Iterator[Block]:
        wanted: dict[tuple[int, int], bool] = {}
        for nearest, is_close in blocks:
            for row, others in nearest.items():
                pairs = [(min(row, other), max(row, other)) for other in others[:GROUP]]
                wanted |= {pair: is_close(pair) for pair in pairs}
        self._examine_ahead(wanted, wanted.__getitem__)
        return iter(blocks)

    def _examine_block(
        self, nearest: dict[int, list[int]], close: Callable[[tuple[int, int]], bool], progress: Callable[[int], object]
    ) -> None:
        active = list(nearest)
        told = 0

        def advance(share: float) -> None:
            nonlocal told
            if (done := int(_FIRST_GROUP * share * len(nearest))) > told:
                progress(done - told)
                told = done

        for first in range(0, NEIGHBORS, GROUP):
            group = {row: nearest[row][first : first + GROUP] for row in active}
            self._examine_in_turn(group, close, advance if not first else lambda share: None)
            active = [row for row in active if sum(self._are_copies(row, one) for one in group[row]) > GROUP // 2]
        progress(len(nearest) - told)

    def _examine_in_turn(
        self, others: dict[int, list[int]], is_close: Callable[[tuple[int, int]], bool],
        advance: Callable[[float], object],
    ) -> None:  # fmt: skip
        """Verify rows with others: with their first one, and with those that this does not connect them to."""
        first = [(row, near[0]) for row, near in others.items() if near]
        self.examine_pairs(first, is_close, lambda share: advance(share / 2))
        pairs = {(row, other) for row, near in others.items() for other in near[1:]}
        self._examine_unconnected(pairs, is_close, lambda share: advance((1 + share) / 2))

    def _examine_unconnected(
        self, pairs: set[tuple[int, int]], is_close: Callable[[tuple[int, int]], bool],
        advance: Callable[[float], object] = lambda share: None,
    ) -> None:  # fmt: skip
        """Verify pairs; those that copies connect already are postponed."""
        pairs = {(min(pair), max(pair)) for pair in pairs} - self._done
        later = {pair for pair in pairs if self._postpones and self._connected.are_joined(*pair)}
        later -= {pair for pair in later if all(row in self._decided for row in pair)}
        for row, other in later:
            self._postponed[row][other] = self._postponed[row].get(other, False) or is_close((row, other))
        self.examine_pairs(pairs - later, is_close, advance)

    def _are_copies(self, row: int, other: int) -> bool:
        row, other = min(row, other), max(row, other)
        return (row, other) in self.copies or other in self._postponed.get(row, ())

    def copy(self, row: int, other: int) -> Verification | None:
        """Return the verification of a pair that was examined, with `row` as the query, if they are copies."""
        found = self.copies.get((min(row, other), max(row, other)))
        return found if found is None or self.rank[row] > self.rank[other] else found.reversed()

    def explain(self, row: int, other: int) -> Verification | None:
        """Return the verification with `row` as the query, also of a pair that was not examined."""
        if self.rank[row] < self.rank[other]:
            found = self.explain(other, row)
            return None if found is None else found.reversed()
        if (row, other) not in self._explained:
            found = self.seen(row, other)
            if found is not None and found.differs is None and found.edits <= self._at_full_size:
                known = self._are_alike((row, other), found)
                found = alike(found) if known else self._compare(found, row, other)
            self._explained[row, other] = found
        return self._explained[row, other]

    def seen(self, row: int, other: int) -> Verification | None:
        """Do the same, but without comparing a pair at full size for that."""
        if self.rank[row] < self.rank[other]:
            found = self.seen(other, row)
            return None if found is None else found.reversed()
        if (row, other) not in self._explained and (row, other) not in self._seen:
            place = self.place(row, other)
            found = None if place is None else self.images.verify_placed(row, other, place)
            self._seen[row, other] = found or self.images.verify(row, other)
        return self._explained.get((row, other)) or self._seen.get((row, other))

    def place(self, row: int, other: int) -> np.ndarray | None:
        """Return where a row lies in another one, see `Verification.place`, if both are copies of one image."""
        if direct := self.copy(row, other):
            return np.reshape(direct.place, (2, 3))
        for common in sorted(self.neighbors[row] & self.neighbors[other], key=self.rank.__getitem__):
            if (there := self.copy(row, common)) and (back := self.copy(common, other)):
                return compose(np.reshape(back.place, (2, 3)), np.reshape(there.place, (2, 3)))
        return None

    def close(self) -> None:
        """Stop the threads, and keep what they computed of the images."""
        self.executor.shutdown(cancel_futures=True)
        self.images.save()
