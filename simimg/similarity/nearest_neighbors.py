"""Nearest vectors: exact search, block by block, up to 200,000 vectors, and faiss's inverted lists beyond.

Exact search reads every vector once for all queries of a call, at the speed of memory. Beyond `EXACT_UP_TO`, an
inverted file is built beside the vectors (Sivic and Zisserman, ICCV 2003; faiss's IndexIVFFlat): vectors are sorted
into cells, and a query is compared only with those of the nearest cells. The number of probed cells is measured when
the file is built: the smallest power of two that finds 99 % of the true ten nearest of the vectors themselves. The
measured recall is stored and shown. A search among at most `EXACT_UP_TO` given vectors is exact there, too: their
nearest may lie in any cell.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from simimg.determinism import inner_products, one_blas_thread, ordered_sum, product_error
from simimg.similarity.vector_rows import ChosenRows, VectorRows
from tfrecords.machine_limits import num_cores

EXACT_UP_TO = 200_000
"""Vectors: 512 MB of 512 numbers each, read in 60 ms by two cores, which is less than embedding the query takes."""

_BLOCK_ROWS, _BLOCK_VALUES = 4096, 1 << 19  # rows and similarities that are processed at a time, at most: 2 MB each
_DOT_QUERIES = 6  # up to so many queries, dot products read memory 2.5 times as fast as matrix-vector products
# Rows of a small matrix product. OpenBLAS does not pack the factors of a product of up to a million multiplications.
# Packing costs more than the products of some dozen queries: for 16 queries, it is half of the time.
_SMALL_ROWS, _SMALL_PRODUCT = (128, 64, 32), 1_000_000
_MANY = 8  # times the number of wanted rows
_COPIED_SHARE = 8  # if at most an eighth of the vectors is searched, only these are read, and copied block by block
_SPARE, _MORE = 2, 8  # rows that are proposed in addition, and the factor if they may not suffice
_NO_ROW = np.iinfo(np.int64).max  # sorts after all others
_ADDED_ROWS = 65_536  # added to faiss's lists at a time
_TRAINING_PER_CELL = 64  # faiss warns below 39
_FITTING_ROUNDS = 10  # as in faiss for an inverted file
_CENTROID_UNIT = 2.0**30  # resolution of a coordinate; near 1, that of float32 is coarser
_WANTED_RECALL = 0.99
_PROBED_QUERIES = 200

_Nearest = tuple[np.ndarray, np.ndarray]  # similarities or products, and rows


def nearest(vectors: VectorRows, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> _Nearest:
    """Return the `k` nearest vectors of each query, best first; equal ones in the order of their rows.

    BLAS proposes every vector that may be among the nearest within its rounding error. The proposals are compared by
    `inner_products`. So the result does not depend on the processor, the number of threads or the other queries.

    Args:
        vectors: float32 `[num_vectors, dim]` of L2 norm 1, perhaps memory-mapped.
        queries: float32 `[num_queries, num_views, dim]` of L2 norm 1; the view that is closest to a vector counts.
        k: at least 1; fewer are returned if there are fewer vectors.
        among: bool `[num_vectors]`, the vectors that are searched; by default all.

    Returns:
        Inner products float32 and rows int64, both `[num_queries, min(k, number of searched vectors)]`.
    """
    if among is not None and len(chosen := np.flatnonzero(among)) <= len(vectors) // _COPIED_SHARE:
        values, places = nearest(ChosenRows(vectors, chosen), queries, k)
        return values, chosen[places]
    count = min(k, len(vectors) if among is None else len(chosen))
    queries = np.ascontiguousarray(queries, np.float32)
    return _compared(vectors, queries, count, lambda some, most: _proposed(vectors, queries[some], most, among))


def _compared(
    vectors: VectorRows, queries: np.ndarray, count: int, propose: Callable[[np.ndarray, int], _Nearest]
) -> _Nearest:
    """Return the `count` nearest of each query among those that are proposed; -inf and `_NO_ROW` if there are fewer.

    `propose` takes the places of some queries and a number, and returns the products and rows of so many vectors, best
    first. It is called again, for more of them, while the last one may be among the nearest.
    """
    num_queries, _, dim = queries.shape
    values, rows = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
    error = product_error(dim)
    waiting, most = np.arange(num_queries if count else 0), count + _SPARE
    while len(waiting):
        products, at = propose(waiting, most)
        near = (at != _NO_ROW) & (products >= products[:, [count - 1]] - 2 * error)
        complete = ~near[:, -1]  # all other vectors are too far away
        done, candidates, near = waiting[complete], at[complete], near[complete]
        similarities = np.full(candidates.shape, -np.inf, np.float32)
        similarities[near] = _similarities(vectors, candidates[near], queries, done[np.nonzero(near)[0]])
        candidates[~near] = _NO_ROW
        values[done], rows[done] = _sorted(similarities, candidates, count)
        waiting, most = waiting[~complete], _MORE * most
    return values, rows


def _proposed(vectors: VectorRows, queries: np.ndarray, most: int, among: np.ndarray | None) -> _Nearest:
    """Return the `most` nearest of each query by BLAS, best first: products and rows, `[num_queries, most]`.

    If there are fewer vectors, the last products are -inf and the last rows `_NO_ROW`. Threads, one per core with this
    one, take blocks of vectors.
    """
    num_queries, num_views, dim = queries.shape
    flat = queries.reshape(-1, dim)
    most_rows = _BLOCK_VALUES // max(1, len(flat))
    block_rows = min(_BLOCK_ROWS, max(1, most_rows // _SMALL_ROWS[0]) * _SMALL_ROWS[0])
    starts = iter(range(0, len(vectors), block_rows))  # shared by the threads; next() is atomic

    def search() -> _Best:
        best = _Best(num_queries, most)
        for start in starts:
            block = np.asarray(vectors[start : start + block_rows])
            products = _products(block, flat)
            if num_views > 1:  # transposed first, because a maximum of adjacent numbers takes three times as long
                columns = np.ascontiguousarray(products.reshape(-1, num_views).T)
                products = columns.max(axis=0).reshape(len(block), num_queries)
            if among is not None:
                products[~among[start : start + block_rows]] = -np.inf
            best.add(products, start)
        return best

    num_threads = min(num_cores(), -(-len(vectors) // block_rows))
    with one_blas_thread():
        others = [_threads(os.getpid()).submit(search) for _ in range(num_threads - 1)]
        parts = [search(), *(other.result() for other in others)]
    values = np.concatenate([part.values for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    return _sorted(values, rows, most)


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; starting some for each call would take 0.2 ms. A forked process has none."""
    return ThreadPoolExecutor(max(1, num_cores() - 1), "nearest")


def _products(block: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the products of a block's rows and the queries, float32 `[num_rows, num_queries]`, at memory speed."""
    num_rows, dim = block.shape
    num_queries = len(queries)
    if num_queries <= _DOT_QUERIES:
        return np.vecdot(block[:, None], queries)
    right = np.ascontiguousarray(queries.T)  # a transposed view is multiplied at half the speed
    fitting = [rows for rows in _SMALL_ROWS if rows * num_queries * dim <= _SMALL_PRODUCT]
    if not fitting:
        return block @ right
    whole = num_rows - num_rows % fitting[0]
    products = np.empty((num_rows, num_queries), np.float32)
    np.matmul(
        block[:whole].reshape(-1, fitting[0], dim), right, out=products[:whole].reshape(-1, fitting[0], num_queries)
    )
    np.matmul(block[whole:], right, out=products[whole:])
    return products


def _similarities(vectors: VectorRows, rows: np.ndarray, queries: np.ndarray, query_of: np.ndarray) -> np.ndarray:
    """Return the similarity of the vector at each row to the closest view of its query: float32 `[n]`.

    `rows` and `query_of`, int64 `[n]`, are places in `vectors` and `queries`. Pairs are compared block by block: all
    vectors of a thousand matches of some hundred queries would take a gigabyte.
    """
    _, num_views, dim = queries.shape
    error = product_error(dim)
    similarities = np.full(len(rows), -np.inf, np.float32)
    at_once = max(1, _BLOCK_VALUES // (num_views * dim))
    for start in range(0, len(rows), at_once):
        block, views = vectors[rows[start : start + at_once]], queries[query_of[start : start + at_once]]
        products = np.vecdot(block[:, None], views)
        near, closest = np.nonzero(products >= products.max(axis=1, keepdims=True) - 2 * error)  # mostly one per vector
        np.maximum.at(similarities, start + near, inner_products(block[near], views[near, closest]))
    return similarities


def _sorted(similarities: np.ndarray, rows: np.ndarray, count: int) -> _Nearest:
    """Return the `count` best of the last axis, best first; equal ones in the order of their rows."""
    kept = np.lexsort((rows, -similarities))[..., :count]
    return np.take_along_axis(similarities, kept, -1), np.take_along_axis(rows, kept, -1)


class _Best:
    """The best products that one thread has found, values and rows `[num_queries, most]`; blocks arrive in row order.

    Products that are not above a query's worst are skipped at once: all but some dozens per query of a million vectors
    in blocks of thousands.
    """

    def __init__(self, num_queries: int, most: int) -> None:
        self.values = np.full((num_queries, most), -np.inf, np.float32)
        self.rows = np.full((num_queries, most), _NO_ROW, np.int64)

    def add(self, products: np.ndarray, start: int) -> None:
        """Add the products of a block, `[num_rows, num_queries]`, whose first row is `start`."""
        num_rows, num_queries = products.shape
        most = self.values.shape[1]
        found = np.flatnonzero(products > self.values[:, -1])
        if len(found) > _MANY * most * num_queries and num_rows > most:
            # Mostly the first block. Its own best products give a lower bound first.
            least = np.partition(products, num_rows - most, axis=0)[num_rows - most]
            found = np.flatnonzero(products >= np.maximum(least, np.nextafter(self.values[:, -1], np.inf)))
        rows, queries = np.divmod(found, num_queries)
        values = products.ravel()[found]
        order = np.argsort(queries, kind="stable")
        counts = np.bincount(queries, minlength=num_queries)
        ends = np.cumsum(counts)
        for query in np.flatnonzero(counts):
            some = order[ends[query - 1] if query else 0 : ends[query]]
            better = np.concatenate([self.values[query], values[some]])
            at = np.concatenate([self.rows[query], rows[some] + start])
            self.values[query], self.rows[query] = _sorted(better, at, most)


@dataclasses.dataclass(frozen=True)
class Cells:
    """An inverted file over vectors.

    Attributes:
        faiss_index: faiss's index.
        vectors: float32 `[num_vectors, dim]`, the vectors in it.
        num_probed: number of cells that are searched for a query.
        recall: the measured share of the true ten nearest that this finds.
        path: its file.
    """

    faiss_index: Any
    vectors: np.ndarray
    num_probed: int
    recall: float
    path: Path

    def nearest(self, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> _Nearest:
        """Do the same as `nearest` above in the probed cells; more cells are probed if they hold too few vectors.

        Among at most `EXACT_UP_TO` vectors, the search is exact.
        """
        if among is not None and among.sum() <= EXACT_UP_TO:
            return nearest(self.vectors, queries, k, among)
        num_queries, _, dim = queries.shape
        queries = np.ascontiguousarray(queries, np.float32)
        count = min(k, len(self.vectors) if among is None else int(among.sum()))
        best, found = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
        waiting, num_probed = np.arange(num_queries if count else 0), self.num_probed
        while len(waiting):
            nearest_rows = self._nearest_rows(queries[waiting].reshape(-1, dim), count, num_probed, among)
            lacking = []
            for query, near in zip(waiting.tolist(), nearest_rows.reshape(len(waiting), -1), strict=True):
                rows = np.unique(near[near != _NO_ROW])
                if len(rows) < count:
                    lacking.append(query)
                    continue
                similarities = _similarities(self.vectors, rows, queries, np.full(len(rows), query))
                best[query], found[query] = _sorted(similarities, rows, count)
            waiting, num_probed = np.array(lacking, np.int64), min(2 * num_probed, self.faiss_index.nlist)
        return best, found

    def _nearest_rows(self, queries: np.ndarray, count: int, num_probed: int, among: np.ndarray | None) -> np.ndarray:
        """Return the rows of the `count` nearest of each query, `[num_queries, dim]`, in its nearest cells.

        `_NO_ROW` takes the last places if the cells have fewer.
        """
        faiss = _faiss()
        chosen = {} if among is None else {"sel": faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))}
        parameters = faiss.SearchParametersIVF(nprobe=num_probed, **chosen)
        _, cells = nearest(self._centroids, queries[:, None], num_probed)

        def propose(places: np.ndarray, most: int) -> _Nearest:
            values, rows = (np.empty((len(places), most), dtype) for dtype in (np.float32, np.int64))
            some, probed = queries[places], cells[places]
            unused = np.zeros(probed.shape, np.float32)  # products with the centroids; faiss has bare pointers to these
            self.faiss_index.search_preassigned_c(
                len(some), faiss.swig_ptr(some), most, faiss.swig_ptr(probed), faiss.swig_ptr(unused),
                faiss.swig_ptr(values), faiss.swig_ptr(rows), False, parameters,
            )  # fmt: skip
            return values, np.where(rows < 0, _NO_ROW, rows)

        return _compared(self.vectors, queries[:, None], count, propose)[1]

    @functools.cached_property
    def _centroids(self) -> np.ndarray:
        return self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)


def build_cells(vectors: np.ndarray, path: Path) -> Cells:
    """Build an inverted file of vectors, float32 `[num_vectors, dim]` of L2 norm 1, measure it and write it."""
    faiss = _faiss()
    num_vectors, dim = vectors.shape
    num_cells = max(1, int(4 * math.sqrt(num_vectors)))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(num_vectors)[: num_cells * _TRAINING_PER_CELL])
    centroids = _fitted_centroids(np.asarray(vectors[sample]), num_cells, rng)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_cells, faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(centroids)
    index.is_trained = True
    for start in range(0, num_vectors, _ADDED_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _ADDED_ROWS])
        cells, _ = _nearest_centroids(block, centroids)
        index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(cells))
    queries = np.ascontiguousarray(vectors[np.sort(rng.permutation(num_vectors)[:_PROBED_QUERIES])])[:, None]
    k = min(10, num_vectors)
    _, exact = nearest(vectors, queries, k)
    faiss.write_index(index, str(path))
    num_probed = 1
    while True:
        _, found = Cells(index, vectors, num_probed, 0.0, path).nearest(queries, k)
        hits = sum(len(np.intersect1d(ours, theirs)) for ours, theirs in zip(found, exact, strict=True))
        recall = hits / exact.size
        if recall >= _WANTED_RECALL or num_probed >= num_cells:
            return Cells(index, vectors, num_probed, recall, path)
        num_probed = min(num_cells, num_probed * 2)


def _fitted_centroids(sample: np.ndarray, num_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Fit centroids of L2 norm 1, float32 `[num_cells, dim]`, by spherical k-means (Dhillon and Modha, 2001).

    faiss's own k-means adds by BLAS, and so divides the vectors differently on another processor.
    """
    from scipy.sparse import csr_array  # 0.1 s, which an exact search should not wait for

    count = len(sample)
    # Sums of integers are exact, in any order.
    numbers = np.rint(sample * _CENTROID_UNIT).astype(np.int64)
    centroids = sample[rng.permutation(count)[:num_cells]]
    for _ in range(_FITTING_ROUNDS):
        cells, values = _nearest_centroids(sample, centroids)
        members = csr_array((np.ones(count, np.int64), (cells, np.arange(count))), shape=(num_cells, count))
        sums = (members @ numbers).astype(np.float64)
        empty = np.flatnonzero(np.bincount(cells, minlength=num_cells) == 0)
        sums[empty] = sample[np.argsort(values, kind="stable")[: len(empty)]]  # the worst represented
        lengths = np.sqrt(ordered_sum(sums * sums))[:, None]
        centroids = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
    return centroids


def _nearest_centroids(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centroid of each vector, int64 `[n]`, the first of equal ones, and the float32 similarity."""
    cells, values = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
    right, error = np.ascontiguousarray(centroids.T), np.float32(product_error(vectors.shape[1]))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        products = block @ right
        rows, near = np.nonzero(products >= products.max(axis=1, keepdims=True) - 2 * error)
        exact = inner_products(block[rows], centroids[near])
        order = np.lexsort((near, -exact, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        cells[start : start + len(block)], values[start : start + len(block)] = near[first], exact[first]
    return cells, values


def open_cells(path: Path, vectors: np.ndarray, num_probed: int, recall: float) -> Cells:
    """Open the file that `build_cells` wrote for `vectors`; its lists stay on disk until they are searched."""
    faiss = _faiss()
    return Cells(faiss.read_index(str(path), faiss.IO_FLAG_MMAP), vectors, num_probed, recall, path)


def write_flat(vectors: np.ndarray, path: Path) -> None:
    """Write vectors as a faiss file: exact search by inner product; ids are row numbers."""
    faiss = _faiss()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], np.float32)
        index.add_with_ids(block, np.arange(start, start + len(block)))
    faiss.write_index(index, str(path))


def write_probed(cells: Cells, path: Path) -> None:
    """Write an inverted file that probes as many cells as its recall needs; ids are row numbers.

    The file is read into memory, because faiss saves lists that stay on disk by their position only.
    """
    faiss = _faiss()
    index = faiss.read_index(str(cells.path))
    index.nprobe = cells.num_probed
    faiss.write_index(index, str(path))


def _faiss() -> Any:
    import faiss  # 0.1 s; must follow TensorFlow, with whose threads it would clash

    return faiss
