"""The border around the parsers of files from elsewhere: whatever one of them raises becomes one error about the file.

A file may be truncated, damaged or made to do harm, and a parser then raises ValueError, KeyError, OverflowError,
RecursionError or an exception of its own library. Which one says nothing to a user. `parser_errors` stands around every
parser once, so that no parser needs a list of what it may raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tfrecords.base_errors import DataError, SimimgError
from tfrecords.format.quarantine import Refusal

_MAX_TEXT = 200  # characters of an exception's text, which may quote the file


@contextmanager
def parser_errors(as_error: Callable[[str], Exception]) -> Iterator[None]:
    """Turn every exception inside the block that says that a file is damaged into `as_error(fault)`.

    `fault` is a phrase such as "it has another form". Passed on unchanged are this project's own errors, a Refusal, and
    what is the fault of the machine instead of the file: MemoryError, and errors of the operating system.
    """
    try:
        yield
    except (SimimgError, Refusal, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise as_error(_fault(error)) from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of the operating system, while the file `path` of a dataset is read, into a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Convert the images again.") from None
    except OSError as error:
        if error.errno is None:  # of a parser
            raise
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. Make it readable, or convert the images again."
        ) from None


def _fault(error: Exception) -> str:
    text = " ".join(str(error).split())
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}…"
    plain = type(error) is ValueError and text  # raised on purpose, with a sentence
    return text if plain else f"{type(error).__name__}: {text}" if text else type(error).__name__
