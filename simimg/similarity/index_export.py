"""Exports an index for other programs: vectors, a table of the images, and the projection that a query needs.

    <out>/export.json         what was exported: by, model, its fingerprint, image_size, resize, dim, num_images
    <out>/projection.npz      mean float32 [network_dim], matrix float32 [network_dim, dim]
    npy      vectors.npy      float32 [num_images, dim], of length 1
    faiss    index.faiss      for `faiss.read_index`: inner product; ids are row numbers
    both     rows.parquet     a row per image: id (0, 1, ...), path, sha256, label, split
    parquet  pictures.parquet the same columns, and vector, fixed_size_list<float32>[dim]

The folder is either complete or absent. The embedding e of an image becomes (e - mean) @ matrix, scaled to length 1;
see `simimg.similarity.projection`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simimg.errors import UsageError
from simimg.similarity.compressed_vectors import write_flat, write_refined
from simimg.similarity.search_index import SearchIndex
from tfrecords.format.atomic_files import atomic_folder, write_json

EXPORT_FORMATS = ("npy", "parquet", "faiss")

_INFO_FILE = "export.json"
_FILES = {_INFO_FILE, "projection.npz", "vectors.npy", "index.faiss", "rows.parquet", "pictures.parquet"}
_COLUMNS = ("path", "sha256", "label", "split")
_BLOCK_ROWS = 16_384  # 32 MB of 512 numbers each


def export_index(index: SearchIndex, out: Path, *, format: str, by: str, overwrite: bool = False) -> dict[str, Any]:
    """Write the vectors of one of an index's projections for other programs, and return the content of export.json.

    `format` is one of `EXPORT_FORMATS`. `overwrite` replaces an existing export in the folder `out`.

    Raises:
        UsageError: `out` is not an export, has other files, or exists and `overwrite` is not set.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out={out} is a file. Name a new folder.")
    if there := {path.name for path in out.iterdir()} if out.is_dir() else set():
        if _INFO_FILE not in there:
            raise UsageError(f"--out={out} is not empty and not an export. Name a new folder.")
        if others := sorted(there - _FILES):
            raise UsageError(f"--out={out} has {others[0]} beside its export. Move it, or name a new folder.")
        if not overwrite:
            raise UsageError(f"--out={out} already has an export. Name a new folder, or add --overwrite.")
    vectors, projection = index.vectors[by], index.projections[by]
    info: dict[str, Any] = {
        "format": format,
        "by": by,
        "model": index.info.model,
        "model_fingerprint": index.info.model_fingerprint,
        "image_size": index.info.image_size,
        "resize": index.info.resize,
        "dim": int(vectors.shape[1]),
        "num_images": len(vectors),
        "image_dir": index.info.image_dir,
        "dataset_dir": index.info.dataset_dir,
    }
    with atomic_folder(out) as folder:
        matrix = np.eye(len(projection.mean), dtype=np.float32) if projection.matrix is None else projection.matrix
        np.savez(folder / "projection.npz", mean=projection.mean, matrix=matrix)
        if format == "parquet":
            _write_rows(index, folder / "pictures.parquet", vectors)
        else:
            _write_rows(index, folder / "rows.parquet", None)
        if format == "npy":
            np.save(folder / "vectors.npy", vectors)
        elif format == "faiss" and by in index.compressed:
            compressed = index.compressed[by]
            write_refined(compressed, folder / "index.faiss")
            info["num_compared"], info["recall_at_10"] = compressed.num_compared, compressed.recall
        elif format == "faiss":
            write_flat(vectors, folder / "index.faiss")
        write_json(folder / _INFO_FILE, info)
    return info


def _write_rows(index: SearchIndex, path: Path, vectors: np.ndarray | None) -> None:
    table = index.images.table.select(list(_COLUMNS))
    fields = [pa.field("id", pa.int64()), *table.schema]
    if vectors is not None:
        # Not nullable, because readers that map it to a plain vector column reject a nullable one.
        element = pa.field("element", pa.float32(), nullable=False)
        fields.append(pa.field("vector", pa.list_(element, vectors.shape[1]), nullable=False))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["label", "split"]) as writer:
        for start in range(0, len(table), _BLOCK_ROWS):
            part = table.slice(start, _BLOCK_ROWS).combine_chunks()
            columns = [pa.array(np.arange(start, start + len(part)))]
            columns += [column.chunk(0) for column in part.columns]
            if vectors is not None:
                flat = pa.array(np.ascontiguousarray(vectors[start : start + len(part)], np.float32).ravel())
                columns.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type))
            writer.write_batch(pa.record_batch(columns, schema=schema))
