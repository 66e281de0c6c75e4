"""The exceptions that this project raises on purpose. `tfrecords` defines these; `simimg.errors` has the whole tree.

    SimimgError                  exit code 3
    ├── UsageError               exit code 2: an argument cannot be used; nothing was done
    ├── ConversionError          a conversion could not be completed
    │   └── Interrupted          exit code 130: stopped on request; the same command resumes it
    └── DataError                a dataset folder is incomplete or contradicts itself
        └── CorruptRecordError   a record's bytes do not match their checksum

A message says what is wrong, what was received and what to do, and names the file if there is one.
"""

from __future__ import annotations


class SimimgError(Exception):
    """Base of all errors raised on purpose; `str(error)` can be shown to a user as it is."""

    exit_code = 3


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
