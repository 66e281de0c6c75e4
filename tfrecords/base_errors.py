"""The exceptions that this project raises on purpose. `tfrecords` defines these; `simimg.errors` has the whole tree.

    SimimgError                  exit code 3
    ├── UsageError               exit code 2: an argument cannot be used; nothing was done
    ├── ConversionError          a conversion could not be completed
    │   └── Interrupted          exit code 130: stopped on request; the same command resumes it
    └── DataError                a dataset folder is incomplete or contradicts itself
        └── CorruptRecordError   a record's bytes do not match their checksum

A message says what is wrong, what was received and what to do, and names the file if there is one. Folders that stand
for a URL are named by it, see `name_for_users`.
"""

from __future__ import annotations

import errno
import re

_NO_MEMORY = re.compile(  # in the words of Python, the dynamic linker, Arrow, NumPy, oneDNN, XNNPack and TensorFlow
    "cannot allocate memory|failed to map segment|resource temporarily unavailable|can't start new thread|bad_alloc|"
    "out of memory|unable to allocate|malloc of size|failed to reshape runtime|resource.?exhausted|oom when allocating",
    re.IGNORECASE,
)
_URLS: dict[str, str] = {}  # by the folder of this machine


def name_for_users(folder: object, url: str) -> None:
    """Let every error message of this process name `url` where it names `folder`, which has its content here."""
    _URLS[str(folder)] = url


def as_named(text: object) -> str:
    """Return a text with the URLs of the folders in it, see `name_for_users`."""
    shown = str(text)
    for folder in sorted(_URLS, key=len, reverse=True):
        shown = shown.replace(folder, _URLS[folder])
    return shown


class SimimgError(Exception):
    """Base of all errors raised on purpose; `str(error)` can be shown to a user as it is."""

    exit_code = 3

    def __str__(self) -> str:
        return as_named(super().__str__())


class UsageError(SimimgError):
    """An argument cannot be used. Raised before anything was done."""

    exit_code = 2


class ConversionError(SimimgError):
    """A conversion could not be completed. Finished shards are kept and used by the next call."""


class Interrupted(ConversionError):
    """A conversion was asked to stop; the same command resumes it."""

    exit_code = 130


class DataError(SimimgError):
    """A dataset folder lacks a part, or two of its parts contradict each other."""


class CorruptRecordError(DataError):
    """A record's bytes do not match their checksum, or the file ends inside a record."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of any library says that the machine, or a limit of the process, leaves too little memory."""
    if isinstance(error, OSError) and error.errno is not None:  # its text may have a path
        return error.errno == errno.ENOMEM or (error.errno == errno.EAGAIN and error.filename is None)  # as of fork
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(f"{type(error).__name__}: {error}"))
