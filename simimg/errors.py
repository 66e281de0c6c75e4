"""Every exception that this project raises on purpose, in one tree, so that `except SimimgError` catches them all.

    SimimgError                  exit code 3
    ├── UsageError               exit code 2: an argument is not valid; nothing was done
    ├── ConversionError          a conversion cannot continue
    │   └── Interrupted          exit code 130: interrupted; the same command resumes
    ├── DataError                a dataset folder is damaged or incomplete
    │   └── CorruptRecordError   a record's bytes fail their checksum
    ├── ModelError               a model, its weights or its folder cannot be used
    │   └── CheckpointError      a checkpoint is damaged, or was written by another run
    ├── TrainingError            training cannot continue
    │   ├── WorkerLost           another worker was lost; the same command on all of them resumes
    │   └── TrainingInterrupted  exit code 130: interrupted; the same command resumes
    └── SearchIndexError         an index folder cannot be used, or was made with another model

A message says what is wrong, what was received and what to do, and names the file if there is one.
The first half of the tree is defined in `tfrecords.base_errors`, which must not import this package.
"""

from __future__ import annotations

import errno
import os

from tfrecords.base_errors import (
    ConversionError,
    CorruptRecordError,
    DataError,
    Interrupted,
    SimimgError,
    UsageError,
    lacks_memory,
)

_MAX_REASON = 200  # characters of a library's text about memory
_ADVICE = {
    errno.ENOSPC: "Free some space on its disk.",
    errno.EDQUOT: "Free some space, or raise the quota.",
    errno.EFBIG: "Raise the limit of the size of files (`ulimit -f`).",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}

__all__ = [
    "CheckpointError",
    "ConversionError",
    "CorruptRecordError",
    "DataError",
    "Interrupted",
    "ModelError",
    "SearchIndexError",
    "SimimgError",
    "TrainingError",
    "TrainingInterrupted",
    "UsageError",
    "WorkerLost",
    "lacks_memory",
    "system_error",
]


class ModelError(SimimgError):
    """A model, its weights or its folder cannot be used."""


class CheckpointError(ModelError):
    """A checkpoint is damaged, or was written by a run of another configuration."""


class TrainingError(SimimgError):
    """Training cannot continue."""


class WorkerLost(TrainingError):
    """A process that trained with this one was lost; the same command on all of them resumes."""


class TrainingInterrupted(TrainingError):
    """Training was interrupted; the same command resumes from the last checkpoint."""

    exit_code = 130


class SearchIndexError(SimimgError):
    """An index folder cannot be used, or was made with another model."""


def system_error(error: BaseException) -> str:
    """Return what the operating system refused, and what to do about it; "" if the error is none of the system's."""
    if lacks_memory(error):
        what = " ".join(str(error).split())[:_MAX_REASON]
        return (
            f"there is not enough memory{what and ': '}{what}. Close other programs, or raise the limits of this "
            "process (`ulimit -v`, `ulimit -u`)."
        )
    if not isinstance(error, OSError):
        return ""
    try:
        os.getcwd()
    except OSError:
        if not os.path.isabs(str(error.filename or "")):
            return "the current folder does not exist anymore. Change to another one."
    where = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{where}. {_ADVICE.get(error.errno or 0, '')}".rstrip()
