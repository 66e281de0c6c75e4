"""The nearest vectors: exact, block by block, up to 200,000 of them; faiss's inverted lists beyond.

Exact search reads every vector once for all queries of a call, at the speed of memory. Beyond `EXACT_UP_TO` an inverted
file is built beside the vectors (Sivic and Zisserman, ICCV 2003; faiss's IndexIVFFlat): vectors are sorted into cells,
and a query is compared with those of the nearest cells only. How many cells are probed is measured, not guessed: as few
as have the true nearest ten 99 times of 100 on the vectors themselves, and that share is stored and shown.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from simimg.determinism import inner_products, one_blas_thread, ordered_sum, product_error
from tfrecords.convert.workers.pool import num_cores

__all__ = ["EXACT_UP_TO", "Cells", "build_cells", "nearest", "open_cells", "write_flat", "write_probed"]

EXACT_UP_TO = 200_000
"""Vectors: 512 MB of 512 numbers, read in 60 ms by two cores, which is less than embedding the query takes."""

_BLOCK_ROWS, _BLOCK_VALUES = 4096, 1 << 19  # rows, and similarities, that are dealt with at a time: 2 MB of either
_FEW = 6  # queries: their products are dot products, which read memory 2.5 times as fast as matrix-vector products
# Rows of a product of matrices. OpenBLAS multiplies matrices of up to a million products without packing them first,
# which costs more than the products of some dozens of queries: half of the time of 16.
_SMALL_ROWS, _SMALL_PRODUCT = (128, 64, 32), 1_000_000
_MANY = 8  # times what is wanted
_FEW_CHOSEN = 8  # a part of the vectors that is copied out: an eighth, or less
_SPARE, _MORE = 4, 8  # rows that are proposed beyond those that are wanted; times as many where they may not suffice
_NO_ROW = np.iinfo(np.int64).max  # after all others
_ADDED_ROWS = 65_536  # to faiss's lists at a time
_TRAINING_PER_CELL = 64  # faiss warns below 39
_FITTING_ROUNDS = 10  # as faiss does for an inverted file
_CENTROID_UNIT = 2.0**30  # a step of a coordinate: float32 has no finer one near 1
_WANTED_RECALL = 0.99
_PROBED_QUERIES = 200


def nearest(
    vectors: np.ndarray, queries: np.ndarray, k: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `k` nearest vectors of each query, best first; equal ones in the order of their rows.

    BLAS proposes: whatever may be among the nearest, its error being what it is. The proposals are compared by
    `inner_products`. So the answer is the same on any processor, for any number of threads, and whatever else is asked
    in the same call.

    Args:
        vectors: float32 `[num_vectors, dim]` of L2 norm 1, perhaps mapped from a file.
        queries: float32 `[num_queries, num_views, dim]` of L2 norm 1; the view that is closest to a vector counts.
        k: at least 1; fewer are returned where there are fewer vectors.
        among: bool `[num_vectors]`, which vectors are looked at; by default all.

    Returns:
        Inner products float32 and rows int64, both `[num_queries, min(k, vectors that are looked at)]`.
    """
    if among is not None and 0 < (num_chosen := int(among.sum())) <= len(vectors) // _FEW_CHOSEN:
        chosen = np.flatnonzero(among)
        values, rows = nearest(vectors[chosen], queries, k)
        return values, chosen[rows]
    num_queries, _, dim = queries.shape
    count = min(k, len(vectors) if among is None else num_chosen)
    values, rows = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
    queries = np.ascontiguousarray(queries, np.float32)
    error = product_error(dim)
    waiting, most = np.arange(num_queries if count else 0), count + _SPARE
    while len(waiting):
        proposed, at = _proposed(vectors, queries[waiting], most, among)
        near = proposed >= proposed[:, [count - 1]] - 2 * error
        complete = ~near[:, -1] | (at[:, -1] == _NO_ROW)  # whatever is not proposed is too far to count
        done, columns = np.nonzero(near & complete[:, None])
        if len(done):
            asked, candidates = waiting[done], at[done, columns]
            similarities = _similarities(vectors[candidates], queries[asked], error)
            order = np.lexsort((candidates, -similarities, asked))
            firsts = np.flatnonzero(np.diff(asked, prepend=-1))  # whose order the sort has not changed
            best = order[firsts[:, None] + np.arange(count)]
            values[asked[firsts]], rows[asked[firsts]] = similarities[best], candidates[best]
        waiting, most = waiting[~complete], _MORE * most
    return values, rows


def _proposed(
    vectors: np.ndarray, queries: np.ndarray, most: int, among: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What BLAS takes for the `most` nearest of each query, best first: products and rows, `[num_queries, most]`.

    Where there are fewer vectors, the last products are -inf and the last rows `_NO_ROW`. Blocks of vectors are shared
    among as many threads as cores.
    """
    num_queries, num_views, dim = queries.shape
    flat = queries.reshape(-1, dim)
    most_rows = _BLOCK_VALUES // max(1, len(flat))
    block_rows = min(_BLOCK_ROWS, max(1, most_rows // _SMALL_ROWS[0]) * _SMALL_ROWS[0])
    starts = iter(range(0, len(vectors), block_rows))  # each is taken by one thread: next() is atomic

    def search(_: int) -> _Best:
        best = _Best(num_queries, most)
        for start in starts:
            block = np.asarray(vectors[start : start + block_rows])
            products = _products(block, flat)
            if num_views > 1:  # put in columns first, as a maximum of neighbours is three times as slow
                columns = np.ascontiguousarray(products.reshape(-1, num_views).T)
                products = columns.max(axis=0).reshape(len(block), num_queries)
            if among is not None:
                products[~among[start : start + block_rows]] = -np.inf
            best.add(products, start)
        return best

    num_threads = min(num_cores(), -(-len(vectors) // block_rows))
    with one_blas_thread():
        if num_threads < 2:
            parts = [search(0)]
        else:
            with ThreadPoolExecutor(num_threads) as executor:
                parts = list(executor.map(search, range(num_threads)))
    values = np.concatenate([part.values for part in parts], axis=1)
    rows = np.concatenate([part.rows for part in parts], axis=1)
    order = np.lexsort((rows, -values), axis=1)[:, :most]
    return np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)


def _products(block: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The inner products of a block's rows and queries, float32 `[num_rows, num_queries]`, at the speed of memory."""
    num_rows, dim = block.shape
    num_queries = len(queries)
    if num_queries <= _FEW:
        return np.vecdot(block[:, None], queries)
    right = np.ascontiguousarray(queries.T)  # as a view it is multiplied at half the speed
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


def _similarities(vectors: np.ndarray, queries: np.ndarray, error: float) -> np.ndarray:
    """The similarity of each vector and the closest view of its query: float32 `[n]`.

    Args:
        vectors: float32 `[n, dim]`.
        queries: float32 `[n, num_views, dim]`.
        error: of a product of BLAS.
    """
    if queries.shape[1] == 1:
        return inner_products(vectors, queries[:, 0])
    products = np.vecdot(vectors[:, None], queries)
    rows, closest = np.nonzero(products >= products.max(axis=1, keepdims=True) - 2 * error)  # mostly one per vector
    similarities = np.full(len(vectors), -np.inf, np.float32)
    np.maximum.at(similarities, rows, inner_products(vectors[rows], queries[rows, closest]))
    return similarities


def _sorted(similarities: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best, best first; equal ones in the order of their rows."""
    kept = np.lexsort((rows, -similarities))[:count]
    return similarities[kept], rows[kept]


class _Best:
    """The best products that one thread has found: values and rows `[num_queries, most]`; blocks come in their order.

    What is not above the worst that a query has is passed over at once: of a million vectors in blocks of thousands,
    all but some dozens per query.
    """

    def __init__(self, num_queries: int, most: int) -> None:
        self.values = np.full((num_queries, most), -np.inf, np.float32)
        self.rows = np.full((num_queries, most), _NO_ROW, np.int64)

    def add(self, products: np.ndarray, start: int) -> None:
        """Takes in a block, `[num_rows, num_queries]`, whose first row is `start`."""
        num_rows, num_queries = products.shape
        most = self.values.shape[1]
        found = np.flatnonzero(products > self.values[:, -1])
        if len(found) > _MANY * most * num_queries and num_rows > most:
            # The first block, mostly. Its own best say first what can count at all.
            least = np.partition(products, num_rows - most, axis=0)[num_rows - most]
            found = np.flatnonzero(products >= np.maximum(least, np.nextafter(self.values[:, -1], np.inf)))
        rows, queries = np.divmod(found, num_queries)
        values = products.ravel()[found]
        order = np.argsort(queries, kind="stable")
        ends = np.cumsum(np.bincount(queries, minlength=num_queries))
        for query in np.unique(queries):
            some = order[ends[query - 1] if query else 0 : ends[query]]
            better = np.concatenate([self.values[query], values[some]])
            at = np.concatenate([self.rows[query], rows[some] + start])
            self.values[query], self.rows[query] = _sorted(better, at, most)


@dataclasses.dataclass(frozen=True)
class Cells:
    """An inverted file over vectors.

    Attributes:
        faiss_index: faiss's.
        vectors: float32 `[num_vectors, dim]`, those that are in it.
        num_probed: cells that a query looks into.
        recall: the share of the true nearest ten that it finds so, measured.
        path: its file.
    """

    faiss_index: Any
    vectors: np.ndarray
    num_probed: int
    recall: float
    path: Path

    def nearest(self, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest` above, among the vectors of the probed cells; more cells are probed where they hold too few."""
        num_queries, num_views, dim = queries.shape
        queries = np.ascontiguousarray(queries, np.float32)
        count = min(k, len(self.vectors) if among is None else int(among.sum()))
        best, found = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
        waiting, num_probed = np.arange(num_queries if count else 0), self.num_probed
        while len(waiting):
            nearest_rows = self._nearest_rows(queries[waiting].reshape(-1, dim), count, num_probed, among)
            lacking = []
            for place, query in enumerate(waiting.tolist()):
                rows = np.unique(np.concatenate(nearest_rows[place * num_views : (place + 1) * num_views]))
                if len(rows) < count:
                    lacking.append(query)
                    continue
                views = np.broadcast_to(queries[query], (len(rows), num_views, dim))
                similarities = _similarities(self.vectors[rows], views, product_error(dim))
                best[query], found[query] = _sorted(similarities, rows, count)
            waiting, num_probed = np.array(lacking, np.int64), min(2 * num_probed, self.faiss_index.nlist)
        return best, found

    def _nearest_rows(
        self, queries: np.ndarray, count: int, num_probed: int, among: np.ndarray | None
    ) -> list[np.ndarray]:
        """Rows of the `count` nearest, or fewer, of each query, `[num_queries, dim]`, in the cells nearest to it.

        faiss proposes some more, and still more where the last one that it proposes may count.
        """
        faiss = _faiss()
        chosen = {} if among is None else {"sel": faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))}
        parameters = faiss.SearchParametersIVF(nprobe=num_probed, **chosen)
        _, cells = nearest(self._centroids, queries[:, None], num_probed)
        dim = queries.shape[1]
        error = product_error(dim)
        found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(queries)
        waiting, most = np.arange(len(queries)), count + _SPARE
        while len(waiting):
            values, rows = (np.empty((len(waiting), most), dtype) for dtype in (np.float32, np.int64))
            some, probed = queries[waiting], cells[waiting]
            self.faiss_index.search_preassigned_c(
                len(some), faiss.swig_ptr(some), most, faiss.swig_ptr(probed),
                faiss.swig_ptr(np.zeros(probed.shape, np.float32)),  # products with the centroids, which are not used
                faiss.swig_ptr(values), faiss.swig_ptr(rows), False, parameters,
            )  # fmt: skip
            near = (rows >= 0) & (values >= values[:, [count - 1]] - 2 * error)
            complete = ~near[:, -1]
            for place in np.flatnonzero(complete):
                at = rows[place][near[place]]
                similarities = inner_products(self.vectors[at], np.broadcast_to(some[place], (len(at), dim)))
                _, found[waiting[place]] = _sorted(similarities, at, count)
            waiting, most = waiting[~complete], _MORE * most
        return found

    @functools.cached_property
    def _centroids(self) -> np.ndarray:
        return self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)


def build_cells(vectors: np.ndarray, path: Path) -> Cells:
    """Builds an inverted file over vectors, measures it and writes it.

    Args:
        vectors: float32 `[num_vectors, dim]` of L2 norm 1.
        path: faiss's file.
    """
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
    num_probed = 1
    while True:
        cells_found = Cells(index, vectors, num_probed, 0.0, path)
        _, found = cells_found.nearest(queries, k)
        hits = sum(len(np.intersect1d(ours, theirs)) for ours, theirs in zip(found, exact, strict=True))
        recall = hits / exact.size
        if recall >= _WANTED_RECALL or num_probed >= num_cells:
            break
        num_probed = min(num_cells, num_probed * 2)
    faiss.write_index(index, str(path))
    return Cells(index, vectors, num_probed, recall, path)


def _fitted_centroids(sample: np.ndarray, num_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Centroids of L2 norm 1, float32 `[num_cells, dim]`, by spherical k-means (Dhillon and Modha, 2001).

    faiss's own k-means adds by BLAS, and so divides the vectors otherwise on another processor.
    """
    count = len(sample)
    # Sums of whole numbers are exact, in any order.
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
    """The nearest centroid of each vector, int64 `[n]`, the first of equal ones, and its similarity, float32 `[n]`."""
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
    """Opens what `build_cells` has written of `vectors`; those in the file stay on disk until they are compared."""
    faiss = _faiss()
    return Cells(faiss.read_index(str(path), faiss.IO_FLAG_MMAP), vectors, num_probed, recall, path)


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
