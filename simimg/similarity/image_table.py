"""The pictures of an index, a row each, in columns: 200 bytes a picture instead of an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["SCHEMA", "ImageTable", "IndexedImage"]

_ROWS_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexedImage:
    """A picture of an index.

    Attributes:
        path: as it was found, relative to the index's `image_dir`.
        sha256: of the file's bytes, in hexadecimal.
        num_bytes: of the file; 0 where it is not known.
        modified_ns: when the file was changed, in ns since 1970; 0 where it is not known.
        width: px, upright.
        height: px, upright.
        phash: perceptual hash of what was embedded, see `tfrecords.convert.image.near_duplicates`; 0 of a plain
            picture.
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
    ]
)


class ImageTable(Sequence[IndexedImage]):
    """The pictures of an index by row: columns, and a `Picture` where one is asked for."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table of the columns of `Picture`."""
        self.table = table.combine_chunks()

    @classmethod
    def of(cls, pictures: Sequence[IndexedImage]) -> ImageTable:
        """Returns the table of given pictures."""
        columns = {name: [getattr(picture, name) for picture in pictures] for name in SCHEMA.names}
        return cls(pa.table(columns, schema=SCHEMA))

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
        """Returns the pictures of some rows, at a twentieth of what one after the other would take."""
        return [IndexedImage(**values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def column(self, name: str) -> np.ndarray:
        """Returns a column, `[num_images]`."""
        return self.table[name].to_numpy()
