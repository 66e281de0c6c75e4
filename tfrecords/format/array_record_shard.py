"""Shards as ArrayRecord files, which `tfds.data_source` and Grain read at random: the same examples in the same order.

The package array-record writes and reads the files. Each example is a chunk of its own (`group_size:1`), so one can be
read without its neighbors, and it is not compressed: pixels and image files would hardly become shorter, reading would
take longer, and the bytes would depend on the version of the compressor. Each chunk has a hash, which is verified when
it is read.

A file ends with the list of its records. If its end is missing, the package opens it all the same and says that it has
0 records; only `ok()` tells, and `close()` says why.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import CorruptRecordError, UsageError
from tfrecords.format.atomic_files import atomic_file, file_sha256
from tfrecords.format.layout import ShardInfo

WRITER_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0"  # for reads at random; otherwise each reads megabytes ahead

_READ_BYTES = 1 << 22  # per call, when all records are read


def array_record_library() -> Any:
    """Return the module with the reader and the writer; raise UsageError if it is not installed."""
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise UsageError(
            "ArrayRecord files (--format=array_record) need the package array-record. Install it with: "
            "pip install 'simimg-tf[array_record]'"
        ) from None
    return array_record_module


@contextmanager
def open_array_record(path: Path, *, durable: bool = True) -> Iterator[ArrayRecordWriter]:
    """Open a shard for writing, as `tfrecords.format.shard.open_shard` does for TFRecord.

    Raises:
        OSError: it cannot be written.
    """
    library = array_record_library()
    with atomic_file(path, sync=durable, sync_name=False) as file, _os_errors(path):
        temporary = Path(os.fsdecode(file.name))
        native = library.ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        writer = ArrayRecordWriter(path.name, native)
        try:
            yield writer
        except BaseException:
            with suppress(RuntimeError):
                native.close()
            raise
        native.close()
        writer.num_bytes = temporary.stat().st_size
        writer.sha256 = file_sha256(temporary) if durable else ""


class ArrayRecordWriter:
    """Writes examples to a file. See `open_array_record`."""

    def __init__(self, name: str, native: Any) -> None:
        self.num_bytes, self.sha256 = 0, ""
        self._name = name
        self._native = native
        self._num_examples = self._payload_bytes = 0

    def write(self, payload: bytes) -> None:
        """Append one example."""
        self._native.write(payload)
        self._num_examples += 1
        self._payload_bytes += len(payload)

    def info(self) -> ShardInfo:
        """Return what was written; to be called after the block has ended."""
        return ShardInfo(
            file=self._name,
            num_examples=self._num_examples,
            num_bytes=self.num_bytes,
            sha256=self.sha256,
            payload_bytes=self._payload_bytes,
        )


class ArrayRecordReader:
    """Reads the examples of the shard `path` by their positions, in several threads if necessary.

    Raises:
        OSError: the file is missing or cannot be read.
        CorruptRecordError: it is damaged as a whole.
        UsageError: the package is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        library = array_record_library()
        with open(path, "rb"):
            pass  # the package's own errors do not tell a file that is missing from one that is damaged
        try:
            self._native = library.ArrayRecordReader(str(path), READER_OPTIONS, file_reader_buffer_size=1 << 15)
            if not self._native.ok():
                self._native.close()  # raises the reason, if there is one
                raise RuntimeError("the list of its records is missing at its end")
            self._num_records = int(self._native.num_records())
        except RuntimeError as error:
            raise CorruptRecordError(f"{path}: {_reason(error)}. Convert the images again.") from None

    def __len__(self) -> int:
        return self._num_records

    def read(self, position: int) -> bytes:
        """Return the example at a position; raise CorruptRecordError if there is none, or it is damaged."""
        if not 0 <= position < self._num_records:
            raise CorruptRecordError(f"{self.path} has no record {position}. Convert the images again.")
        try:
            payload: bytes = self._native.read([position])[0]
        except RuntimeError as error:
            raise CorruptRecordError(
                f"{self.path}: record {position}: {_reason(error)}. Convert the images again."
            ) from None
        return payload

    def __iter__(self) -> Iterator[bytes | str]:
        """Yield each example in order, or the reason why it cannot be read."""
        mean_bytes = max(1, os.stat(self.path).st_size // max(1, self._num_records))
        step = max(1, _READ_BYTES // mean_bytes)
        for start in range(0, self._num_records, step):
            positions = list(range(start, min(start + step, self._num_records)))
            try:
                yield from self._native.read(positions)
            except RuntimeError:  # the message does not say which of them it is
                for position in positions:
                    try:
                        yield self._native.read([position])[0]
                    except RuntimeError as error:
                        yield _reason(error)


def _reason(error: RuntimeError) -> str:
    """Return what the package says about a damaged file, without hashes and places in the file."""
    return (
        str(error).partition("; ")[0].partition(", block at")[0].partition(" (computed")[0].strip()
        or "it ends too early"
    )


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn the package's errors, such as `write() failed: No space left on device; writing ...`, into an OSError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0].rpartition("failed: ")[2]
        number = next((code for code in errno.errorcode if os.strerror(code) == reason), errno.EIO)
        raise OSError(number, reason, str(path)) from None
