"""The exceptions this project raises on purpose, one tree, drawn here for this half and in `simimg.errors` for both.

    SimimgError                  exit code 3
    ├── UsageError               exit code 1: an argument cannot be used; nothing was done
    ├── ConversionError          a conversion could not go on
    │   └── Interrupted          exit code 130: stopped on request; the same command goes on
    └── DataError                a data set folder is not what it says it is
        └── CorruptRecordError   a record's bytes fail their checksum

A message says what is wrong, what was received, and what to do, and names the file where there is one.
"""

from __future__ import annotations


class SimimgError(Exception):
    """Anything this project raises on purpose; `str(error)` is fit to be shown to a user as it is."""

    exit_code = 3


class UsageError(SimimgError):
    """An argument cannot be used. Raised before anything was done."""

    exit_code = 1


class ConversionError(SimimgError):
    """A conversion could not go on; what it had finished stays and is used by the next call."""


class Interrupted(ConversionError):
    """A conversion was asked to stop; the same command goes on where it stopped."""

    exit_code = 130


class DataError(SimimgError):
    """A data set folder is missing a part, or a part contradicts another."""


class CorruptRecordError(DataError):
    """A record's bytes fail their checksum, or the file ends inside a record."""
