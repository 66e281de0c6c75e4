"""The index: embeddings of many pictures on disk, and exact search in them.

    <index_dir>/index.json          the model, its fingerprint, how pictures are prepared, counts
    <index_dir>/embeddings.npy      float32 [num_images, dim], of L2 norm 1, mapped into memory when searched
    <index_dir>/pictures.parquet    a row for each embedding: path, sha256, width, height, label

The folder is written under a temporary name and renamed. Search is exact: every embedding is compared with every query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simimg.errors import DataError, SearchIndexError, UsageError
from simimg.search.embeddings import Embedder
from tfrecords.format.files import atomic_folder, read_json, write_json

__all__ = ["Match", "Picture", "SearchIndex", "write_index"]

_FORMAT = "simimg-index/1"
_INFO_FILE = "index.json"
_EMBEDDINGS_FILE = "embeddings.npy"
_PICTURES_FILE = "pictures.parquet"
# Rows compared at a time: 64 MB of a 256-dim index, so that the similarities of a block stay in the cache's reach.
_BLOCK_ROWS = 65_536


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A picture of an index. `path` is as it was found; `label` is its class's name, or empty."""

    path: str
    sha256: str
    width: int
    height: int
    label: str


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A picture of the index that a query found; `similarity` is the cosine, higher is closer."""

    picture: Picture
    similarity: float


_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("label", pa.string()),
    ]
)


def write_index(
    index_dir: Path, embedder: Embedder, embeddings: np.ndarray, pictures: Sequence[Picture], image_dir: Path | None
) -> None:
    """Writes an index folder; one that is there is replaced when the new one is whole.

    Args:
        index_dir: the folder.
        embedder: what made the embeddings.
        embeddings: float32 `[num_images, dim]`.
        pictures: one for each row.
        image_dir: what the pictures' paths are relative to; None where they are no files of this machine.

    Raises:
        UsageError: `index_dir` has something else in it.
    """
    if index_dir.exists() and not (index_dir / _INFO_FILE).is_file() and any(index_dir.iterdir()):
        raise UsageError(f"--index_dir={index_dir} is no index and not empty. Name a new folder.")
    with atomic_folder(index_dir) as folder:
        np.save(folder / _EMBEDDINGS_FILE, np.ascontiguousarray(embeddings, np.float32))
        columns = {name: [getattr(picture, name) for picture in pictures] for name in _SCHEMA.names}
        pq.write_table(pa.table(columns, schema=_SCHEMA), folder / _PICTURES_FILE, compression="zstd")
        info = {
            "format": _FORMAT,
            "model": embedder.name,
            "model_fingerprint": embedder.fingerprint,
            "image_size": embedder.image_size,
            "resize": embedder.resize,
            "dim": embedder.dim,
            "num_images": len(pictures),
            "image_dir": None if image_dir is None else str(image_dir.resolve()),
        }
        write_json(folder / _INFO_FILE, info)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """An opened index: `embeddings` is float32 `[num_images, dim]`, mapped from disk."""

    index_dir: Path
    model: str
    model_fingerprint: str
    embeddings: np.ndarray
    pictures: tuple[Picture, ...]
    image_dir: Path | None

    @classmethod
    def open(cls, index_dir: Path) -> SearchIndex:
        """Opens an index folder.

        Raises:
            SearchIndexError: it is none, or is damaged.
        """
        if not (index_dir / _INFO_FILE).is_file():
            raise SearchIndexError(f"{index_dir} is no index: it has no {_INFO_FILE}. Make one with `simimg index`.")
        try:
            info: dict[str, Any] = read_json(index_dir / _INFO_FILE, "the index's description")
            embeddings = np.load(index_dir / _EMBEDDINGS_FILE, mmap_mode="r")
            rows = pq.read_table(index_dir / _PICTURES_FILE, schema=_SCHEMA).to_pylist()
            if (
                info["format"] != _FORMAT
                or embeddings.shape != (info["num_images"], info["dim"])
                or len(rows) != len(embeddings)
            ):
                raise ValueError(f"its parts do not fit: {embeddings.shape} embeddings, {len(rows)} pictures")
            return cls(
                index_dir,
                info["model"],
                info["model_fingerprint"],
                embeddings,
                tuple(Picture(**row) for row in rows),
                Path(info["image_dir"]) if info["image_dir"] else None,
            )
        except (DataError, ValueError, KeyError, OSError, pa.ArrowException) as error:
            raise SearchIndexError(f"{index_dir} is damaged: {error}. Make it again with `simimg index`.") from None

    def path_of(self, picture: Picture) -> Path:
        """Returns where the picture lies, as far as the index knows."""
        return self.image_dir / picture.path if self.image_dir else Path(picture.path)

    def check_model(self, embedder: Embedder) -> None:
        """Raises SearchIndexError if `embedder` is not what made this index's embeddings."""
        if embedder.fingerprint != self.model_fingerprint:
            raise SearchIndexError(
                f"{self.index_dir} was made with --model={self.model}, whose weights are now others. "
                "Make the index again with `simimg index`."
            )

    def search(self, queries: np.ndarray, k: int) -> list[list[Match]]:
        """Returns the `k` most similar pictures for each query, best first; equal ones in the order of the index.

        Args:
            queries: float32 `[num_queries, dim]` of L2 norm 1, or `[num_queries, num_views, dim]`: then a picture's
                similarity is that of the view that is closest to it.
            k: at least 1; fewer are returned where the index has fewer.
        """
        views = queries[:, None, :] if queries.ndim == 2 else queries
        num_queries, num_views, dim = views.shape
        count = min(k, len(self.embeddings))
        best, rows = np.zeros((num_queries, 0), np.float32), np.zeros((num_queries, 0), np.int64)
        for start in range(0, len(self.embeddings), _BLOCK_ROWS):
            block = np.asarray(self.embeddings[start : start + _BLOCK_ROWS])
            similarities = (views.reshape(-1, dim) @ block.T).reshape(num_queries, num_views, -1).max(axis=1)
            best = np.concatenate([best, similarities], axis=1)
            rows = np.concatenate(
                [rows, np.broadcast_to(np.arange(start, start + len(block)), similarities.shape)], axis=1
            )
            if best.shape[1] > count:
                kept = np.argpartition(-best, count - 1, axis=1)[:, :count]
                best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
        order = np.lexsort((rows, -best), axis=1)
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
        return [
            [Match(self.pictures[row], float(value)) for row, value in zip(found, values, strict=True)]
            for found, values in zip(rows, best, strict=True)
        ]
