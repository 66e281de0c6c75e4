"""Folders and files behind URLs, for every protocol that fsspec has a driver for.

Addresses appear in messages and in the dataset's files, so an address with a password, a key or a signature is not
accepted. Drivers find credentials in the environment and in their own files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.labels import FileListing, source_of_folders
from tfrecords.convert.sources.source import MAX_FILE_BYTES, Source, is_ignored, too_large
from tfrecords.format.quarantine import Reason, Refusal

_SECRET = re.compile(
    r"://[^/@\s]*:[^/@\s]*@|[?&][^=&\s]*(?:sig|token|key|secret|passw|credential|auth)[^=&\s]*=", re.IGNORECASE
)
# Entries of a file's listing that change with its content; drivers use different names.
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


@dataclasses.dataclass(frozen=True)
class RemoteFiles:
    """Reads files relative to the URL `base`, or anywhere by their own URL."""

    base: str

    def read(self, path: str, place: tuple[int, int, int] | None = None) -> bytes:
        """Return the bytes of the file `path`; `place` is not used.

        Raises Refusal if it cannot be read, after the driver's own retries.
        """
        if is_url(path):
            return read_url(path)
        with remote_errors(refusal_of_url):
            driver, root = _driver(self.base)
            if _is_quoted(self.base):
                path = urllib.parse.quote(path, errors="surrogateescape")
            return _cat(driver, f"{root.rstrip('/')}/{path}")


def open_remote_folder(url: str, categories: Sequence[str] = ()) -> Source:
    """Find the image files below a URL, as `open_folder` does on this machine.

    Raises:
        UsageError: there is no driver for the protocol, the folder cannot be listed, or there is no image file.
    """
    unquote = functools.partial(urllib.parse.unquote, errors="surrogateescape") if _is_quoted(url) else str
    found = FileListing()
    folders: list[str] = []
    with driver_of(url) as (driver, root):
        root = root.rstrip("/")
        left = [root]
        while left:
            folder = left.pop()
            for info in driver.ls(folder, detail=True):  # its walk() skips folders that it cannot list
                quoted = info["name"].rstrip("/").rpartition("/")[2]
                name = unquote(quoted)
                inside = info["name"].rstrip("/") == f"{folder}/{quoted}" and "?" not in quoted
                if not name or not inside or is_ignored(name):
                    continue
                if info["type"] == "directory":
                    left.append(f"{folder}/{quoted}")
                    if folder == root:
                        folders.append(name)
                    continue
                size = info.get("size")
                path = unquote(f"{folder}/{quoted}"[len(root) + 1 :])
                found.add(path, -1 if size is None else int(size), stamp_of(info))
    return source_of_folders(
        found,
        location=url,
        files=RemoteFiles(url),
        name=unquote(root.rpartition("/")[2]) or "pictures",
        categories=categories,
        folders=folders,
    )


def is_url(path: str) -> bool:
    """Return whether `path` is a URL."""
    return "://" in path


def local_path(path: str) -> str:
    """Return the path of a `file://` URL, and everything else unchanged."""
    for protocol in ("file://", "local://"):
        if path.startswith(protocol):
            plain = path.removeprefix(protocol).removeprefix("localhost")
            return plain if os.path.lexists(plain) else urllib.parse.unquote(plain)
    return path


def check_url(url: str, flag: str = "--image_dir") -> None:
    """Raise UsageError if a URL contains a secret, which is not shown."""
    if _SECRET.search(url):
        raise UsageError(
            f"{flag}={redacted(url)} contains a password, a key or a signature, which would appear in the dataset's "
            "files. Leave it out: drivers take credentials from the environment and from their own configuration."
        )


def redacted(text: str) -> str:
    """Return `text` without the user names, passwords and queries of the URLs in it."""
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1?***", re.sub(r"://[^/@\s]*:[^/@\s]*@", "://***@", text))


@contextmanager
def driver_of(url: str, flag: str = "--image_dir") -> Iterator[tuple[Any, str]]:
    """Yield fsspec's driver for `url`, and the path that it knows it by.

    Raises:
        UsageError: the URL contains a secret, there is no driver, which says what to install, or the driver fails
            inside the block.
    """
    check_url(url, flag)
    protocol = url.partition("://")[0].rpartition("::")[2]

    def as_error(error: Exception) -> UsageError:
        shown = f"{flag}={redacted(url)}"
        if isinstance(error, UsageError):
            return error
        if isinstance(error, FileNotFoundError):
            return UsageError(f"{shown} does not exist. Check the address, and that it may be listed.")
        if isinstance(error, ImportError):  # fsspec knows the protocol, and says what to install
            return UsageError(f"{shown}: there is no driver for {protocol}://. {error}.")
        if "Protocol not known" in str(error):
            return UsageError(
                f"{shown}: unknown protocol {protocol}://. Known are file, http, https, s3, gs, az, hf, sftp and all "
                "others that fsspec has a driver for."
            )
        return UsageError(f"{shown} cannot be read: {refusal_of_url(error).detail}")

    with remote_errors(as_error):
        yield _driver(url)


def exists_url(url: str) -> bool:
    """Return whether there is a file at a URL; raises the same errors as `driver_of`."""
    with driver_of(url) as (driver, path):
        return bool(driver.exists(path))


@contextmanager
def opened(url: str, flag: str) -> Iterator[Any]:
    """Open the file at a URL for reading; it can seek. Raises the same errors as `driver_of`."""
    with driver_of(url, flag) as (driver, path):
        file = driver.open(path, "rb")
    with file:
        yield file


def glob_urls(pattern: str) -> list[str]:
    """Return the URLs of the files that match `pattern`; raises the same errors as `driver_of`."""
    with driver_of(pattern) as (driver, path):
        return [driver.unstrip_protocol(found) for found in driver.glob(path)]


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of the file at a URL, from `start` to `end` if they are given; raise Refusal if they cannot be
    read.
    """
    with remote_errors(refusal_of_url):
        driver, path = _driver(url)
        return _cat(driver, path, start, end)


@contextmanager
def remote_errors(as_error: Callable[[Exception], Exception]) -> Iterator[None]:
    """Turn every exception except MemoryError into `as_error(exception)`: drivers raise what their libraries raise."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise as_error(error) from None


def refusal_of_url(error: Exception) -> Refusal:
    """Return the refusal of a file whose driver raised `error`."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, FileNotFoundError):
        return Refusal(Reason.UNREADABLE, "it does not exist")
    text = redacted(str(error)).strip()
    return Refusal(Reason.UNREADABLE, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def stamp_of(info: Mapping[str, Any]) -> int:
    """Return a number that changes with the content of a file, from its listing by a driver; 0 if the listing has
    nothing.
    """
    for name in _STAMPS:
        if info.get(name) is not None:
            return int.from_bytes(hashlib.sha256(str(info[name]).encode()).digest()[:7], "little")
    return 0


def _driver(url: str) -> tuple[Any, str]:
    import fsspec.core  # not at the top: workers that read a local folder do not need it

    driver, path = fsspec.core.url_to_fs(url)
    return driver, str(path)


def _cat(driver: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    data = bytes(driver.cat_file(path, start=start, end=end))
    if len(data) > MAX_FILE_BYTES:
        raise too_large(len(data))
    return data


def _is_quoted(url: str) -> bool:
    return url.startswith(("http://", "https://"))
