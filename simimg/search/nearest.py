"""The nearest vectors: exact, block by block, up to 200,000 of them; faiss's inverted lists beyond.

Exact search reads every vector once for all queries of a call, at the speed of memory. Beyond `EXACT_UP_TO` an inverted
file is built beside the vectors (Sivic and Zisserman, ICCV 2003; faiss's IndexIVFFlat): vectors are sorted into cells,
and a query is compared with those of the nearest cells only. How many cells are probed is measured, not guessed: as few
as have the true nearest ten 99 times of 100 on the vectors themselves, and that share is stored and shown.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["EXACT_UP_TO", "Cells", "build_cells", "nearest", "open_cells", "write_flat", "write_probed"]

EXACT_UP_TO = 200_000
"""Vectors: 512 MB of 512 numbers, read in 60 ms by two cores, which is less than embedding the query takes."""

_BLOCK_ROWS = 65_536  # 128 MB of 512 numbers
_TRAINING_A_CELL = 64  # faiss warns below 39
_WANTED_RECALL = 0.99
_PROBED_QUERIES = 200


def nearest(
    vectors: np.ndarray, queries: np.ndarray, k: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `k` nearest vectors of each query, best first; equal ones in the order of their rows.

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
    best, rows = np.zeros((num_queries, 0), np.float32), np.zeros((num_queries, 0), np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[start : start + _BLOCK_ROWS])
        numbers = np.arange(start, start + len(block))
        if among is not None:
            there = among[start : start + len(block)]
            block, numbers = block[there], numbers[there]
            if not len(block):
                continue
        similarities = (queries.reshape(-1, dim) @ block.T).reshape(num_queries, num_views, -1).max(axis=1)
        found = np.broadcast_to(numbers, similarities.shape)
        if similarities.shape[1] > count:
            kept = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
            similarities, found = np.take_along_axis(similarities, kept, 1), np.take_along_axis(found, kept, 1)
        best, rows = _merged(best, rows, similarities, found, count)
    return best, rows


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
    for start in range(0, num_vectors, _BLOCK_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS]))
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


def _merged(
    best: np.ndarray, rows: np.ndarray, values: np.ndarray, found: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    best, rows = np.concatenate([best, values], axis=1), np.concatenate([rows, found], axis=1)
    order = np.lexsort((rows, -best), axis=1)[:, :count]
    return np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
