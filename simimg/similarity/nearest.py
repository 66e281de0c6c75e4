"""The nearest vectors: exact, block by block, up to 200,000 of them; faiss's inverted lists beyond.

Exact search reads every vector once for all queries of a call, at the speed of memory. Beyond `EXACT_UP_TO` an inverted
file is built beside the vectors (Sivic and Zisserman, ICCV 2003; faiss's IndexIVFFlat): vectors are sorted into cells,
and a query is compared with those of the nearest cells only. How many cells are probed is measured, not guessed: as few
as have the true nearest ten 99 times of 100 on the vectors themselves, and that share is stored and shown.
"""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from simimg.similarity.threads import threads_of_one
from tfrecords.convert.pool import num_cores

__all__ = ["EXACT_UP_TO", "Cells", "build_cells", "nearest", "open_cells", "write_flat", "write_probed"]

EXACT_UP_TO = 200_000
"""Vectors: 512 MB of 512 numbers, read in 60 ms by two cores, which is less than embedding the query takes."""

_BLOCK_ROWS, _BLOCK_VALUES = 4096, 1 << 19  # rows, and similarities, that are dealt with at a time: 2 MB of either
_FEW = 6  # queries: their products are dot products, which read memory 2.5 times as fast as matrix-vector products
# Rows of a product of matrices. OpenBLAS multiplies matrices of up to a million products without packing them first,
# which costs more than the products of some dozens of queries: half of the time of 16.
_SMALL_ROWS, _SMALL_PRODUCT = (128, 64, 32), 1_000_000
_MANY = 8  # times what is wanted
_NO_ROW = np.iinfo(np.int64).max  # after all others
_ADDED_ROWS = 65_536  # to faiss's lists at a time
_TRAINING_A_CELL = 64  # faiss warns below 39
_WANTED_RECALL = 0.99
_PROBED_QUERIES = 200


def nearest(
    vectors: np.ndarray, queries: np.ndarray, k: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `k` nearest vectors of each query, best first; equal ones in the order of their rows.

    Blocks of vectors are shared among as many threads as cores. What they find does not depend on how they share them.

    Args:
        vectors: float32 `[num_vectors, dim]` of L2 norm 1, perhaps mapped from a file.
        queries: float32 `[num_queries, num_views, dim]`; the view that is closest to a vector counts.
        k: at least 1; fewer are returned where there are fewer vectors.
        among: bool `[num_vectors]`, which vectors are looked at; by default all.

    Returns:
        Inner products float32 and rows int64, both `[num_queries, min(k, vectors that are looked at)]`.
    """
    num_queries, num_views, dim = queries.shape
    count = min(k, len(vectors) if among is None else int(among.sum()))
    if not count:
        return np.zeros((num_queries, 0), np.float32), np.zeros((num_queries, 0), np.int64)
    flat = np.ascontiguousarray(queries.reshape(-1, dim), np.float32)
    most_rows = _BLOCK_VALUES // max(1, len(flat))
    block_rows = min(_BLOCK_ROWS, max(1, most_rows // _SMALL_ROWS[0]) * _SMALL_ROWS[0])
    starts = iter(range(0, len(vectors), block_rows))  # each is taken by one thread: next() is atomic

    def search(_: int) -> _Best:
        best = _Best(num_queries, count)
        for start in starts:
            block = np.asarray(vectors[start : start + block_rows])
            similarities = _products(block, flat)
            if num_views > 1:  # put in columns first, as a maximum of neighbours is three times as slow
                columns = np.ascontiguousarray(similarities.reshape(-1, num_views).T)
                similarities = columns.max(axis=0).reshape(len(block), num_queries)
            if among is not None:
                similarities[~among[start : start + block_rows]] = -np.inf
            best.add(similarities, start)
        return best

    num_threads = min(num_cores(), -(-len(vectors) // block_rows))
    with threads_of_one():
        if num_threads < 2:
            parts = [search(0)]
        else:
            with ThreadPoolExecutor(num_threads) as executor:
                parts = list(executor.map(search, range(num_threads)))
    values = np.concatenate([part.values for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    order = np.lexsort((rows, -values), axis=1)[:, :count]
    return np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)


def _products(block: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The inner products of a block's rows and queries, float32 `[num_rows, num_queries]`, at the speed of memory."""
    num_rows, dim = block.shape
    num_queries = len(queries)
    if num_queries <= _FEW:
        return np.vecdot(block[:, None], queries)
    right = np.ascontiguousarray(queries.T)  # as a view it is multiplied at half the speed
    fitting = [rows for rows in _SMALL_ROWS if rows * num_queries * dim <= _SMALL_PRODUCT]
    part_rows = fitting[0] if fitting else _SMALL_ROWS[-1]
    if over := -num_rows % part_rows:
        # Odd rows would be added up in another order, and one picture at two places would not be equally near.
        return _products(np.concatenate([block, np.zeros((over, dim), np.float32)]), queries)[:num_rows]
    parts = block.reshape(-1, part_rows, dim) if fitting else block
    return np.matmul(parts, right).reshape(num_rows, num_queries)


class _Best:
    """The best that one thread has found: values and rows `[num_queries, count]`; blocks come in their order.

    What is not above the worst that a query has is passed over at once: of a million vectors in blocks of thousands,
    all but some dozens a query. An equal one is, too: its row is larger.
    """

    def __init__(self, num_queries: int, count: int) -> None:
        self.values = np.full((num_queries, count), -np.inf, np.float32)
        self.rows = np.full((num_queries, count), _NO_ROW, np.int64)

    def add(self, similarities: np.ndarray, start: int) -> None:
        """Takes in a block, `[num_rows, num_queries]`, whose first row is `start`."""
        num_rows, num_queries = similarities.shape
        count = self.values.shape[1]
        found = np.flatnonzero(similarities > self.values[:, -1])
        if len(found) > _MANY * count * num_queries and num_rows > count:
            # The first block, mostly. Its own best say first what can count at all.
            least = np.partition(similarities, num_rows - count, axis=0)[num_rows - count]
            found = np.flatnonzero(similarities >= np.maximum(least, np.nextafter(self.values[:, -1], np.inf)))
        rows, queries = np.divmod(found, num_queries)
        values = similarities.ravel()[found]
        order = np.argsort(queries, kind="stable")
        ends = np.cumsum(np.bincount(queries, minlength=num_queries))
        for query in np.unique(queries):
            some = order[ends[query - 1] if query else 0 : ends[query]]
            better = np.concatenate([self.values[query], values[some]])
            at = np.concatenate([self.rows[query], rows[some] + start])
            kept = np.lexsort((at, -better))[:count]
            self.values[query], self.rows[query] = better[kept], at[kept]


@dataclasses.dataclass(frozen=True)
class Cells:
    """An inverted file over vectors.

    Attributes:
        faiss_index: faiss's.
        num_probed: cells that a query looks into.
        recall: the share of the true nearest ten that it finds so, measured.
        path: its file.
    """

    faiss_index: Any
    num_probed: int
    recall: float
    path: Path

    def nearest(self, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest` above, among the vectors of the probed cells."""
        num_queries, _, dim = queries.shape
        chosen = {} if among is None else {"sel": _faiss().IDSelectorBitmap(np.packbits(among, bitorder="little"))}
        parameters = _faiss().SearchParametersIVF(nprobe=self.num_probed, **chosen)
        values, rows = self.faiss_index.search(
            np.ascontiguousarray(queries.reshape(-1, dim), np.float32), k, params=parameters
        )
        values, rows = values.reshape(num_queries, -1), rows.reshape(num_queries, -1)
        best, found = np.zeros((num_queries, k), np.float32), np.full((num_queries, k), -1, np.int64)
        for query in range(num_queries):  # several views find one vector: its best counts
            order = np.lexsort((rows[query], -values[query]))
            order = order[rows[query][order] >= 0]
            _, first = np.unique(rows[query][order], return_index=True)
            kept = order[np.sort(first)][:k]
            best[query, : len(kept)], found[query, : len(kept)] = values[query][kept], rows[query][kept]
        complete = int((found >= 0).sum(axis=1).min())
        return best[:, :complete], found[:, :complete]


def build_cells(vectors: np.ndarray, path: Path) -> Cells:
    """Builds an inverted file over vectors, measures it and writes it.

    Args:
        vectors: float32 `[num_vectors, dim]` of L2 norm 1.
        path: faiss's file.
    """
    faiss = _faiss()
    num_vectors, dim = vectors.shape
    num_cells = max(1, int(4 * math.sqrt(num_vectors)))
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, num_cells, faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(num_vectors)[: num_cells * _TRAINING_A_CELL])
    index.train(np.ascontiguousarray(vectors[sample]))
    for start in range(0, num_vectors, _ADDED_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _ADDED_ROWS]))
    queries = np.ascontiguousarray(vectors[np.sort(rng.permutation(num_vectors)[:_PROBED_QUERIES])])[:, None]
    k = min(10, num_vectors)
    _, exact = nearest(vectors, queries, k)
    num_probed = 1
    while True:
        cells = Cells(index, num_probed, 0.0, path)
        _, found = cells.nearest(queries, k)
        hits = sum(len(np.intersect1d(ours, theirs)) for ours, theirs in zip(found, exact, strict=True))
        recall = hits / exact.size
        if recall >= _WANTED_RECALL or num_probed >= num_cells:
            break
        num_probed = min(num_cells, num_probed * 2)
    faiss.write_index(index, str(path))
    return Cells(index, num_probed, recall, path)


def open_cells(path: Path, num_probed: int, recall: float) -> Cells:
    """Opens what `build_cells` has written; the vectors in it stay on disk until they are compared."""
    faiss = _faiss()
    return Cells(faiss.read_index(str(path), faiss.IO_FLAG_MMAP), num_probed, recall, path)


def write_flat(vectors: np.ndarray, path: Path) -> None:
    """Writes vectors as a faiss file of their own: exact search by inner product, ids are rows."""
    faiss = _faiss()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], np.float32)
        index.add_with_ids(block, np.arange(start, start + len(block)))
    faiss.write_index(index, str(path))


def write_probed(cells: Cells, path: Path) -> None:
    """Writes an inverted file that looks into as many cells as were found to be enough; ids are rows.

    It is read whole: of lists that stay on disk, faiss writes where they are, and not what is in them.
    """
    faiss = _faiss()
    index = faiss.read_index(str(cells.path))
    index.nprobe = cells.num_probed
    faiss.write_index(index, str(path))


def _faiss() -> Any:
    import faiss  # 0.1 s; after TensorFlow, with which its threads would else clash

    return faiss
