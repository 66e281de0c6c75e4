"""Tells what is wrong with a file from what is wrong with the machine, for everything that reads a source.

A file is rejected for what is its own: it is missing, nobody may read it, it is a folder or a link to itself, or a
server says so. Every other error says nothing about the file: too many open files, a failing disk, no memory, a
time-out, a lost connection. Such a file is read again a few times, and then the conversion stops. If it were rejected,
the dataset would lack good images, and the receipt that says so would never be written again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from tfrecords.base_errors import ConversionError
from tfrecords.convert.sources.source import Files, printable
from tfrecords.format.quarantine import Reason, Refusal

_Value = TypeVar("_Value")

# The errors of the operating system, and the answers of a web server, that are about one name.
_OWN_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EILSEQ,  # a name that the file system cannot have
        errno.ENXIO,  # a socket, or a device that does not exist
        errno.ENODEV,
    }
)
_OWN_STATUSES = frozenset({403, 404, 410, 414, 451})
_MISSING_STATUSES = frozenset({404, 410})
# Codes of S3 that are about who asks. Its driver raises PermissionError for them, as where a file may not be read.
_CODES_OF_CALLER = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "AccountProblem",
        "NotSignedUp",
        "InvalidSecurity",
    }
)
_WAITS_S = (0.1, 0.5, 2.0)  # before each further attempt to read a file


class MissingFile(Refusal):
    """The refusal of a file that does not exist, as opposed to one that may not be read."""


def refusal_of(error: Exception, path: str = "") -> Refusal:
    """Return the refusal of the file `path` for which `error` was raised; a URL needs no path.

    Raises OSError, with a number, if the error is a fault of the machine or the network.
    """
    if isinstance(error, Refusal):
        return error
    # Drivers raise FileNotFoundError for anything that happens while they look for a file.
    while isinstance(error, FileNotFoundError) and error.errno is None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    detail = describe(error)
    # A driver's own errors may have the number of a connection.
    number = error.errno if isinstance(error, OSError) and type(error).__module__ == "builtins" else None
    if number == errno.ELOOP:
        return Refusal(Reason.LINK_LOOP, detail)
    if number in (errno.ENOENT, errno.ENOTDIR) and path and os.path.islink(path):
        return Refusal(Reason.BROKEN_LINK, f"{detail}: it links to {os.readlink(path)!r}")
    if number in _OWN_ERRORS or (number is None and _is_about_file(error)):
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError) or _status(error) in _MISSING_STATUSES
        return (MissingFile if is_missing else Refusal)(Reason.UNREADABLE, detail)
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    raise OSError(errno.EIO, detail)  # one without a number could be that of a parser


def read_file(files: Files, path: str, place: tuple[int, int, int] | None = None) -> bytes:
    """Return the bytes of a file of a source, which is read again if the machine fails.

    Raises:
        Refusal: it cannot be read, or has changed since the source was opened.
        ConversionError: the machine fails each time.
    """
    with machine_errors(path):
        return patiently(lambda: files.read(path, place))


def patiently(read: Callable[[], _Value]) -> _Value:
    """Return `read()`, which is called again, after a pause, when it raises OSError."""
    for wait_s in _WAITS_S:
        with suppress(OSError):
            return read()
        time.sleep(wait_s)
    return read()


@contextmanager
def machine_errors(path: str) -> Iterator[None]:
    """Turn errors of the operating system while `path` is read into a ConversionError that says what to do."""
    try:
        yield
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else path
        raise ConversionError(
            f"{redacted(printable(name))} cannot be read: {describe(error)}. This is a fault of the machine or the "
            "network, not of the file. What is finished stays: give the same command again. If it is always the same "
            "file, move it away."
        ) from None


def describe(error: Exception) -> str:
    """Return what happened as a phrase, without the secrets in a URL."""
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return "it does not exist"
    if isinstance(error, OSError) and error.strerror and type(error).__module__ == "builtins":
        return redacted(error.strerror)
    text = redacted(str(error)).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def redacted(text: str) -> str:
    """Return `text` without the user names, passwords and queries of the URLs in it."""
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1?***", re.sub(r"://[^/@\s]*:[^/@\s]*@", "://***@", text))


def _is_about_file(error: Exception) -> bool:
    """Return whether an error of a driver, which has no number, is about one file."""
    if isinstance(error, PermissionError) and _s3_code(error.__cause__) in _CODES_OF_CALLER:
        return False
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):  # not an address, or a NUL in it
        return True
    return _status(error) in _OWN_STATUSES


def _status(error: Exception) -> int | None:
    """Return the status of the answer that a driver's library raised `error` for, if there was one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    holders = (error, response)
    statuses = (getattr(holder, name, None) for holder in holders for name in ("status", "status_code", "code"))
    return next((status for status in statuses if isinstance(status, int)), None)


def _s3_code(error: BaseException | None) -> str:
    """Return the code in the answer of S3 that botocore raised `error` for, or ""."""
    response = getattr(error, "response", None)
    answer = response.get("Error") if isinstance(response, dict) else None
    return str(answer.get("Code", "")) if isinstance(answer, dict) else ""
