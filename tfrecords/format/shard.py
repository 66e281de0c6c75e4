"""One shard: a TFRecord file that has its final name only when it is whole."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from tfrecords.base_errors import CorruptRecordError, DataError
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.layout import ShardInfo
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, read_records

__all__ = ["ShardReader", "ShardWriter", "index_bytes", "index_path"]

_WRITE_BYTES = 1 << 17  # at a time: few calls, and the processor's cache still holds it for the checksum


def index_path(shard: Path) -> Path:
    """Returns the name of a shard's offsets sidecar."""
    return shard.with_name(f"{shard.name}.idx")


def index_bytes(offsets: Iterable[tuple[int, int]]) -> bytes:
    """Returns what the sidecar of a shard holds whose records have these offsets and lengths, framing included."""
    return b"".join(b"%d %d\n" % pair for pair in offsets)


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes records to `path`, which appears when the block ends without an error and not at all otherwise.

    What it holds is durable then, if it is sealed; the name is when the caller has synchronised the folder.

    Args:
        path: the shard's final name.
        sealed: durable, and with its SHA-256; neither is needed of a shard that others will be made of.
        index: also write the offsets sidecar (before the shard appears, so a shard is never without it).
    """

    def __init__(self, path: Path, *, index: bool = False, sealed: bool = True) -> None:
        self._path = path
        self._index = index
        self._sealed = sealed
        self._sha256 = hashlib.sha256()
        self._lengths: list[int] = []
        self._num_bytes = 0
        self._parts: list[bytes] = []  # not yet in the file
        self._part_bytes = 0
        self._atomic: AbstractContextManager[BinaryIO] = atomic_file(path, sync=sealed, sync_name=False)
        self._file: BinaryIO

    def __enter__(self) -> ShardWriter:
        self._file = self._atomic.__enter__()
        return self

    def write(self, payload: bytes) -> None:
        """Appends one record."""
        self._append(FRAMING_BYTES + len(payload), header(len(payload)), payload, footer(payload))

    def write_framed(self, record: bytes) -> None:
        """Appends one record that has its framing already, as `ShardReader.read_framed` gives it; checks nothing."""
        self._append(len(record), record)

    def _append(self, length: int, *parts: bytes) -> None:
        self._parts += parts
        self._lengths.append(length)
        self._num_bytes += length
        self._part_bytes += length
        if self._part_bytes >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        if self._sealed:
            self._sha256.update(data)
        self._file.write(data)
        self._parts.clear()
        self._part_bytes = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._flush()
                if self._index:
                    with atomic_file(index_path(self._path), sync=self._sealed, sync_name=False) as file:
                        file.write(index_bytes(self._places()))
            except BaseException as failure:
                self._atomic.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._atomic.__exit__(kind, error, traceback)

    def _places(self) -> Iterator[tuple[int, int]]:
        return zip(accumulate(self._lengths, initial=0), self._lengths, strict=False)

    def info(self) -> ShardInfo:
        """Returns what was written, once the block has ended."""
        return ShardInfo(
            file=self._path.name,
            num_examples=len(self._lengths),
            num_bytes=self._num_bytes,
            sha256=self._sha256.hexdigest() if self._sealed else "",
        )


class ShardReader(AbstractContextManager["ShardReader"]):
    """Reads a shard's records in order, or any of them by its place.

    Reading by place keeps the file open, from the first such call until `close`, the end of the reader's `with` block,
    or of the reader.

    Args:
        path: the shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._close: Callable[[], object] = lambda: None
        self._descriptor = -1

    def __iter__(self) -> Iterator[bytes]:
        """Yields each payload, its checksums checked; raises CorruptRecordError with the record's place."""
        try:
            with open(self.path, "rb") as file:
                for _, payload in read_records(file, str(self.path)):
                    yield payload
        except FileNotFoundError:
            raise DataError(f"{self.path} is missing. Convert the pictures again.") from None

    def offsets(self) -> np.ndarray:
        """Returns int64 `[num_records, 2]`: offset and length in bytes of each record with its framing, by the sidecar.

        Shards of raw pixels have none: there, record i begins at byte i * `layout.offsets.record_bytes`.

        Raises:
            DataError: the sidecar is missing or damaged.
        """
        path = index_path(self.path)
        try:
            text = path.read_bytes()
            numbers = np.fromstring(text, np.int64, sep=" ")  # two million records take it a tenth of a second
            return numbers.reshape(text.count(b"\n"), 2)
        except FileNotFoundError:
            raise DataError(f"{path} is missing. Convert the pictures again.") from None
        except ValueError:
            raise DataError(f"{path} should hold a line `offset length` for each record.") from None

    def read_framed(self, offset: int, length: int) -> bytes:
        """Returns the record that lies at `offset` and is `length` bytes long, with its framing.

        Raises:
            DataError: the shard is missing.
            CorruptRecordError: it has no such record there, or a checksum fails.
        """
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise DataError(f"{self.path} is missing. Convert the pictures again.") from None
            self._close = weakref.finalize(self, os.close, self._descriptor)
        record = os.pread(self._descriptor, length, offset)
        payload_bytes = length - FRAMING_BYTES
        if (
            payload_bytes < 0
            or len(record) < length
            or not record.startswith(header(payload_bytes))
            or not record.endswith(footer(record[HEADER_BYTES:-FOOTER_BYTES]))
        ):
            raise CorruptRecordError(f"{self.path}: no record of {length} bytes at byte {offset}. Convert it again.")
        return record

    def read(self, offset: int, length: int) -> bytes:
        """Returns the payload of that record; raises what `read_framed` does."""
        return self.read_framed(offset, length)[HEADER_BYTES:-FOOTER_BYTES]

    def close(self) -> None:
        """Closes the file; the next record that is read by place opens it again."""
        self._close()
        self._descriptor = -1

    def __exit__(self, *_: object) -> None:
        self.close()
