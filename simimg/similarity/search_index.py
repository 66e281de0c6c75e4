"""The index: embeddings of many pictures on disk.

    <index_dir>/index.json              the model, its fingerprint, how pictures are prepared, and the generation
    <index_dir>/generation-000001/      all that belongs together
        pictures.parquet                a row for each picture: path, sha256, bytes, time, width, height, label
        embeddings.npy                  float16 [num_images, network_dim], as the network gives them, of L2 norm 1
        copy.npz, kind.npz              the projections, see `simimg.similarity.projection`
        copy.npy, kind.npy              float32 [num_images, dim]: projected, mapped into memory when searched
        copy.faiss, kind.faiss          beyond 200,000 pictures, see `simimg.similarity.nearest_neighbors`

A generation is written whole before index.json names it, and the one before is removed after that: whoever is killed
at any moment leaves an index that can be searched.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simimg.errors import DataError, SearchIndexError, UsageError
from simimg.similarity.embeddings import Embedder
from simimg.similarity.image_table import SCHEMA, ImageTable, IndexedImage
from simimg.similarity.nearest_neighbors import EXACT_UP_TO, Cells, build_cells, nearest, open_cells
from simimg.similarity.projection import BY, Projection, fit_projection
from tfrecords.format.atomic_files import TEMPORARY, atomic_folder, read_json, write_json

__all__ = ["INFO_FILE", "ImageTable", "IndexInfo", "IndexedImage", "Match", "SearchIndex", "write_generation"]

INFO_FILE = "index.json"
_FORMAT = "simimg-index/2"
_EMBEDDINGS_FILE = "embeddings.npy"
_PICTURES_FILE = "pictures.parquet"
_PROJECTED_ROWS = 8192
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")  # see `tfrecords.convert.sources.printable`
_ATTEMPTS = 3  # at opening an index that others write: each has the time that a generation takes to make
# What reading a damaged file raises: NumPy's, zip's, faiss's and Arrow's.
_DAMAGE = (
    ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
    pa.ArrowException,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """What index.json says.

    Attributes:
        generation: the number of the generation that counts.
        model: a shipped model's name, or a model folder.
        model_fingerprint: changes with the weights.
        image_size: side in px of the squares that were embedded.
        resize: how pictures became squares.
        num_images: rows.
        image_dir: what paths are relative to; None where the pictures are no files of this machine.
        dataset_dir: the data set whose pictures they are; None for a folder's.
        num_fitted: pictures that the projections were fitted to.
        pixels: what decides the pixels that a data set has stored, as one word; "" where files were embedded.
        cells: how many cells are probed beyond 200,000 pictures, and the recall that was measured, by projection.
        thresholds: by projection, the similarity that `simimg calibrate` has chosen.
    """

    generation: int
    model: str
    model_fingerprint: str
    image_size: int
    resize: str
    num_images: int
    image_dir: str | None
    dataset_dir: str | None
    num_fitted: int
    pixels: str = ""
    cells: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A picture of the index that a query found: its row, itself, and the cosine, higher is closer."""

    row: int
    picture: IndexedImage
    similarity: float


def write_generation(
    index_dir: Path,
    embedder: Embedder,
    embeddings: np.ndarray,
    pictures: Sequence[IndexedImage],
    *,
    image_dir: Path | None,
    dataset_dir: Path | None = None,
    projections: Mapping[str, Projection] | None = None,
    num_fitted: int = 0,
    pixels: str = "",
    thresholds: Mapping[str, float] | None = None,
) -> SearchIndex:
    """Writes all pictures of an index, and then has the index name them; returns it, opened.

    Args:
        index_dir: the folder, with an index or without.
        embedder: what made the embeddings.
        embeddings: float `[num_images, network_dim]` of L2 norm 1.
        pictures: one a row.
        image_dir: what paths are relative to.
        dataset_dir: the data set that they are of.
        projections: by name; fitted to these pictures where they are not given.
        num_fitted: pictures that the given projections were fitted to.
        pixels: see `IndexInfo`.
        thresholds: those of the index before, where they still hold.

    Raises:
        SearchIndexError: it cannot be written, the disk being full for instance; the index is what it was.
    """
    table = pictures if isinstance(pictures, ImageTable) else ImageTable.of(pictures)
    before = _generations(index_dir)
    generation = max(before, default=0) + 1
    if projections is None:
        labels = table.column("label")
        projections = {by: fit_projection(embeddings, labels, by) for by in BY}
        num_fitted = len(table)
    cells: dict[str, dict[str, float]] = {}
    try:
        with atomic_folder(_folder(index_dir, generation)) as folder:
            np.save(folder / _EMBEDDINGS_FILE, np.asarray(embeddings, np.float16))
            pq.write_table(table.table, folder / _PICTURES_FILE, compression="zstd", write_page_checksum=True)
            for by, projection in projections.items():
                arrays: dict[str, Any] = {"mean": projection.mean}
                if projection.matrix is not None:
                    arrays["matrix"] = projection.matrix
                np.savez(folder / f"{by}.npz", **arrays)
                vectors = _write_vectors(folder / f"{by}.npy", projection, embeddings)
                if len(vectors) > EXACT_UP_TO:
                    built = build_cells(vectors, folder / f"{by}.faiss")
                    cells[by] = {"num_probed": built.num_probed, "recall": built.recall}
    except OSError as error:
        raise _unwritten(index_dir, error) from None
    info = IndexInfo(
        generation=generation,
        model=embedder.name,
        model_fingerprint=embedder.fingerprint,
        image_size=embedder.image_size,
        resize=embedder.resize,
        num_images=len(table),
        image_dir=None if image_dir is None else str(image_dir.resolve()),
        dataset_dir=None if dataset_dir is None else str(dataset_dir.resolve()),
        num_fitted=num_fitted,
        pixels=pixels,
        cells=cells,
        thresholds=dict(thresholds or {}),
    )
    try:
        _write_info(index_dir, info)
    except OSError as error:
        raise _unwritten(index_dir, error) from None
    for old in before:
        shutil.rmtree(_folder(index_dir, old), ignore_errors=True)
    return SearchIndex.open(index_dir)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """An opened index.

    Attributes:
        index_dir: the folder.
        info: what index.json says.
        pictures: by row.
        embeddings: float16 `[num_images, network_dim]`, mapped.
        projections: by name.
        vectors: float32 `[num_images, dim]` by projection, mapped.
        cells: by projection, beyond 200,000 pictures.
    """

    index_dir: Path
    info: IndexInfo
    pictures: ImageTable
    embeddings: np.ndarray
    projections: Mapping[str, Projection]
    vectors: Mapping[str, np.ndarray]
    cells: Mapping[str, Cells]

    @classmethod
    def open(cls, index_dir: Path) -> SearchIndex:
        """Opens an index folder.

        Raises:
            SearchIndexError: it is none, or is damaged, or is of another version.
        """
        if not (index_dir / INFO_FILE).is_file():
            raise SearchIndexError(f"{index_dir} is no index: it has no {INFO_FILE}. Make one with `simimg index`.")
        for _ in range(_ATTEMPTS - 1):
            info = _read_info(index_dir)
            try:
                return _opened(index_dir, info)
            except SearchIndexError:  # another process may have written the next generation meanwhile
                if _read_info(index_dir).generation == info.generation:
                    raise
        return _opened(index_dir, _read_info(index_dir))

    @property
    def copy_threshold(self) -> float:
        """The least similarity of copies: what `simimg calibrate` has found, or 0.9."""
        return self.info.thresholds.get("copy", 0.9)

    def files_dir(self) -> Path:
        """Returns the folder that the pictures' paths are relative to.

        Raises:
            UsageError: they are no files of this machine.
        """
        if self.info.image_dir is None:
            raise UsageError(f"{self.index_dir} is of pictures that are no files here: there is nothing to plan.")
        return Path(self.info.image_dir)

    def path_of(self, picture: IndexedImage) -> Path:
        """Returns where the picture lies, as far as the index knows."""
        return self.file_of(picture.path)

    def file_of(self, path: str) -> Path:
        """Returns where a picture of this path lies, as far as the index knows."""
        name = self.name_of(path)
        return Path(self.info.image_dir) / name if self.info.image_dir else Path(name)

    def name_of(self, path: str) -> str:
        r"""Returns the name of a picture's file: of bytes that are no UTF-8, a path says \xNN."""
        folder = Path(self.info.image_dir or "")
        if "\\x" not in path or (folder / path).exists():
            return path
        name = os.fsdecode(_ESCAPED.sub(lambda escaped: bytes.fromhex(escaped[1].decode()), path.encode()))
        return name if (folder / name).exists() else path

    def check_model(self, embedder: Embedder) -> None:
        """Raises SearchIndexError if `embedder` is not what made this index's embeddings."""
        if embedder.fingerprint != self.info.model_fingerprint:
            raise SearchIndexError(
                f"{self.index_dir} was made with --model={self.info.model}, whose weights are now others. "
                "Remove that folder, and make it again with `simimg index`."
            )

    def nearest(
        self, queries: np.ndarray, k: int, by: str = "copy", *, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns similarities and rows of the `k` nearest pictures, both `[num_queries, at most k]`, best first.

        Args:
            queries: embeddings as the network gives them, `[num_queries, network_dim]`, or
                `[num_queries, num_views, network_dim]`: then the view that is closest to a picture counts.
            k: at least 1.
            by: `copy` or `kind`.
            among: bool `[num_images]`, which rows are looked at; by default all.
        """
        views = queries[:, None, :] if queries.ndim == 2 else queries
        return self.nearest_vectors(self.projections[by](views), k, by, among=among)

    def nearest_vectors(
        self, queries: np.ndarray, k: int, by: str = "copy", *, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest`, of `[num_queries, num_views, dim]` that are projected already."""
        if by in self.cells:
            return self.cells[by].nearest(queries, k, among)
        return nearest(self.vectors[by], queries, k, among)

    def search(
        self, queries: np.ndarray, k: int, by: str = "copy", *, among: np.ndarray | None = None
    ) -> list[list[Match]]:
        """Returns the `k` most similar pictures for each query, best first; see `nearest`."""
        similarities, rows = self.nearest(queries, k, by, among=among)
        return [
            [Match(*one) for one in zip(found.tolist(), self.pictures.rows(found), values.tolist(), strict=True)]
            for found, values in zip(rows, similarities, strict=True)
        ]

    def with_threshold(self, by: str, threshold: float) -> SearchIndex:
        """Writes a calibrated threshold into the index; returns the index that has it."""
        info = dataclasses.replace(self.info, thresholds={**self.info.thresholds, by: threshold})
        _write_info(self.index_dir, info)
        return dataclasses.replace(self, info=info)


def _opened(index_dir: Path, info: IndexInfo) -> SearchIndex:
    folder = _folder(index_dir, info.generation)
    with _reading(index_dir, folder / _EMBEDDINGS_FILE) as path:
        embeddings = np.load(path, mmap_mode="r")
        _check_shape(embeddings, np.float16, info.num_images, None)
    with _reading(index_dir, folder / _PICTURES_FILE) as path:
        pictures = ImageTable(pq.read_table(path, schema=SCHEMA, page_checksum_verification=True))
        if len(pictures) != info.num_images:
            raise ValueError(f"it has {len(pictures)} rows, and the index {info.num_images} pictures")
    projections, vectors, cells = {}, {}, {}
    for by in BY:
        with _reading(index_dir, folder / f"{by}.npz") as path, np.load(path) as file:
            projection = projections[by] = Projection(file["mean"], file.get("matrix"))
            _check_shape(projection.mean[None], np.float32, 1, embeddings.shape[1])
        with _reading(index_dir, folder / f"{by}.npy") as path:
            vectors[by] = np.load(path, mmap_mode="r")
            dim = embeddings.shape[1] if projection.matrix is None else projection.matrix.shape[1]
            _check_shape(vectors[by], np.float32, info.num_images, dim)
        if by in info.cells:
            with _reading(index_dir, folder / f"{by}.faiss") as path:
                found = info.cells[by]
                cells[by] = open_cells(path, vectors[by], int(found["num_probed"]), found["recall"])
                if cells[by].faiss_index.ntotal != info.num_images:
                    raise ValueError(f"it has {cells[by].faiss_index.ntotal} vectors, and not {info.num_images}")
    return SearchIndex(index_dir, info, pictures, embeddings, projections, vectors, cells)


def _check_shape(array: np.ndarray, dtype: Any, num_rows: int, dim: int | None) -> None:
    if array.dtype != dtype or array.ndim != 2 or len(array) != num_rows or array.shape[1] != (dim or array.shape[1]):
        wanted = f"{np.dtype(dtype)} [{num_rows}, {dim or 'network_dim'}]"
        raise ValueError(f"it should be {wanted}, and is {array.dtype} {list(array.shape)}")


@contextmanager
def _reading(index_dir: Path, path: Path) -> Iterator[Path]:
    """Makes of all that goes wrong while a file is read an error that names the file and what to do."""
    try:
        yield path
    except (*_DAMAGE, DataError) as error:
        reason = (str(error) or type(error).__name__) if path.exists() else "it is missing"
        raise SearchIndexError(
            f"{path} is damaged: {reason}. Remove the folder {index_dir}, and make it again with `simimg index`."
        ) from None


def _read_info(index_dir: Path) -> IndexInfo:
    with _reading(index_dir, index_dir / INFO_FILE) as path:
        values: dict[str, Any] = read_json(path, "the index's description")
        if (format := values.pop("format", None)) != _FORMAT:
            raise ValueError(f"its format is {format}, not {_FORMAT}")
        return IndexInfo(**values)


def _unwritten(index_dir: Path, error: OSError) -> SearchIndexError:
    return SearchIndexError(f"{index_dir} cannot be written: {error}. Make room there, and index again.")


def _write_info(index_dir: Path, info: IndexInfo) -> None:
    write_json(index_dir / INFO_FILE, {"format": _FORMAT, **dataclasses.asdict(info)})


def _write_vectors(path: Path, projection: Projection, embeddings: np.ndarray) -> np.ndarray:
    dim = len(projection.mean) if projection.matrix is None else projection.matrix.shape[1]
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (len(embeddings), dim))
    for start in range(0, len(embeddings), _PROJECTED_ROWS):
        vectors[start : start + _PROJECTED_ROWS] = projection(embeddings[start : start + _PROJECTED_ROWS])
    vectors.flush()
    return vectors


def _folder(index_dir: Path, generation: int) -> Path:
    return index_dir / f"generation-{generation:06d}"


def _generations(index_dir: Path) -> list[int]:
    """Numbers of the generations in the folder; what a killed process left is removed."""
    found = []
    for path in index_dir.glob("*generation-*"):
        if TEMPORARY in path.name:
            shutil.rmtree(path, ignore_errors=True)
        else:
            found.append(int(path.name.rpartition("-")[2]))
    return sorted(found)
