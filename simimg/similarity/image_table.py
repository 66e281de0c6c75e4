"""The images of an index as a table: 200 bytes per image, and an object only for a row that is requested.

On disk the table is an Arrow file, which is mapped: a search reads the few rows that it shows.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_ROWS_AT_ONCE = 8192
_FEW_ROWS = 256  # are taken one by one; Arrow's functions take 40 ms to import


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexedImage:
    """An image of an index.

    Attributes:
        path: relative to the index's `image_dir`.
        sha256: of the file's bytes, in hexadecimal.
        num_bytes: of the file; 0 if not known.
        modified_ns: time of the last change to the file, in ns since 1970, see `size_and_time`; 0 if not known.
        width: px, upright; 0 if not known.
        height: px, upright; 0 if not known.
        phash: perceptual hash of the embedded pixels, see `tfrecords.convert.image.near_duplicates`; 0 if plain.
        contrast_phash: that of an image with transparent pixels on the contrasting background; 0 if opaque or plain.
        position_phash: that of the embedded pixels in the one of eight positions that all of them share; 0 if plain.
        label: the name of its class, or empty.
        split: of its dataset, or empty.
    """

    path: str
    sha256: str
    num_bytes: int = 0
    modified_ns: int = 0
    width: int = 0
    height: int = 0
    phash: int = 0
    label: str = ""
    split: str = ""
    contrast_phash: int = 0
    position_phash: int = 0


def size_and_time(status: os.stat_result) -> tuple[int, int]:
    """Return a file's `num_bytes` and `modified_ns`, by which an edited file is noticed.

    The time is the later one of mtime and ctime: programs that edit a file in place or replace it, such as `exiftool
    -P` and `rsync -t`, set its mtime to what it was.
    """
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


SCHEMA = pa.schema(
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
        ("contrast_phash", pa.uint64()),
        ("position_phash", pa.uint64()),
    ]
)
_HASHES = ("phash", "contrast_phash", "position_phash")
_OLDER_SCHEMA = pa.schema(list(SCHEMA)[:-2])  # with one hash


class ImageTable(Sequence[IndexedImage]):
    """The images of an index, by row.

    Attributes:
        has_all_hashes: False for the table of an earlier version; the hashes that it lacks are 0.
    """

    def __init__(self, table: pa.Table) -> None:
        """Take a table with the columns of `SCHEMA`; those of earlier versions have only some of the hashes."""
        self.has_all_hashes = len(table.schema) == len(SCHEMA)
        for field in list(SCHEMA)[len(table.schema) :]:
            table = table.append_column(field, pa.array(np.zeros(len(table), np.uint64)))
        self.table = table.combine_chunks()

    @classmethod
    def of(cls, pictures: Sequence[IndexedImage]) -> ImageTable:
        """Return the table of the given images."""
        columns = {name: [getattr(picture, name) for picture in pictures] for name in SCHEMA.names}
        return cls(pa.table(columns, schema=SCHEMA))

    @classmethod
    def open(cls, path: Path, crc32: int) -> ImageTable:
        """Map the table in a file with that checksum; 0 for a Parquet file, which earlier versions wrote.

        Raises:
            pyarrow.ArrowException: the file is no table, or another one.
            ValueError: as pyarrow.ArrowException.
            OSError: the file cannot be read.
        """
        if not crc32:
            import pyarrow.parquet as pq

            return cls(pq.read_table(path, schema=_OLDER_SCHEMA, page_checksum_verification=True))
        if _crc32(path) != crc32:
            raise ValueError("its checksum is wrong")
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            if len(reader.schema) < len(_OLDER_SCHEMA) or list(reader.schema) != list(SCHEMA)[: len(reader.schema)]:
                raise ValueError("its columns are not those of an index")
            return cls(reader.read_all())

    def write(self, path: Path) -> int:
        """Write the table to a file, of equal bytes for equal tables; return its checksum."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            writer.write_table(self.table)
        return _crc32(path)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return IndexedImage(**{name: self.table[name][int(row)].as_py() for name in SCHEMA.names})

    def __iter__(self) -> Iterator[IndexedImage]:
        for batch in self.table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for values in batch.to_pylist():
                yield IndexedImage(**values)

    def rows(self, rows: Sequence[int] | np.ndarray) -> list[IndexedImage]:
        """Return the images of some rows; of many, in a twentieth of the time of one row after the other."""
        if len(rows) <= _FEW_ROWS:
            return [self[row] for row in rows]
        return [IndexedImage(**values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def hashes(self) -> np.ndarray:
        """Return the perceptual hashes of the images: uint64 `[3, num_images]`, 0 for none.

        They are those on either background, and in the position that all eight share.
        """
        return np.stack([self.column(name).astype(np.uint64) for name in _HASHES])

    def column(self, name: str) -> np.ndarray:
        """Return a column, `[num_images]`."""
        return self.table[name].to_numpy()


def _crc32(path: Path) -> int:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)
