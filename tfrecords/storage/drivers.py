"""fsspec's drivers as this package uses them: never with what they were told before, and with errors that say what to
do.

A driver that keeps listings says for ever that an object does not exist that another process has written since, so each
of these is made without that. Every failure that is not about one object is tried again, after a pause.
"""

from __future__ import annotations

import errno
import functools
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from tfrecords.base_errors import DataError, SimimgError, UsageError
from tfrecords.convert.sources.read_errors import describe, redacted
from tfrecords.convert.sources.remote import check_url, remote_errors

_Value = TypeVar("_Value")

_ANSWER_S = 60.0  # after which a store that has not said anything is not there
WAITS_S = (0.2, 1.0, 4.0)  # before each further attempt; drivers have attempts of their own besides
_INSTALL = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG)
_ABOUT_CALLER = re.compile(
    "credential|AccessDenied|Access Denied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|anonymous",
    re.IGNORECASE,
)


def open_driver(url: str, what: str) -> tuple[Any, str]:
    """Return fsspec's driver for `url`, which `what` names in errors, and the path that the driver knows it by.

    Raises:
        UsageError: the URL contains a secret, or there is no driver, which says what to install.
    """
    check_url(url, what)
    with usage_errors(url, what):
        import fsspec.core  # not at the top: whoever reads local folders does not need it

        driver, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        return driver, str(path).rstrip("/")


@contextmanager
def usage_errors(url: str, what: str) -> Iterator[None]:
    """Turn the errors of a driver, at the start of a command, into a UsageError with the URL and the next step."""
    protocol = url.partition("://")[0].rpartition("::")[2]

    def as_error(error: Exception) -> Exception:
        shown = f"{what}={redacted(url)}"
        if isinstance(error, SimimgError):
            return error
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, OSError):
            error = error.__cause__  # drivers of the web raise it for a server that does not answer, too
        if isinstance(error, ImportError):
            package = _INSTALL.get(protocol)
            return UsageError(
                f"{shown}: there is no driver for {protocol}://. "
                + (f"Install it: pip install {package}" if package else f"{error}.")
            )
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            return UsageError(f"{shown}: unknown protocol {protocol}://. Known are s3, gs, az and others of fsspec.")
        if isinstance(error, PermissionError) or _ABOUT_CALLER.search(f"{type(error).__name__} {error}"):
            return UsageError(
                f"{shown}: the store refuses access ({_phrase(error)}). Check the credentials of this machine, and "
                "what they allow in this bucket."
            )
        if isinstance(error, FileNotFoundError) or "NoSuchBucket" in str(error):
            return UsageError(f"{shown} does not exist. Check the name of the bucket and the path in it.")
        return UsageError(
            f"{shown}: the store does not answer as expected ({_phrase(error)}). Check the address of its server and "
            "the network, and give the same command again."
        )

    with remote_errors(as_error):
        yield


def first_answer(call: Callable[[], object], url: str, what: str) -> None:
    """Make a small request to find out, before any work, whether the store answers; that nothing is there is an answer.

    A driver waits for minutes for a server that accepts a connection and then says nothing, so this has a time limit.

    Raises:
        UsageError: the store refuses access, or does not answer.
    """
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            call()
            answers.put(None)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    with usage_errors(url, what):
        try:
            error = answers.get(timeout=_ANSWER_S)
        except queue.Empty:
            raise TimeoutError(f"no answer for {_ANSWER_S:g} s") from None
        if error is not None and (not isinstance(error, FileNotFoundError) or isinstance(error.__cause__, OSError)):
            raise error


def check_bucket(driver: Any, path: str, url: str, what: str) -> None:
    """Raise UsageError if there is no such bucket; some servers make one when an object is put there."""
    with usage_errors(url, what):
        if hasattr(driver, "call_s3"):
            driver.call_s3("head_bucket", Bucket=path.partition("/")[0])


def patiently(call: Callable[[], _Value], url: str, doing: str = "read") -> _Value:
    """Return `call()`, which is called again, after a pause, whenever it fails for a reason that may pass.

    Raises:
        DataError: it failed each time, or for a reason that stays.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except (MemoryError, SimimgError):
            raise
        except FileNotFoundError:
            raise DataError(
                f"{redacted(url)} is missing. Write it again, or wait for whoever is replacing it."
            ) from None
        except Exception as error:  # drivers raise what their libraries raise
            if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
                raise DataError(
                    f"{redacted(url)} cannot be kept on this machine: {describe(error)}. Make room, or name another "
                    "folder with --cache_dir."
                ) from None
            if wait_s is None or isinstance(error, PermissionError):
                raise DataError(
                    f"{redacted(url)} cannot be {'read' if doing == 'read' else 'written'}: {_phrase(error)}. What is "
                    "finished stays: give the same command again when the store and the network work."
                ) from None
            time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def paths_below(driver: Any, root: str, url: str) -> list[str]:
    """Return the paths of all objects below `root`, which is at `url`; see `patiently`."""

    def listed() -> list[str]:
        with suppress(FileNotFoundError):
            return [path for path in driver.find(root) if path != root]  # some servers list the folder itself
        return []

    return patiently(listed, url)


def remove_paths(driver: Any, paths: Iterable[str], url: str) -> None:
    """Remove objects at `url` by their paths, also if another process has just removed them; see `patiently`."""

    def remove(path: str) -> None:
        with suppress(FileNotFoundError):
            driver.rm_file(path)

    for path in paths:
        patiently(functools.partial(remove, path), url, doing="write")


def _phrase(error: Exception) -> str:
    """Return what happened, in one line without an end."""
    return " ".join(describe(error).split()).rstrip(".")[:300]
