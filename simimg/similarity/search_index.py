"""The search index: embeddings of many images on disk.

    <index_dir>/index.json              the model, its fingerprint, how images are prepared, and the current generation
    <index_dir>/generation-000001/      everything else
        images.arrow                    a row per image: path, sha256, bytes, time, size in px, hashes, label, split
        embeddings.npy                  float16 [num_images, network_dim], as the network returns them, of L2 norm 1
        copy.npz, kind.npz              the projections, see `simimg.similarity.projection`
        copy.npy, kind.npy              float32 [num_images, dim]: projected embeddings, memory-mapped for search
        copy.faiss, kind.faiss          for more than 200,000 images, see `simimg.similarity.compressed_vectors`
    <index_dir>/web/, fingerprints-….sqlite     what the search page and verification computed

A generation is complete before index.json names it, and only then is the previous one removed. So a process that is
killed at any moment leaves an index that can be searched. An opened index keeps its generation, also when it is
replaced. Whoever writes holds the lock of the folder, and checks that nobody has written since it opened the index.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from simimg.errors import DataError, SearchIndexError, UsageError, lacks_memory
from simimg.inference.inference_engine import Engine
from simimg.similarity.compressed_vectors import CompressedVectors, build_compressed, open_compressed
from simimg.similarity.embeddings import Embedder, load_embedder
from simimg.similarity.image_table import ImageTable, IndexedImage
from simimg.similarity.index_info import INFO_FILE, IndexInfo, all_of, locked_index, remove_thumbnails
from simimg.similarity.nearest_neighbors import EXACT_UP_TO, nearest
from simimg.similarity.projection import BY, Projection, fit_projection
from simimg.similarity.remote_index import local_index
from simimg.similarity.vector_rows import OnePass
from tfrecords.convert.sources import unprintable
from tfrecords.format.atomic_files import TEMPORARY, atomic_folder, file_identity, parse_json, write_json

COPY_THRESHOLD = 0.9
"""The least similarity of copies where nothing was calibrated."""

_FORMAT = "simimg-index/4"
_OLDER = "simimg-index/2"  # without engines
_READABLE = (_FORMAT, "simimg-index/3", _OLDER)  # those before 4 have no hashes on the contrasting background
_EMBEDDINGS_FILE = "embeddings.npy"
_IMAGES_FILE = "images.arrow"
_OLDER_IMAGES_FILE = "pictures.parquet"
_PROJECTED_ROWS = 8192
_ATTEMPTS = 3  # to open an index that another process writes; writing a generation takes longer than opening one
# Of NumPy, zipfile, faiss and Arrow when they read a damaged file.
_DAMAGE = (
    ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
    pa.ArrowException,
)  # fmt: skip
# Of a missing or damaged file; zipfile seeks before the start of a file whose offsets are damaged (EINVAL).
_ERRNOS_OF_DAMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """An image of the index that is near a query: its row, the image, and the cosine; higher is closer."""

    row: int
    image: IndexedImage
    similarity: float


def write_generation(
    index_dir: Path,
    embedder: Embedder,
    embeddings: np.ndarray,
    pictures: Sequence[IndexedImage],
    *,
    image_dir: Path | None,
    dataset_dir: str | None = None,
    pixels: str = "",
    before: SearchIndex | None = None,
    engines: Sequence[Engine] = (),
) -> SearchIndex:
    """Write a new generation of an index, or its first one, and make it the current one; return the index, opened.

    Embeddings are float `[num_images, network_dim]` of L2 norm 1, in the order of the pictures. For `image_dir`,
    `dataset_dir`, `pixels` and `engines`, see `IndexInfo`. The thresholds are those of `before`, the index that is
    replaced. The projections are fitted to these images, so that the files depend on nothing but them. Thumbnails of
    images that are gone are removed.

    Raises:
        SearchIndexError: it cannot be written, for example because the disk is full; the index is unchanged.
    """
    table = pictures if isinstance(pictures, ImageTable) else ImageTable.of(pictures)
    earlier = _generations(index_dir)
    generation = max(earlier, default=0) + 1
    projections = {by: fit_projection(embeddings, table.column("label"), by) for by in BY}
    compressed: dict[str, dict[str, float]] = {}
    try:
        with atomic_folder(_folder(index_dir, generation)) as folder:
            np.save(folder / _EMBEDDINGS_FILE, np.asarray(embeddings, np.float16))
            images_crc32 = table.write(folder / _IMAGES_FILE)
            for by, projection in projections.items():
                matrix: dict[str, Any] = {} if projection.matrix is None else {"matrix": projection.matrix}
                np.savez(folder / f"{by}.npz", mean=projection.mean, **matrix)
                vectors = _write_vectors(folder / f"{by}.npy", projection, embeddings)
                if len(vectors) > EXACT_UP_TO and embedder.dim > 1:
                    built = build_compressed(vectors, folder / f"{by}.faiss")
                    compressed[by] = {"num_compared": built.num_compared, "recall": built.recall}
        info = IndexInfo(
            generation=generation,
            model=embedder.name,
            model_fingerprint=embedder.fingerprint,
            image_size=embedder.image_size,
            resize=embedder.resize,
            num_images=len(table),
            image_dir=None if image_dir is None else str(image_dir.resolve()),
            dataset_dir=dataset_dir,
            engines=tuple(engines),
            num_calibrated=before.info.num_calibrated if before else 0,
            pixels=pixels,
            images_crc32=images_crc32,
            cells=compressed,
            thresholds=before.info.thresholds if before else {},
        )
        _write_info(index_dir, info)
    except OSError as error:
        raise SearchIndexError(
            f"{index_dir} cannot be written: {error}. Free some disk space and index again."
        ) from None
    for old in earlier:
        shutil.rmtree(_folder(index_dir, old), ignore_errors=True)
    remove_thumbnails(index_dir, set(table.column("sha256")))
    return SearchIndex.open(index_dir)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """An opened index: its folder, the content of index.json, and the images by row.

    Attributes:
        embeddings: float16 `[num_images, network_dim]`, memory-mapped.
        projections: by name.
        vectors: float32 `[num_images, dim]` by projection, memory-mapped.
        compressed: by projection, for more than 200,000 images.
        once: whether it is opened for a search or two, and should take little memory.
        is_temporary: whether its folder will be removed, so that nothing is kept in it and no plan refers to it.
    """

    index_dir: Path
    info: IndexInfo
    images: ImageTable
    embeddings: np.ndarray
    projections: Mapping[str, Projection]
    vectors: Mapping[str, np.ndarray]
    compressed: Mapping[str, CompressedVectors]
    once: bool = False
    is_temporary: bool = False

    @property
    def pictures(self) -> ImageTable:
        """The earlier name of `images`."""
        return self.images

    @classmethod
    def open(cls, index_dir: Path) -> SearchIndex:
        """Open an index: a folder, or the URL of one, see `local_index` for further errors.

        Raises:
            SearchIndexError: it is not an index, is damaged, cannot be read, or has another version.
        """
        if not ((index_dir := local_index(index_dir)) / INFO_FILE).is_file():
            fault = f"an index: it has no {INFO_FILE}" if index_dir.is_dir() else "a folder"
            raise SearchIndexError(f"{index_dir} is not {fault}. Make an index with `simimg index`.")
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
        """The least similarity of pairs that are copies: what `simimg calibrate` chose, or else `COPY_THRESHOLD`."""
        thresholds = self.info.thresholds
        return thresholds.get("pairs", thresholds.get("copy", COPY_THRESHOLD))  # older indexes have `copy` alone

    def files_dir(self) -> Path:
        """Return the folder that the paths of the images are relative to.

        Raises:
            UsageError: the images are not files of this machine.
        """
        if self.info.image_dir is None:
            raise UsageError(f"{self.index_dir} has no files of this machine that could be removed.")
        return Path(self.info.image_dir)

    def path_of(self, picture: IndexedImage) -> Path:
        """Return the path of an image's file, as far as the index knows."""
        return self.file_of(picture.path)

    def file_of(self, path: str) -> Path:
        """Return the path of the file that the index stores as `path`, as far as the index knows."""
        return Path(self.info.image_dir or "", self.name_of(path))

    def file_identity(self, row: int) -> tuple[int, int] | None:
        """Return device and inode of a row's file, links followed; None if it is not there."""
        return file_identity(self.file_of(self.images.table["path"][row].as_py()))

    def name_of(self, path: str) -> str:
        r"""Return the file name for a stored path, in which bytes that are not UTF-8 are written as \xNN."""
        return unprintable(path, Path(self.info.image_dir or ""))

    def check_model(self, embedder: Embedder) -> None:
        """Raise SearchIndexError if `embedder` did not make the embeddings of this index."""
        if embedder.fingerprint != self.info.model_fingerprint:
            raise SearchIndexError(
                f"{self.index_dir} was made with --model={self.info.model}, whose weights have changed since. "
                f"Remove {all_of(self.index_dir)} and make it again with `simimg index`."
            )

    def load_embedder(self, *, many: bool = False) -> Embedder:
        """Return the model that made the embeddings, for queries: in float32, which any machine has, not in bfloat16.

        Raises SearchIndexError if the model's weights have changed since, and whatever `load_embedder` raises.
        """
        embedder = load_embedder(self.info.model, many=many)
        self.check_model(embedder)
        return embedder

    def nearest_vectors(
        self, queries: np.ndarray, k: int, by: str = "copy", *, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return similarities and rows of the `k` nearest images, both `[num_queries, at most k]`, best first.

        Queries are projected embeddings, `[num_queries, num_views, dim]`; the view that is closest to an image counts.
        `k` is at least 1. `by` is `copy` or `kind`. `among`, bool `[num_images]`, selects the rows that are searched.
        """
        if by in self.compressed:
            return self.compressed[by].nearest(queries, k, among)
        vectors = self.vectors[by]
        return nearest(OnePass(vectors) if self.once and isinstance(vectors, np.memmap) else vectors, queries, k, among)

    def search(
        self, queries: np.ndarray, k: int, by: str = "copy", *, among: np.ndarray | None = None
    ) -> list[list[Match]]:
        """Return the `k` most similar images for each query, best first; see `nearest_vectors`.

        Queries are embeddings as the network returns them, `[num_queries, network_dim]` or `[num_queries, num_views,
        network_dim]`.
        """
        views = queries[:, None, :] if queries.ndim == 2 else queries
        similarities, rows = self.nearest_vectors(self.projections[by](views), k, by, among=among)
        return [
            [Match(*one) for one in zip(found.tolist(), self.images.rows(found), values.tolist(), strict=True)]
            for found, values in zip(rows, similarities, strict=True)
        ]

    def with_thresholds(self, **thresholds: float) -> SearchIndex:
        """Write calibrated thresholds to the index, see `IndexInfo`; return the index with them.

        Raises:
            UsageError: another process is writing the index, or its folder cannot be written.
            SearchIndexError: the index has changed since it was opened, or the disk is full.
        """
        with locked_index(self.index_dir):
            current = _read_info(self.index_dir)
            if dataclasses.replace(current, thresholds=self.info.thresholds) != self.info:
                raise SearchIndexError(
                    f"{self.index_dir} was updated after it was opened, so its new images were not measured. "
                    "Run `simimg calibrate` again."
                )
            info = dataclasses.replace(
                current, thresholds={**current.thresholds, **thresholds}, num_calibrated=current.num_images
            )
            try:
                _write_info(self.index_dir, info)
            except OSError as error:
                raise SearchIndexError(
                    f"{self.index_dir} cannot be written: {error}. Free some disk space and calibrate again."
                ) from None
        return dataclasses.replace(self, info=info)

    def with_model(self, model: str) -> SearchIndex:
        """Write another name of the index's model, whose folder was moved; return the index with it.

        The caller holds the lock, see `locked_index`, since before it opened the index.

        Raises:
            SearchIndexError: it cannot be written, for example because the disk is full; the index is unchanged.
        """
        info = dataclasses.replace(self.info, model=model)
        try:
            _write_info(self.index_dir, info)
        except OSError as error:
            raise SearchIndexError(
                f"{self.index_dir} cannot be written: {error}. Free some disk space and index again."
            ) from None
        return dataclasses.replace(self, info=info)


def index_precision(index_dir: Path) -> str | None:
    """Return the precision of an index, None if there is none yet; raise SearchIndexError as `SearchIndex.open`."""
    return _read_info(index_dir).precision if (index_dir / INFO_FILE).is_file() else None


def is_system_error(error: BaseException) -> bool:
    """Whether the system could not read a file, as of a failing disk or without memory; it may be undamaged."""
    return lacks_memory(error) or (isinstance(error, OSError) and error.errno not in _ERRNOS_OF_DAMAGE)


def _opened(index_dir: Path, info: IndexInfo) -> SearchIndex:
    folder = _folder(index_dir, info.generation)
    with _reading(index_dir, folder / _EMBEDDINGS_FILE) as path:
        embeddings = np.load(path, mmap_mode="r")
        _check_shape(embeddings, np.float16, info.num_images, None)
    with _reading(index_dir, folder / (_IMAGES_FILE if info.images_crc32 else _OLDER_IMAGES_FILE)) as path:
        pictures = ImageTable.open(path, info.images_crc32)
        if len(pictures) != info.num_images:
            raise ValueError(f"it has {len(pictures)} rows, but the index has {info.num_images} images")
    projections, vectors, compressed = {}, {}, {}
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
                compressed[by] = open_compressed(path, vectors[by], info.cells[by])
                if (num_vectors := compressed[by].faiss_index.ntotal) != info.num_images:
                    raise ValueError(f"it has {num_vectors} vectors, not {info.num_images}")
    return SearchIndex(index_dir, info, pictures, embeddings, projections, vectors, compressed)


def _check_shape(array: np.ndarray, dtype: Any, num_rows: int, dim: int | None) -> None:
    if array.dtype != dtype or array.ndim != 2 or len(array) != num_rows or array.shape[1] != (dim or array.shape[1]):
        wanted = f"{np.dtype(dtype)} [{num_rows}, {dim or 'network_dim'}]"
        raise ValueError(f"it should be {wanted}, but is {array.dtype} {list(array.shape)}")


@contextmanager
def _reading(index_dir: Path, path: Path) -> Iterator[Path]:
    """Convert any error while a file is read to one that names the file and says what to do."""
    try:
        yield path
    except (*_DAMAGE, DataError) as error:
        if is_system_error(error):
            reason = getattr(error, "strerror", None) or error
            raise SearchIndexError(f"{path} cannot be read: {reason}. It may be undamaged: try again.") from None
        reason = (str(error).rstrip(".") or type(error).__name__) if path.exists() else "it is missing"
        raise SearchIndexError(
            f"{path} is damaged: {reason}. Remove {all_of(index_dir)} and make it again with `simimg index`."
        ) from None


def _read_info(index_dir: Path) -> IndexInfo:
    with _reading(index_dir, index_dir / INFO_FILE) as path:
        values: dict[str, Any] = parse_json(path.read_bytes())
        if (format := values.pop("format", None)) not in _READABLE:
            raise ValueError(f"its format is {format}, not {_FORMAT}")
        if format == _OLDER:
            num_fitted = values.pop("num_fitted")
            values["num_calibrated"] = num_fitted if values.get("thresholds") else 0
        values["engines"] = tuple(Engine(**engine) for engine in values.get("engines", ()))
        return IndexInfo(**values)


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
    """Return the numbers of the generations in the folder; remove leftovers of killed processes."""
    found = []
    for path in index_dir.glob("*generation-*"):
        if TEMPORARY in path.name:
            shutil.rmtree(path, ignore_errors=True)
        else:
            found.append(int(path.name.rpartition("-")[2]))
    return sorted(found)
