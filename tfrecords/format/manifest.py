"""manifest.parquet: a row for every file that was found, where it came from and where it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from tfrecords.errors import DataError
from tfrecords.format.files import atomic_file

__all__ = ["MANIFEST_FILE", "OK", "REFUSED", "ManifestRow", "read_manifest", "write_manifest"]

MANIFEST_FILE = "manifest.parquet"
OK = "ok"
REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """What became of one file.

    `id` counts the files in the order they were found and is the example's id; `path` is relative to the image folder;
    `width` and `height` (px) are those of the upright picture before it was resized; `shard` and `position` say which
    record of which shard of `split` it became, -1 for a refused file, which has a `reason` instead.
    """

    id: int
    path: str
    sha256: str
    width: int
    height: int
    label: int
    split: str
    shard: int
    position: int
    status: str
    reason: str


_COLUMNS = {
    "id": "int64",
    "path": "string",
    "sha256": "string",
    "width": "int32",
    "height": "int32",
    "label": "int32",
    "split": "string",
    "shard": "int32",
    "position": "int64",
    "status": "string",
    "reason": "string",
}


def write_manifest(dataset_dir: Path, rows: Iterable[ManifestRow]) -> None:
    """Writes the manifest, rows in the order given."""
    import pyarrow as pa  # here, because it takes a third of a second, which workers need not wait
    import pyarrow.parquet as pq

    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    table = pa.table(columns, schema=pa.schema(_COLUMNS.items()))
    with atomic_file(dataset_dir / MANIFEST_FILE) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_manifest(dataset_dir: Path) -> list[ManifestRow]:
    """Returns the rows of a data set's manifest.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = dataset_dir / MANIFEST_FILE
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if table.schema != pa.schema(_COLUMNS.items()):
            raise DataError(f"{path} should have the columns {', '.join(_COLUMNS)}. Convert the pictures again.")
        return [ManifestRow(**row) for row in table.to_pylist()]
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Convert the pictures again.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}. Convert the pictures again.") from None
