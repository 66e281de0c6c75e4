"""Writes and reads one shard: a TFRecord file that gets its final name only when it is complete.

`open_shard` writes an ArrayRecord file if the name of the shard is that of one, see `is_array_record`.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfrecords.base_errors import CorruptRecordError, DataError
from tfrecords.format.array_record_shard import ArrayRecordWriter, open_array_record
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.jpeg_frame import size_of_example, sizes_bytes, sizes_path
from tfrecords.format.layout import ShardInfo
from tfrecords.format.naming import index_path, is_array_record
from tfrecords.format.parse_errors import readable
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, read_records

_WRITE_BYTES = 1 << 17  # per write: few calls, and the bytes are still in the processor's cache for the checksum


def index_bytes(lengths: Iterable[int]) -> bytes:
    """Return the content of the sidecar of a shard whose records have these lengths, framing included."""
    lines = []
    offset = 0
    for length in lengths:
        lines.append(b"%d %d\n" % (offset, length))
        offset += length
    return b"".join(lines)


@contextmanager
def open_shard(
    path: Path, *, index: bool = False, sizes: bool = False, durable: bool = True
) -> Iterator[ShardWriter | ArrayRecordWriter]:
    """Open a shard for writing. The file appears when the block ends without an error, and not at all otherwise.

    Args:
        path: the shard's final name.
        index: also write the offsets sidecar, before the shard appears, so that a shard is never without it. An
            ArrayRecord file has none.
        sizes: also write the sidecar with the sizes of the images, which are JPEGs; see `tfrecords.format.jpeg_frame`.
        durable: sync the content to the disk and compute its SHA-256. A shard that is only an intermediate result needs
            neither. The name is durable once the caller has synced the folder.
    """
    if is_array_record(path.name):
        with open_array_record(path, durable=durable) as array_writer:
            yield array_writer
        return
    with atomic_file(path, sync=durable, sync_name=False) as file:
        writer = ShardWriter(path.name, file, durable, sizes)
        yield writer
        writer.flush()
        if index:
            with atomic_file(index_path(path), sync=durable, sync_name=False) as sidecar:
                sidecar.write(index_bytes(writer.lengths))
        if sizes:
            with atomic_file(sizes_path(path), sync=durable, sync_name=False) as sidecar:
                sidecar.write(sizes_bytes(writer.sizes))


class ShardWriter:
    """Writes records to a file; `lengths` are those of the records in bytes, framing included. See `open_shard`.

    `sizes` are width and height of each JPEG, one after the other, if they are asked for.
    """

    def __init__(self, name: str, file: BinaryIO, durable: bool, with_sizes: bool = False) -> None:
        self.lengths = array("q")
        self.sizes = array("q")
        self._with_sizes = with_sizes
        self._name = name
        self._file = file
        self._durable = durable
        self._sha256 = hashlib.sha256()
        self._parts: list[bytes] = []  # not yet in the file
        self._part_bytes = 0

    def write(self, payload: bytes) -> None:
        """Append one record."""
        if self._with_sizes:
            self.sizes.extend(size_of_example(payload))
        self._append(FRAMING_BYTES + len(payload), header(len(payload)), payload, footer(payload))

    def write_framed(self, record: bytes) -> None:
        """Append one record with its framing, as returned by `ShardReader.read_framed`; nothing is checked."""
        if self._with_sizes:
            self.sizes.extend(size_of_example(record[HEADER_BYTES:-FOOTER_BYTES]))
        self._append(len(record), record)

    def _append(self, length: int, *parts: bytes) -> None:
        self._parts += parts
        self.lengths.append(length)
        self._part_bytes += length
        if self._part_bytes >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand all records to the file."""
        data = b"".join(self._parts)
        if self._durable:
            self._sha256.update(data)
        self._file.write(data)
        self._parts.clear()
        self._part_bytes = 0

    def info(self) -> ShardInfo:
        """Return what was written; to be called after the block has ended."""
        return ShardInfo(
            file=self._name,
            num_examples=len(self.lengths),
            num_bytes=sum(self.lengths),
            sha256=self._sha256.hexdigest() if self._durable else "",
        )


class ShardReader:
    """Reads the records of the shard `path` in order, or any of them by its offset and length.

    Reading by offset keeps the file open from the first such call until the end of the reader.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __iter__(self) -> Iterator[bytes]:
        """Yield each payload after checking its checksums; a CorruptRecordError says where the bad record is."""
        with readable(self.path), open(self.path, "rb") as file:
            yield from read_records(file, str(self.path))

    def offsets(self) -> np.ndarray:
        """Return the sidecar, int64 `[num_records, 2]`: offset and length in bytes of each record with its framing.

        Shards of raw pixels have no sidecar: record i begins at byte i * `layout.offsets.record_bytes`.

        Raises:
            DataError: the sidecar is missing or damaged.
        """
        path = index_path(self.path)
        with readable(path):
            text = path.read_bytes()
        try:
            numbers = np.fromstring(text, np.int64, sep=" ")  # a tenth of a second for two million records
            return numbers.reshape(text.count(b"\n"), 2)
        except ValueError:
            raise DataError(
                f"{path} should have one line `offset length` per record. Convert the images again."
            ) from None

    def read_framed(self, offset: int, length: int) -> bytes:
        """Return the record at `offset` that is `length` bytes long, with its framing.

        Raises:
            DataError: the shard is missing or cannot be read.
            CorruptRecordError: there is no such record, or a checksum fails.
        """
        with readable(self.path):
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._descriptor)
            payload_bytes = length - FRAMING_BYTES
            is_inside = offset >= 0 <= payload_bytes and offset + length <= os.fstat(self._descriptor).st_size
            record = os.pread(self._descriptor, length, offset) if is_inside else b""
        if (
            len(record) < max(length, FRAMING_BYTES)
            or not record.startswith(header(payload_bytes))
            or not record.endswith(footer(record[HEADER_BYTES:-FOOTER_BYTES]))
        ):
            raise CorruptRecordError(f"{self.path}: no record of {length} bytes at byte {offset}. Convert it again.")
        return record

    def read(self, offset: int, length: int) -> bytes:
        """Return the payload of that record; raises the same errors as `read_framed`."""
        return self.read_framed(offset, length)[HEADER_BYTES:-FOOTER_BYTES]
