"""The inverted file of an index beyond 200,000 vectors: cells of vectors with one bit per number.

Vectors are sorted into cells (Sivic and Zisserman, ICCV 2003), and each is stored as the signs of its difference to the
center of its cell (RaBitQ: Gao and Long, SIGMOD 2024; faiss's IndexIVFRaBitQ). A query looks at the bits in the nearest
cells, and is compared exactly with the vectors that are the nearest by their bits. These are read from the vectors on
disk. So a search takes a fraction of the memory of the vectors.

How many cells are probed and how many vectors are compared is measured when the file is built: as many as find 99 % of
the true ten nearest. The measured recall is stored and shown. A search among at most `EXACT_UP_TO` given vectors is
exact: their nearest may lie in any cell.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from simimg.determinism import inner_products, one_blas_thread, ordered_sum
from simimg.similarity.nearest_neighbors import EXACT_UP_TO, Nearest, nearest
from simimg.similarity.vector_rows import ChosenRows
from tfrecords.machine_limits import num_cores

_NUM_CELLS = 1024  # more make the build longer, and the search shorter only if few cells are probed
_ADDED_ROWS, _DIVIDED_ROWS = 16_384, 2_048  # at a time; the latter, with the centers, fit into the cache of a core
_TRAINING_PER_CELL = 64  # faiss warns below 39
_FITTING_ROUNDS = 10  # as in faiss for an inverted file
_CENTROID_UNIT = 2.0**30  # resolution of a coordinate; near 1, that of float32 is coarser
_QUERY_BITS = 8  # per number of a query
_TRUE_NEAREST = 10
_RECALL_OF_CELLS, _WANTED_RECALL = 0.995, 0.99
_MEASURED_QUERIES = 200
_MOST_COMPARED = 2_000
_COMPARED_PER_WANTED = 4  # if more than ten are wanted


@dataclasses.dataclass(frozen=True)
class Cells:
    """An inverted file of vectors, each as one bit per number.

    Attributes:
        faiss_index: faiss's index.
        vectors: float32 `[num_vectors, dim]`, the vectors in it.
        num_probed: number of cells that are searched for a query.
        num_compared: number of vectors that are compared exactly, at least: the nearest by their bits.
        recall: the measured share of the true ten nearest that this finds.
        path: its file.
    """

    faiss_index: Any
    vectors: np.ndarray
    num_probed: int
    num_compared: int
    recall: float
    path: Path

    def nearest(self, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> Nearest:
        """Do the same as `nearest_neighbors.nearest` in the probed cells, and in more if they hold too few vectors.

        Among at most `EXACT_UP_TO` vectors, the search is exact.
        """
        if among is not None and among.sum() <= EXACT_UP_TO:
            return nearest(self.vectors, queries, k, among)
        num_queries = len(queries)
        queries = np.ascontiguousarray(queries, np.float32)
        count = min(k, len(self.vectors) if among is None else int(among.sum()))
        best, found = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
        waiting, num_probed = np.arange(num_queries if count else 0), self.num_probed
        while len(waiting):
            most = min(max(self.num_compared, _COMPARED_PER_WANTED * count), len(self.vectors))
            proposed, lacking = self._proposed(queries[waiting], most, num_probed, among), []
            for query, rows in zip(waiting.tolist(), proposed, strict=True):
                if len(rows) < count:
                    lacking.append(query)
                    continue
                rows.sort()
                best[query], places = nearest(ChosenRows(self.vectors, rows), queries[[query]], count)
                found[query] = rows[places]
            waiting, num_probed = np.array(lacking, np.int64), min(2 * num_probed, self.faiss_index.nlist)
        return best, found

    def _proposed(
        self, queries: np.ndarray, most: int, num_probed: int, among: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Yield for each query, `[num_views, dim]`, at most `most` rows that are the nearest by their bits, in order.

        Rows are searched in the nearest cells of each view. faiss estimates the squared distance of each vector from
        one bit per number of its difference to the center of its cell (RaBitQ: Gao and Long, SIGMOD 2024).
        """
        faiss = _faiss()
        num_queries, _, dim = queries.shape
        flat = queries.reshape(-1, dim)
        chosen = {} if among is None else {"sel": faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))}
        probed = self._probed(flat, num_probed)
        parameters = faiss.IVFRaBitQSearchParameters(nprobe=probed.shape[1], qb=_QUERY_BITS, **chosen)
        unused = np.zeros(probed.shape, np.float32)  # distances to the centers; faiss has bare pointers to all of these
        values, rows = (np.empty((len(flat), most), dtype) for dtype in (np.float32, np.int64))
        self.faiss_index.search_preassigned_c(
            len(flat), faiss.swig_ptr(flat), most, faiss.swig_ptr(probed), faiss.swig_ptr(unused),
            faiss.swig_ptr(values), faiss.swig_ptr(rows), False, parameters,
        )  # fmt: skip
        if self.faiss_index.metric_type == faiss.METRIC_INNER_PRODUCT:  # whole vectors, of an earlier version
            values = -values
        for distances, near in zip(values.reshape(num_queries, -1), rows.reshape(num_queries, -1), strict=True):
            order = np.lexsort((near, distances))
            nearest_first = near[order][near[order] >= 0]
            _, firsts = np.unique(nearest_first, return_index=True)  # of several views
            yield nearest_first[np.sort(firsts)[:most]]

    def _probed(self, queries: np.ndarray, num_probed: int) -> np.ndarray:
        """Return the nearest cells of each query, `[num_queries, dim]`, int64 `[num_queries, num_probed]` in order."""
        products = _rounded(queries) @ self._centroids
        return np.ascontiguousarray(np.argsort(-products, axis=1, kind="stable")[:, :num_probed])

    @functools.cached_property
    def _centroids(self) -> np.ndarray:
        return np.ascontiguousarray(_rounded(self.faiss_index.quantizer.reconstruct_n(0, self.faiss_index.nlist)).T)


def build_cells(vectors: np.ndarray, path: Path) -> Cells:
    """Build an inverted file of vectors, float32 `[num_vectors, dim]` of L2 norm 1, measure it and write it."""
    faiss = _faiss()
    num_vectors, dim = vectors.shape
    num_cells = max(1, min(_NUM_CELLS, int(4 * math.sqrt(num_vectors))))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(num_vectors)[: num_cells * _TRAINING_PER_CELL])
    centroids = _fitted_centroids(np.asarray(vectors[sample]), num_cells)
    index = faiss.IndexIVFRaBitQ(faiss.IndexFlatL2(dim), dim, num_cells, faiss.METRIC_L2)
    index.quantizer.add(centroids)
    index.is_trained = True
    cells = _divided(vectors, centroids)
    for start in range(0, num_vectors, _ADDED_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _ADDED_ROWS])
        own = cells[start : start + _ADDED_ROWS]
        index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(own))
    faiss.write_index(index, str(path))
    return _measured(Cells(index, vectors, 1, 1, 0.0, path), cells, rng)


def _measured(built: Cells, cells: np.ndarray, rng: np.random.Generator) -> Cells:
    """Choose how many cells are probed and how many vectors are compared, by the true ten nearest of some vectors.

    The probed cells have to contain `_RECALL_OF_CELLS` of them, and those that are compared `_WANTED_RECALL`. `cells`,
    int64 `[num_vectors]`, has the cell of each vector.
    """
    num_vectors, num_cells = len(cells), built.faiss_index.nlist
    queries = built.vectors[np.sort(rng.permutation(num_vectors)[:_MEASURED_QUERIES])][:, None]
    exact = nearest(built.vectors, queries, _TRUE_NEAREST + 1)[1][:, 1:]  # without the vector itself
    ranks = np.take_along_axis(np.argsort(built._probed(queries[:, 0], num_cells), axis=1), cells[exact], axis=1)
    num_probed = 1 + _quantile(ranks, _RECALL_OF_CELLS)
    places = np.full(exact.shape, num_vectors)  # among those that are compared
    for query, rows in enumerate(built._proposed(queries, min(_MOST_COMPARED, num_vectors), num_probed)):
        _, at, true = np.intersect1d(rows, exact[query], return_indices=True)
        places[query, true] = at
    num_compared = 1 + min(_quantile(places, _WANTED_RECALL), _MOST_COMPARED - 1)
    recall = float((places < num_compared).mean())
    return dataclasses.replace(built, num_probed=num_probed, num_compared=num_compared, recall=recall)


def _quantile(values: np.ndarray, share: float) -> int:
    """Return the smallest number that at least this share of the values does not exceed; 0 for no values."""
    ascending = np.sort(values, axis=None)
    return int(ascending[math.ceil(share * len(ascending)) - 1]) if len(ascending) else 0


def _fitted_centroids(sample: np.ndarray, num_cells: int) -> np.ndarray:
    """Fit centroids of L2 norm 1, float32 `[num_cells, dim]`, by spherical k-means (Dhillon and Modha, 2001).

    faiss's own k-means adds by BLAS, and so divides the vectors differently on another processor.
    """
    from scipy.sparse import csr_array  # 0.1 s, which an exact search should not wait for

    count, dim = sample.shape
    centroids = sample[np.random.default_rng(0).permutation(count)[:num_cells]]
    for _ in range(_FITTING_ROUNDS):
        cells, integers = _divided(sample, centroids), np.zeros((num_cells, dim), np.int64)
        for start in range(0, count, _ADDED_ROWS):
            block, own = sample[start : start + _ADDED_ROWS], cells[start : start + _ADDED_ROWS]
            members = csr_array((np.ones(len(block), np.int64), (own, np.arange(len(block)))), (num_cells, len(block)))
            integers += members @ np.rint(block * _CENTROID_UNIT).astype(np.int64)  # sums of integers are exact
        sums = integers.astype(np.float64)
        empty = np.flatnonzero(np.bincount(cells, minlength=num_cells) == 0)
        if len(empty):
            values = inner_products(sample, centroids[cells])
            sums[empty] = sample[np.argsort(values, kind="stable")[: len(empty)]]  # the worst represented
        lengths = np.sqrt(ordered_sum(sums * sums))[:, None]
        centroids = (sums / np.maximum(lengths, 1e-12)).astype(np.float32)
    return centroids


def _divided(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of each vector, int64 `[num_vectors]`, the first of equal ones."""
    right = np.ascontiguousarray(_rounded(centroids).T)

    def nearest_ones(start: int) -> np.ndarray:
        return (_rounded(np.asarray(vectors[start : start + _DIVIDED_ROWS])) @ right).argmax(axis=1)

    with one_blas_thread(), ThreadPoolExecutor(num_cores()) as threads:
        return np.concatenate(list(threads.map(nearest_ones, range(0, len(vectors), _DIVIDED_ROWS))))


def _rounded(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors as integers in float32, whose products are exact in any order of additions.

    No sum of products of two vectors exceeds the product of their lengths (Cauchy and Schwarz), here about 2^22.
    """
    return np.rint(vectors * np.float32(2**11))


def open_cells(path: Path, vectors: np.ndarray, measured: Mapping[str, float]) -> Cells:
    """Open the file that `build_cells` wrote for `vectors`; its lists stay on disk until they are searched.

    `measured` has the numbers of `Cells`: `num_probed`, `num_compared` (not in an index of an earlier version, whose
    lists have whole vectors) and `recall`.
    """
    faiss = _faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    num_compared = int(measured.get("num_compared", 0))
    return Cells(index, vectors, int(measured["num_probed"]), num_compared, measured["recall"], path)


def write_flat(vectors: np.ndarray, path: Path) -> None:
    """Write vectors as a faiss file: exact search by inner product; ids are row numbers."""
    faiss = _faiss()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    for start in range(0, len(vectors), _ADDED_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _ADDED_ROWS], np.float32)
        index.add_with_ids(block, np.arange(start, start + len(block)))
    faiss.write_index(index, str(path))


def write_probed(cells: Cells, path: Path) -> None:
    """Write an inverted file and its vectors as faiss's IndexRefineFlat, which searches as `cells` do.

    It gives inner products; ids are rows. Lists of whole vectors, of an index of an earlier version, need no others.
    All is read into memory, because faiss saves lists that stay on disk by their position only.
    """
    faiss = _faiss()
    index = faiss.read_index(str(cells.path))
    index.nprobe = cells.num_probed
    if not cells.num_compared:
        faiss.write_index(index, str(path))
        return
    index.qb = _QUERY_BITS
    refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(cells.vectors))
    whole = faiss.downcast_index(refined.refine_index)
    refined.metric_type = whole.metric_type = faiss.METRIC_INNER_PRODUCT
    refined.k_factor = -(-cells.num_compared // _TRUE_NEAREST)
    faiss.write_index(refined, str(path))


def _faiss() -> Any:
    import faiss  # 0.1 s; must follow TensorFlow, with whose threads it would clash

    return faiss
