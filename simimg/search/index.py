"""The index: embeddings of many pictures on disk.

    <index_dir>/index.json              the model, its fingerprint, how pictures are prepared, and the generation
    <index_dir>/generation-000001/      all that belongs together
        pictures.parquet                a row for each picture: path, sha256, bytes, time, width, height, label
        embeddings.npy                  float16 [num_images, network_dim], as the network gives them, of L2 norm 1
        copy.npz, kind.npz              the projections, see `simimg.search.projection`
        copy.npy, kind.npy              float32 [num_images, dim]: projected, mapped into memory when searched
        copy.faiss, kind.faiss          beyond 200,000 pictures, see `simimg.search.nearest`

A generation is written whole before index.json names it, and the one before is removed after that: whoever is killed
at any moment leaves an index that can be searched.
"""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simimg.errors import DataError, SearchIndexError
from simimg.search.embeddings import Embedder
from simimg.search.nearest import EXACT_UP_TO, Cells, build_cells, nearest, open_cells
from simimg.search.projection import BY, Projection, fit_projection
from simimg.search.threads import threads_of_one
from tfrecords.format.files import TEMPORARY, atomic_folder, read_json, write_json

__all__ = ["INFO_FILE", "IndexInfo", "Match", "Picture", "Pictures", "SearchIndex", "write_generation"]

INFO_FILE = "index.json"
_FORMAT = "simimg-index/2"
_EMBEDDINGS_FILE = "embeddings.npy"
_PICTURES_FILE = "pictures.parquet"
_PROJECTED_ROWS = 8192
# What reading a damaged file raises: NumPy's, zip's, faiss's and Arrow's.
_DAMAGE = (ValueError, TypeError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, pa.ArrowException)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of an index.

    Attributes:
        path: as it was found, relative to the index's `image_dir`.
        sha256: of the file's bytes, in hexadecimal.
        num_bytes: of the file; 0 where it is not known.
        modified_ns: when the file was changed, in ns since 1970; 0 where it is not known.
        width: px, upright.
        height: px, upright.
        phash: perceptual hash of what was embedded, see `tfrecords.convert.copies`; 0 of a plain picture.
        label: its class's name, or empty.
        split: of its data set, or empty.
    """

    path: str
    sha256: str
    num_bytes: int = 0
    modified_ns: int = 0
    width: int
    height: int
    phash: int = 0
    label: str = ""
    split: str = ""


_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("num_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("label", pa.string()),
        ("split", pa.string()),
    ]
)


class Pictures(Sequence[Picture]):
    """The pictures of an index by row: columns, 200 bytes a picture, and a `Picture` where one is asked for."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table of the columns of `Picture`."""
        self.table = table.combine_chunks()

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> Pictures:
        """Returns the table of given pictures."""
        columns = {name: [getattr(picture, name) for picture in pictures] for name in _SCHEMA.names}
        return cls(pa.table(columns, schema=_SCHEMA))

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return Picture(**{name: self.table[name][int(row)].as_py() for name in _SCHEMA.names})

    def __iter__(self) -> Iterator[Picture]:
        for batch in self.table.to_batches(max_chunksize=_PROJECTED_ROWS):
            for values in batch.to_pylist():
                yield Picture(**values)

    def rows(self, rows: Sequence[int] | np.ndarray) -> list[Picture]:
        """Returns the pictures of some rows, at a twentieth of what one after the other would take."""
        return [Picture(**values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def column(self, name: str) -> np.ndarray:
        """Returns a column, `[num_images]`."""
        return self.table[name].to_numpy()


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
    cells: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A picture of the index that a query found: its row, itself, and the cosine, higher is closer."""

    row: int
    picture: Picture
    similarity: float


def write_generation(
    index_dir: Path,
    embedder: Embedder,
    embeddings: np.ndarray,
    pictures: Sequence[Picture],
    *,
    image_dir: Path | None,
    dataset_dir: Path | None = None,
    projections: Mapping[str, Projection] | None = None,
    num_fitted: int = 0,
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
        thresholds: those of the index before, where they still hold.
    """
    table = pictures if isinstance(pictures, Pictures) else Pictures.of(pictures)
    index_dir.mkdir(parents=True, exist_ok=True)
    before = _generations(index_dir)
    generation = max(before, default=0) + 1
    if projections is None:
        labels = table.column("label")
        projections = {by: fit_projection(embeddings, labels, by) for by in BY}
        num_fitted = len(table)
    cells: dict[str, dict[str, float]] = {}
    with atomic_folder(_folder(index_dir, generation)) as folder:
        np.save(folder / _EMBEDDINGS_FILE, np.asarray(embeddings, np.float16))
        pq.write_table(table.table, folder / _PICTURES_FILE, compression="zstd")
        for by, projection in projections.items():
            arrays: dict[str, Any] = {"mean": projection.mean}
            if projection.matrix is not None:
                arrays["matrix"] = projection.matrix
            np.savez(folder / f"{by}.npz", **arrays)
            vectors = _write_vectors(folder / f"{by}.npy", projection, embeddings)
            if len(vectors) > EXACT_UP_TO:
                built = build_cells(vectors, folder / f"{by}.faiss")
                cells[by] = {"num_probed": built.num_probed, "recall": built.recall}
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
        cells=cells,
        thresholds=dict(thresholds or {}),
    )
    _write_info(index_dir, info)
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
    pictures: Pictures
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
        try:
            values: dict[str, Any] = read_json(index_dir / INFO_FILE, "the index's description")
            if (format := values.pop("format", None)) != _FORMAT:
                raise ValueError(f"its format is {format}, not {_FORMAT}")
            info = IndexInfo(**values)
            folder = _folder(index_dir, info.generation)
            embeddings = np.load(folder / _EMBEDDINGS_FILE, mmap_mode="r")
            pictures = Pictures(pq.read_table(folder / _PICTURES_FILE, schema=_SCHEMA))
            projections, vectors, cells = {}, {}, {}
            for by in BY:
                with np.load(folder / f"{by}.npz") as file:
                    projections[by] = Projection(file["mean"], file.get("matrix"))
                vectors[by] = np.load(folder / f"{by}.npy", mmap_mode="r")
                if by in info.cells:
                    found = info.cells[by]
                    cells[by] = open_cells(folder / f"{by}.faiss", int(found["num_probed"]), found["recall"])
            counts = {info.num_images, len(embeddings), len(pictures), *(len(rows) for rows in vectors.values())}
            if len(counts) != 1:
                raise ValueError(f"its parts are not of one number of pictures: {sorted(counts)}")
            return cls(index_dir, info, pictures, embeddings, projections, vectors, cells)
        except (*_DAMAGE, DataError) as error:
            raise SearchIndexError(
                f"{index_dir} is damaged: {error}. Remove that folder, and make it again with `simimg index`."
            ) from None

    def path_of(self, picture: Picture) -> Path:
        """Returns where the picture lies, as far as the index knows."""
        return Path(self.info.image_dir) / picture.path if self.info.image_dir else Path(picture.path)

    def check_model(self, embedder: Embedder) -> None:
        """Raises SearchIndexError if `embedder` is not what made this index's embeddings."""
        if embedder.fingerprint != self.info.model_fingerprint:
            raise SearchIndexError(
                f"{self.index_dir} was made with --model={self.info.model}, whose weights are now others. "
                "Remove that folder, and make it again with `simimg index`."
            )

    def nearest(self, queries: np.ndarray, k: int, by: str = "copy") -> tuple[np.ndarray, np.ndarray]:
        """Returns similarities and rows of the `k` nearest pictures, both `[num_queries, at most k]`, best first.

        Args:
            queries: embeddings as the network gives them, `[num_queries, network_dim]`, or
                `[num_queries, num_views, network_dim]`: then the view that is closest to a picture counts.
            k: at least 1.
            by: `copy` or `kind`.
        """
        views = queries[:, None, :] if queries.ndim == 2 else queries
        with threads_of_one():
            projected = self.projections[by](views)
        return self.nearest_vectors(projected, k, by)

    def nearest_vectors(self, queries: np.ndarray, k: int, by: str = "copy") -> tuple[np.ndarray, np.ndarray]:
        """As `nearest`, of `[num_queries, num_views, dim]` that are projected already."""
        if by in self.cells:
            return self.cells[by].nearest(queries, min(k, self.info.num_images))
        return nearest(self.vectors[by], queries, k)

    def search(self, queries: np.ndarray, k: int, by: str = "copy") -> list[list[Match]]:
        """Returns the `k` most similar pictures for each query, best first; see `nearest`."""
        similarities, rows = self.nearest(queries, k, by)
        return [
            [Match(*one) for one in zip(found.tolist(), self.pictures.rows(found), values.tolist(), strict=True)]
            for found, values in zip(rows, similarities, strict=True)
        ]

    def with_threshold(self, by: str, threshold: float) -> SearchIndex:
        """Writes a calibrated threshold into the index; returns the index that has it."""
        info = dataclasses.replace(self.info, thresholds={**self.info.thresholds, by: threshold})
        _write_info(self.index_dir, info)
        return dataclasses.replace(self, info=info)


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
