"""Nearest vectors by exact search, block by block, which reads every vector once for all queries of a call."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.determinism import inner_products, one_blas_thread, product_error
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

Nearest = tuple[np.ndarray, np.ndarray]
"""Similarities or products, and rows."""


def nearest(vectors: VectorRows, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> Nearest:
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
    num_queries, _, dim = queries.shape
    values, rows = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
    error = product_error(dim)
    waiting, most = np.arange(num_queries if count else 0), count + _SPARE
    while len(waiting):
        products, at = _proposed(vectors, queries[waiting], most, among)
        near = (at != _NO_ROW) & (products >= products[:, [count - 1]] - 2 * error)
        complete = ~near[:, -1]  # all other vectors are too far away
        done, candidates, near = waiting[complete], at[complete], near[complete]
        similarities = np.full(candidates.shape, -np.inf, np.float32)
        similarities[near] = _similarities(vectors, candidates[near], queries, done[np.nonzero(near)[0]])
        candidates[~near] = _NO_ROW
        values[done], rows[done] = _sorted(similarities, candidates, count)
        waiting, most = waiting[~complete], _MORE * most
    return values, rows


def _proposed(vectors: VectorRows, queries: np.ndarray, most: int, among: np.ndarray | None) -> Nearest:
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


def _sorted(similarities: np.ndarray, rows: np.ndarray, count: int) -> Nearest:
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
