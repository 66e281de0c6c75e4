"""One shard: a TFRecord file that has its final name only when it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tfrecords.errors import CorruptRecordError, DataError
from tfrecords.format.files import atomic_file
from tfrecords.format.layout import ShardInfo
from tfrecords.format.record import FRAMING_BYTES, frame, read_records

__all__ = ["ShardReader", "ShardWriter", "index_bytes", "index_path"]


def index_path(shard: Path) -> Path:
    """Returns the name of a shard's offsets sidecar."""
    return shard.with_name(f"{shard.name}.idx")


def index_bytes(offsets: Iterable[tuple[int, int]]) -> bytes:
    """Returns what the sidecar of a shard holds whose records have these offsets and lengths, framing included."""
    return b"".join(b"%d %d\n" % pair for pair in offsets)


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes records to `path`, which appears when the block ends without an error and not at all otherwise.

    Args:
        path: the shard's final name.
        index: also write the offsets sidecar (before the shard appears, so a shard is never without it).
    """

    def __init__(self, path: Path, *, index: bool = False) -> None:
        self._path = path
        self._index = index
        self._sha256 = hashlib.sha256()
        self._offsets: list[tuple[int, int]] = []
        self._num_bytes = 0
        self._atomic: AbstractContextManager[BinaryIO] = atomic_file(path)
        self._file: BinaryIO

    def __enter__(self) -> ShardWriter:
        self._file = self._atomic.__enter__()
        return self

    def write(self, payload: bytes) -> None:
        """Appends one record."""
        record = frame(payload)
        self._file.write(record)
        self._sha256.update(record)
        self._offsets.append((self._num_bytes, len(record)))
        self._num_bytes += len(record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._index:
            try:
                with atomic_file(index_path(self._path)) as file:
                    file.write(index_bytes(self._offsets))
            except BaseException as failure:
                self._atomic.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._atomic.__exit__(kind, error, traceback)

    def info(self) -> ShardInfo:
        """Returns what was written."""
        return ShardInfo(
            file=self._path.name,
            num_examples=len(self._offsets),
            num_bytes=self._num_bytes,
            sha256=self._sha256.hexdigest(),
        )


@dataclasses.dataclass(frozen=True)
class ShardReader:
    """Reads a shard's records in order, or one by its position where the shard has an offsets sidecar."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        """Yields each payload, its checksums checked; raises CorruptRecordError with the record's place."""
        try:
            with open(self.path, "rb") as file:
                for _, payload in read_records(file, str(self.path)):
                    yield payload
        except FileNotFoundError:
            raise DataError(f"{self.path} is missing. Convert the pictures again.") from None

    def offsets(self) -> list[tuple[int, int]]:
        """Returns `(offset, length)` in bytes of each record, framing included, from the sidecar.

        Raises:
            DataError: the sidecar is missing or damaged.
        """
        path = index_path(self.path)
        try:
            lines = path.read_text().splitlines()
            return [(int(offset), int(length)) for offset, length in (line.split() for line in lines)]
        except FileNotFoundError:
            raise DataError(f"{path} is missing. Convert the pictures again.") from None
        except ValueError:
            raise DataError(f"{path} should hold a line `offset length` for each record.") from None

    def read(self, offset: int, length: int) -> bytes:
        """Returns the payload of the record that lies at `offset` and is `length` bytes long with its framing."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            for _, payload in read_records(file, str(self.path)):
                if len(payload) + FRAMING_BYTES == length:
                    return payload
                break
        raise CorruptRecordError(f"{self.path}: no record of {length} bytes at byte {offset}. Convert it again.")
