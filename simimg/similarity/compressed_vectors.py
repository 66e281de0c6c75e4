"""The vectors of an index beyond 200,000 images with two bits per number: all are looked at, and the best compared.

A number is rounded to one of four levels around the mean of its dimension, so that nothing has to be trained, and no
vector sorted into a cell. faiss adds the squared distances of two numbers at a time by tables that fit into the
registers of a processor ("fast scan": André, Kermarrec and Le Scouarnec, VLDB 2015): a million vectors of 256 numbers
take 3.5 ms per query, in calls of many. The vectors that are the nearest by their codes are compared exactly, and
these are read from the vectors on disk. So a search takes a sixteenth of the memory of the vectors.

How many vectors are compared is measured when the file is built: as many as find 99 % of the true ten nearest. The
measured recall is stored and shown. A search among at most `EXACT_UP_TO` given vectors is exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from simimg.similarity.nearest_neighbors import EXACT_UP_TO, Nearest, nearest
from simimg.similarity.vector_rows import ChosenRows
from tfrecords.machine_limits import num_cores

# The best four levels for numbers with a normal distribution, and the border between two of them, in standard
# deviations: Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6, 1960, table I.
_LEVELS, _BORDER = (-1.510, -0.4528, 0.4528, 1.510), 0.9816
_SAMPLED = 65_536  # vectors, for means and deviations
_UNIT = 2.0**15  # of a coordinate in sums; squares of 65,536 coordinates fit into int64
_CODED_ROWS = 16_384  # at a time
_TRUE_NEAREST, _WANTED_RECALL = 10, 0.99
_MEASURED_QUERIES = 200
_LEAST_COMPARED, _MOST_COMPARED = 100, 2_000  # the least: queries may be harder than the images that are measured
_COMPARED_PER_WANTED = 4  # if more than 25 are wanted
_SPARE, _MORE = 16, 4  # rows that are proposed in addition to a quarter, and the factor if they do not suffice
_EXACT_SHARE = 4  # if a quarter of all vectors would be proposed, all are compared


@dataclasses.dataclass(frozen=True)
class CompressedVectors:
    """Vectors with two bits per number, beside the vectors themselves.

    Attributes:
        faiss_index: faiss's index, in memory: an IndexPQFastScan; of an earlier version, inverted lists on disk.
        vectors: float32 `[num_vectors, dim]`, the vectors in it.
        num_compared: number of vectors that are compared exactly, at least: the nearest by their codes.
        recall: the measured share of the true ten nearest that this finds.
        path: its file.
    """

    faiss_index: Any
    vectors: np.ndarray
    num_compared: int
    recall: float
    path: Path

    def nearest(self, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> Nearest:
        """Do the same as `nearest_neighbors.nearest`, among the vectors that are the nearest by their codes.

        Among at most `EXACT_UP_TO` vectors, the search is exact.
        """
        num_queries, num_vectors = len(queries), len(self.vectors)
        queries = np.ascontiguousarray(queries, np.float32)
        num_searched = num_vectors if among is None else int(among.sum())
        count = min(k, num_searched)
        wanted = min(max(self.num_compared, _COMPARED_PER_WANTED * count), num_searched)
        best, found = np.zeros((num_queries, count), np.float32), np.zeros((num_queries, count), np.int64)
        waiting, most = np.arange(num_queries if count else 0), 0
        if count:  # rows that are not searched are proposed, too
            most = math.ceil((wanted + wanted // 4 + _SPARE) * num_vectors / num_searched)
        few = among is not None and num_searched <= EXACT_UP_TO
        while len(waiting):
            if few or most > num_vectors // _EXACT_SHARE:
                best[waiting], found[waiting] = nearest(self.vectors, queries[waiting], count, among)
                break
            lacking = []
            for query, (distances, rows) in zip(waiting.tolist(), self._proposed(queries[waiting], most), strict=True):
                if among is not None:
                    distances, rows = distances[among[rows]], rows[among[rows]]
                if len(rows) < wanted:
                    lacking.append(query)
                    continue
                rows = np.sort(rows[distances <= distances[wanted - 1]])
                best[query], places = nearest(ChosenRows(self.vectors, rows), queries[[query]], count)
                found[query] = rows[places]
            waiting, most = np.array(lacking, np.int64), _MORE * most
        return best, found

    def _proposed(self, queries: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each query, `[num_views, dim]`, estimated squared distances in order, and rows.

        The rows are those of at most `most` per view, without the last ones that are equally near: faiss returns any of
        these. So there is no row that is not proposed and as near as one that is.
        """
        faiss = _faiss()
        num_queries, num_views, dim = queries.shape
        distances, rows = self.faiss_index.search(queries.reshape(-1, dim), most)
        if self.faiss_index.metric_type == faiss.METRIC_INNER_PRODUCT:  # of an earlier version
            distances = -distances
        complete = rows >= 0  # inverted lists have too few
        if most < len(self.vectors):
            complete &= distances < distances.max(axis=1, keepdims=True)
        shape = (num_queries, num_views * most)
        for near, at, kept in zip(*(array.reshape(shape) for array in (distances, rows, complete)), strict=True):
            order = np.lexsort((at[kept], near[kept]))
            near, at = near[kept][order], at[kept][order]
            _, firsts = np.unique(at, return_index=True)  # of several views
            firsts.sort()
            yield near[firsts], at[firsts]


def build_compressed(vectors: np.ndarray, path: Path) -> CompressedVectors:
    """Write vectors, float32 `[num_vectors, dim]` of L2 norm 1, with two bits per number, and measure the search."""
    faiss = _faiss()
    num_vectors, dim = vectors.shape
    rng = np.random.default_rng(0)
    mean, deviation = _statistics(np.asarray(vectors[np.sort(rng.permutation(num_vectors)[:_SAMPLED])]))
    together = 2 - dim % 2  # numbers in a code of four bits
    whole = faiss.IndexPQ(dim, dim // together, 4, faiss.METRIC_L2)
    levels = (mean[:, None] + deviation[:, None] * np.array(_LEVELS)).reshape(-1, together, 4)
    digits = np.stack([np.arange(16) % 4, np.arange(16) // 4])[:together]
    tables = np.stack([levels[:, place, digits[place]] for place in range(together)], axis=-1)
    faiss.copy_array_to_vector(tables.astype(np.float32).ravel(), whole.pq.centroids)
    whole.is_trained = True
    borders = (mean + deviation * np.array([-_BORDER, 0, _BORDER])[:, None]).astype(np.float32)

    def coded(start: int) -> np.ndarray:
        return _coded(np.asarray(vectors[start : start + _CODED_ROWS]), borders, together)

    with ThreadPoolExecutor(num_cores()) as threads:
        for codes in threads.map(coded, range(0, num_vectors, _CODED_ROWS)):
            whole.add_sa_codes(codes)
    index = faiss.IndexPQFastScan(whole)
    del whole
    faiss.write_index(index, str(path))
    return _measured(CompressedVectors(index, vectors, 1, 0.0, path), rng)


def _statistics(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each dimension, float64 `[dim]`, by sums of integers, which are exact."""
    units = np.rint(sample * np.float32(_UNIT)).astype(np.int64)
    mean = units.sum(axis=0) / len(units)
    variance = (units * units).sum(axis=0) / len(units) - mean * mean
    return mean / _UNIT, np.sqrt(np.maximum(variance, 0.0)) / _UNIT


def _coded(block: np.ndarray, borders: np.ndarray, together: int) -> np.ndarray:
    """Return the codes of a block of vectors as faiss stores them, uint8 `[num_rows, num_bytes]`: low bits first."""
    codes = (block > borders[0]).view(np.uint8)
    for border in borders[1:]:
        codes += block > border
    if together == 2:
        codes = codes[:, ::2] | codes[:, 1::2] << 2
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return codes[:, ::2] | codes[:, 1::2] << 4


def _measured(built: CompressedVectors, rng: np.random.Generator) -> CompressedVectors:
    """Choose how many vectors are compared, so that `_WANTED_RECALL` of the true ten nearest of some vectors are.

    This takes one pass over the vectors and one over the codes, whatever their number.
    """
    num_vectors = len(built.vectors)
    queries = np.asarray(built.vectors[np.sort(rng.permutation(num_vectors)[:_MEASURED_QUERIES])])[:, None]
    exact = nearest(built.vectors, queries, _TRUE_NEAREST + 1)[1][:, 1:]  # without the vector itself
    places = np.full(exact.shape, num_vectors)  # among those that are compared
    for query, (distances, rows) in enumerate(built._proposed(queries, min(_MOST_COMPARED, num_vectors))):
        _, at, true = np.intersect1d(rows, exact[query], return_indices=True)
        places[query, true] = np.searchsorted(distances, distances[at], side="right") - 1
    wanted = np.sort(places, axis=None)[math.ceil(_WANTED_RECALL * places.size) - 1] + 1 if places.size else 1
    num_compared = int(np.clip(wanted, _LEAST_COMPARED, _MOST_COMPARED))
    recall = float((places < num_compared).mean()) if places.size else 1.0
    return dataclasses.replace(built, num_compared=num_compared, recall=recall)


def open_compressed(path: Path, vectors: np.ndarray, measured: Mapping[str, float]) -> CompressedVectors:
    """Open the file that `build_compressed` wrote for `vectors`.

    `measured` has the numbers of `CompressedVectors`: `num_compared` and `recall`. In an index of an earlier version,
    which has inverted lists, it also has `num_probed`; the lists stay on disk until they are searched. If they have
    whole vectors, `num_compared` is absent.
    """
    faiss = _faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    if "num_probed" in measured:
        index.nprobe = int(measured["num_probed"])
    return CompressedVectors(index, vectors, int(measured.get("num_compared", 0)), measured["recall"], path)


def write_flat(vectors: np.ndarray, path: Path) -> None:
    """Write vectors as a faiss file: exact search by inner product; ids are row numbers."""
    faiss = _faiss()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    for start in range(0, len(vectors), _CODED_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _CODED_ROWS], np.float32)
        index.add_with_ids(block, np.arange(start, start + len(block)))
    faiss.write_index(index, str(path))


def write_refined(compressed: CompressedVectors, path: Path) -> None:
    """Write compressed vectors and the vectors themselves as faiss's IndexRefineFlat, which searches them alike.

    It gives inner products; ids are rows. All is read into memory, because faiss saves lists that stay on disk by
    their position only.
    """
    faiss = _faiss()
    index = faiss.read_index(str(compressed.path))
    if isinstance(index, faiss.IndexIVF):  # of an earlier version
        index.nprobe = compressed.faiss_index.nprobe
    refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(compressed.vectors))
    whole = faiss.downcast_index(refined.refine_index)
    refined.metric_type = whole.metric_type = faiss.METRIC_INNER_PRODUCT
    refined.k_factor = -(-max(compressed.num_compared, 1) // _TRUE_NEAREST)
    faiss.write_index(refined, str(path))


def _faiss() -> Any:
    import faiss  # 0.1 s; must follow TensorFlow, with whose threads it would clash

    return faiss
