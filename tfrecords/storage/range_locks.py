"""Many locks in one file: each is one byte of it, at a place that follows from a name.

The locks are Linux's open file description locks (fcntl(2), F_OFD_SETLK). They belong to the opened file, so two
threads exclude each other as two processes do, a child that was forked keeps what its parent held, and the kernel
releases them when the last process with the file ends, however it ends. The bytes need not exist.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfrecords.base_errors import UsageError

_FLOCK = "hhqqi"  # struct flock: l_type, l_whence, l_start, l_len, l_pid, which has to be 0
_HELD_BY_OTHERS = (errno.EACCES, errno.EAGAIN)


class RangeLocks:
    """Locks by name, in one file that is opened for this object. Different names may share a lock, about never."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def share(self, name: str) -> None:
        """Hold a lock together with others, once nobody holds it alone; holding it twice is holding it once."""
        self._set(fcntl.F_RDLCK, name, wait=True)

    def acquire(self, name: str) -> None:
        """Hold a lock alone, once nobody else holds it."""
        self._set(fcntl.F_WRLCK, name, wait=True)

    def try_acquire(self, name: str) -> bool:
        """Hold a lock alone and return True, or return False if somebody else holds it."""
        return self._set(fcntl.F_WRLCK, name, wait=False)

    def release(self, name: str) -> None:
        """Hold a lock no more."""
        self._set(fcntl.F_UNLCK, name, wait=False)

    def close(self) -> None:
        """Release all locks, unless a forked process has them, too."""
        os.close(self._descriptor)

    def _set(self, kind: int, name: str, *, wait: bool) -> bool:
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 2
        how = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._descriptor, how, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))
        except OSError as error:
            if error.errno in _HELD_BY_OTHERS and not wait:
                return False
            raise UsageError(
                f"{self._path}: this file system has no locks ({error.strerror}). Name a folder on a local disk."
            ) from None
        return True


@contextmanager
def opened_locks(path: Path) -> Iterator[RangeLocks]:
    """Yield the locks in the file `path`, and release those that the block leaves held."""
    locks = RangeLocks(path)
    try:
        yield locks
    finally:
        locks.close()
