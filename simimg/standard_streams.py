"""The three standard streams, in any state: closed, full, slow, without a reader, or a terminal that has hung up.

No command needs a stream to do its work. `open_standard_streams` gives each closed descriptor to /dev/null, so that no
file that is opened later gets its number, and lets writing never raise an error. What could not be written to standard
output is then known by `output_error`, and makes the exit code that of a failure.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from typing import Any, TextIO

from simimg.errors import UsageError

__all__ = ["ForgivingFile", "open_standard_streams", "output_error", "read_input"]


class ForgivingFile(io.RawIOBase):
    """A descriptor to write to. Errors are kept in `error`, the first of them, and never raised."""

    def __init__(self, descriptor: int) -> None:
        """Take an open descriptor, which stays open."""
        super().__init__()
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write all of `data` if that is possible; return its size in either case."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # a slow reader, of a pipe that another program made non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = self.error or error
                break
        return size


def open_standard_streams() -> None:
    """Make all three streams usable, in the whole process; streams that another program has replaced stay."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout = _forgiving(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _forgiving(sys.stderr, sys.__stderr__, 2)


def output_error() -> str:
    """Return why something could not be written to standard output, such as "No space left on device"; "" if it was.

    A reader that stops early, as `head` does, is no error, nor is a terminal that has hung up. An error is returned
    once.
    """
    sys.stdout.flush()
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(file, ForgivingFile) or (error := file.error) is None:
        return ""
    file.error = None
    # A terminal that hangs up gives EIO, as a broken disk does.
    is_gone = error.errno == errno.EPIPE or (error.errno == errno.EIO and stat.S_ISCHR(os.fstat(file.fileno()).st_mode))
    return "" if is_gone else error.strerror or str(error)


def read_input() -> bytes:
    """Return all of standard input.

    Raises:
        UsageError: it is a terminal, closed or empty, or cannot be read.
    """
    hint = "Give it the image, as in `… - < FILE`, or name a file."
    if sys.stdin.isatty():
        raise UsageError(f"-: standard input is a terminal. {hint}")
    parts: list[bytes] = []
    try:
        while (part := sys.stdin.buffer.read()) != b"":
            if part is None:  # a slow writer, in a pipe that another program made non-blocking
                select.select([sys.stdin], [], [])
            else:
                parts.append(part)
    except OSError as error:
        raise UsageError(f"-: standard input cannot be read: {error.strerror}. {hint}") from None
    if not parts:
        raise UsageError(f"-: standard input is empty or closed. {hint}")
    return b"".join(parts)


def _forgiving(stream: Any, original: Any, descriptor: int) -> TextIO:
    """Return a stream of this process as one whose writing never raises; one that was replaced is returned as it is."""
    if stream is not None and stream is not original:
        replaced: TextIO = stream
        return replaced
    is_error = descriptor == 2
    encoding = "utf-8" if stream is None else stream.encoding
    # Names of files that are not UTF-8 keep their bytes; another encoding shows what it lacks as escapes.
    errors = "surrogateescape" if encoding.lower() == "utf-8" and not is_error else "backslashreplace"
    if stream is not None:
        stream.flush()
    file = ForgivingFile(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding=encoding, errors=errors, line_buffering=is_error or file.isatty()
    )
