"""Container files with many images inside (tars, zips, TFRecord shards), and reading a range of bytes from one.

A member is read by its place, so workers share nothing, and no member waits for the one before it. Each process keeps
some of the files open.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.sources.read_errors import describe, machine_errors, redacted, refusal_of
from tfrecords.convert.sources.remote import is_url, opened, read_url, remote_errors, size_and_stamp
from tfrecords.convert.sources.source import MAX_FILE_BYTES, printable, refuse_damaged, stamp_of, too_large
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import ReadAt


class Member(NamedTuple):
    """A file in a container: its name as stored, its size, its place, why it cannot be used, and whether the container
    says that the name is UTF-8.
    """

    name: str
    size: int
    offset: int
    length: int
    refused: Refusal | None
    is_utf8: bool = False


# A worker reads the members of a thousand tars in any order, and many systems limit a process to 1,024 descriptors.
_MAX_OPEN = 64


@dataclasses.dataclass(frozen=True)
class Containers:
    """Container files by number.

    Attributes:
        paths: absolute path of each file, or its URL.
        sizes: bytes of each file when it was found.
        stamps: as in `Source`. Together with the size it shows whether places still hold.
        mtimes_ns: time of modification of each local file. A ctime may change while the file is read, by a chmod.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    stamps: tuple[int, ...]
    mtimes_ns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Have no file open for longer than its containers are there: it may be deleted, and its disk space needed."""
        weakref.finalize(self, lambda: _opened.cache_clear())

    def __reduce__(self) -> tuple[Any, ...]:
        """Have a copy in a worker be made as this one was, so that it closes its files, too."""
        return type(self), (self.paths, self.sizes, self.stamps, self.mtimes_ns)

    @classmethod
    def of(cls, paths: Sequence[str]) -> Containers:
        """Return the containers of these paths or URLs; raise UsageError if one cannot be opened."""
        sizes, stamps, mtimes_ns = [], [], []
        for path in paths:
            if is_url(path):
                stamp = 0
                with opened(path, "--image_dir") as file:
                    sizes.append(int(file.seek(0, os.SEEK_END)))
                # A Refusal is that of a server, for example, that gives a file but says nothing about it.
                with suppress(Refusal), machine_errors(path):
                    stamp = size_and_stamp(path)[1]
                stamps.append(stamp)
                mtimes_ns.append(0)
                continue
            try:
                status = os.stat(path)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                why = refusal_of(error).detail if isinstance(error, OSError) else error
                raise UsageError(f"--image_dir: {path} cannot be opened: {why}.") from None
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"--image_dir: {path} is not a regular file.")
            sizes.append(status.st_size)
            stamps.append(stamp_of(status))
            mtimes_ns.append(status.st_mtime_ns)
        absolute = tuple(path if is_url(path) else os.path.abspath(path) for path in paths)
        return cls(absolute, tuple(sizes), tuple(stamps), tuple(mtimes_ns))

    @contextmanager
    def scanned(self, number: int) -> Iterator[ReadAt]:
        """Open a container to read through it once, from front to back.

        Raises UsageError if it cannot be opened or read, including errors inside the block, and ConversionError if the
        machine fails.
        """
        path = self.paths[number]
        with (
            machine_errors(path),
            parser_errors(lambda fault: UsageError(f"{path} is damaged: {fault}. Fetch or make it again.")),
        ):
            yield from self._scanned(path)

    def _scanned(self, path: str) -> Iterator[ReadAt]:
        if is_url(path):
            with opened(path, "--image_dir") as file:
                yield lambda offset, length: _seek_and_read(file, offset, length)
            return
        try:
            with open(path, "rb", buffering=0) as local:
                yield lambda offset, length: os.pread(local.fileno(), length, offset)
        except OSError as error:
            raise UsageError(f"--image_dir: {path} cannot be read: {refusal_of(error).detail}.") from None

    @refuse_damaged
    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Return the bytes at `place`: a container's number, an offset and a length; `path` is not used.

        Raises Refusal if they cannot be read, ConversionError if the container has changed or vanished since it was
        found, and OSError if the machine fails.
        """
        assert place is not None
        return self.read_range(*place)

    def read_range(self, number: int, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` of a container; raises the same errors as `read`."""
        path, size, stamp = self.paths[number], self.sizes[number], self.stamps[number]
        if not 0 <= offset <= offset + length <= size:  # a damaged archive may claim any place
            raise Refusal(Reason.TRUNCATED, f"{os.path.basename(path)} ends inside it")
        if length > MAX_FILE_BYTES:
            raise too_large(length)
        if is_url(path):
            try:
                if stamp and _stamp_of_url(path, stamp) != stamp:
                    raise _changed(path)
                data = read_url(path, offset, offset + length) if length else b""
            except Refusal:
                raise _changed(path) from None
            if len(data) != length:
                came = f"{len(data)} bytes" if len(data) < length else "more bytes"
                fault = f"{came} came where {length} were asked for; the server may not do range requests"
                raise OSError(errno.EIO, fault)
            return data
        try:
            file = _opened(path, stamp)
            status = os.fstat(file.descriptor)
            if (status.st_size, status.st_mtime_ns) != (size, self.mtimes_ns[number]):
                raise _changed(path)
            data = os.pread(file.descriptor, length, offset)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                _opened.cache_clear()  # there may be too many, or the server of the files may have forgotten them
            refusal_of(error, path)  # raises the faults of the machine
            raise _changed(path) from None
        if len(data) != length:
            raise _changed(path)
        return data


def _changed(path: str) -> ConversionError:
    """Return the error for a container that is not the listed one: it says nothing about any single member."""
    return ConversionError(
        f"{redacted(printable(path))} has changed or vanished since its members were listed. Give the same command "
        "again; it lists them anew."
    )


class _OpenFile:
    """A file that is open until neither the cache nor a thread that reads from it refers to it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


@functools.lru_cache(maxsize=_MAX_OPEN)  # of the process, since each task comes with containers of its own
def _opened(path: str, stamp: int) -> _OpenFile:
    """Return the open file `path`; another one for another `stamp`, after it was replaced."""
    return _OpenFile(path)


@functools.lru_cache(maxsize=1024)
def _stamp_of_url(path: str, expected: int) -> int:
    """Return the stamp of a URL, asked for once per process and listing."""
    return size_and_stamp(path)[1]


def _seek_and_read(file: Any, offset: int, length: int) -> bytes:
    with remote_errors(lambda error: UsageError(f"the container cannot be read: {describe(error)}")):
        file.seek(offset)
        return bytes(file.read(length))
