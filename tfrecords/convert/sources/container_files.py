"""Container files with many images inside (tars, zips, TFRecord shards), and reading a range of bytes from one.

A member is read by its place, so workers share nothing, and no member waits for the one before it.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.image_folder import refusal_of
from tfrecords.convert.sources.remote import is_url, opened, read_url, refusal_of_url, remote_errors, stamp_of
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import ReadAt


class Member(NamedTuple):
    """A file in a container: its name as stored, its size, its place, and why it cannot be used."""

    name: str
    size: int
    offset: int
    length: int
    refused: Refusal | None


# A worker reads the members of a thousand tars in any order, and many systems limit a process to 1,024 descriptors.
_MAX_OPEN = 64


@dataclasses.dataclass(frozen=True)
class Containers:
    """Container files by number; a worker keeps the files open that it has opened.

    Attributes:
        paths: absolute path of each file, or its URL.
        sizes: bytes of each file when it was found.
        stamps: as in `Source`; for a local file its mtime in ns. Together with the size it shows whether places still
            hold.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    stamps: tuple[int, ...]
    _open: collections.OrderedDict[int, int] = dataclasses.field(
        default_factory=collections.OrderedDict, repr=False, compare=False
    )

    @classmethod
    def of(cls, paths: Sequence[str]) -> Containers:
        """Return the containers of these paths or URLs; raise UsageError if one cannot be opened."""
        sizes, stamps = [], []
        for path in paths:
            if is_url(path):
                with opened(path, "--image_dir") as file:
                    sizes.append(int(file.seek(0, os.SEEK_END)))
                    stamps.append(stamp_of(getattr(file, "details", None) or {}))
                continue
            try:
                status = os.stat(path)
            except OSError as error:
                raise UsageError(f"--image_dir: {path} cannot be opened: {error.strerror}.") from None
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"--image_dir: {path} is not a regular file.")
            sizes.append(status.st_size)
            stamps.append(status.st_mtime_ns)
        return cls(
            tuple(path if is_url(path) else os.path.abspath(path) for path in paths), tuple(sizes), tuple(stamps)
        )

    @contextmanager
    def scanned(self, number: int) -> Iterator[ReadAt]:
        """Open a container to read through it once, from front to back.

        Raises UsageError if it cannot be opened or read, including errors inside the block.
        """
        path = self.paths[number]
        if is_url(path):
            with opened(path, "--image_dir") as file:
                yield lambda offset, length: _seek_and_read(file, offset, length)
            return
        try:
            with open(path, "rb", buffering=0) as local:
                yield lambda offset, length: os.pread(local.fileno(), length, offset)
        except OSError as error:
            raise UsageError(f"--image_dir: {path} cannot be read: {error.strerror}.") from None

    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Return the bytes at `place`: a container's number, an offset and a length; `path` is not used.

        Raises Refusal if they cannot be read, or the container has changed since it was found.
        """
        assert place is not None
        return self.read_range(*place)

    def read_range(self, number: int, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` of a container; raises the same errors as `read`."""
        path = self.paths[number]
        if is_url(path):
            data = read_url(path, offset, offset + length)
            if len(data) != length:
                detail = f"{len(data)} bytes came where {length} were asked for; the server may not do range requests"
                raise Refusal(Reason.UNREADABLE, detail)
            return data
        try:
            descriptor = self._descriptor(number)
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != (self.sizes[number], self.stamps[number]):
                raise Refusal(Reason.CHANGED, f"{os.path.basename(path)} has changed since its members were listed")
            data = os.pread(descriptor, length, offset)
        except OSError as error:
            raise refusal_of(error, path) from None
        if len(data) != length:
            raise Refusal(Reason.TRUNCATED, f"{os.path.basename(path)} ends inside it")
        return data

    def __del__(self) -> None:
        while self._open:  # a process may open many sources one after another
            os.close(self._open.popitem()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return Containers, (self.paths, self.sizes, self.stamps)

    def _descriptor(self, number: int) -> int:
        descriptor = self._open.get(number)
        if descriptor is None:
            if len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[number] = os.open(self.paths[number], os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._open.move_to_end(number)
        return descriptor


def _seek_and_read(file: Any, offset: int, length: int) -> bytes:
    with remote_errors(lambda error: UsageError(f"the container cannot be read: {refusal_of_url(error).detail}")):
        file.seek(offset)
        return bytes(file.read(length))
