"""Folders and files behind URLs, for every protocol that fsspec has a driver for.

Addresses appear in messages and in the dataset's files, so an address with a password, a key or a signature is not
accepted. Drivers find credentials in the environment and in their own files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import queue
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.class_folders import source_of_folders
from tfrecords.convert.sources.labels import FileListing
from tfrecords.convert.sources.read_errors import describe, machine_errors, patiently, redacted, refusal_of
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import MAX_FILE_BYTES, Source, is_image, too_large
from tfrecords.format.quarantine import Refusal

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

_SECRET = re.compile(
    r"://[^/@\s]*:[^/@\s]*@|[?&][^=&\s]*(?:sig|token|key|secret|passw|credential|auth)[^=&\s]*=", re.IGNORECASE
)
# Entries of a file's listing that change with its content; drivers use different names.
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")
_READ_BYTES = 1 << 20
_NUM_THREADS = 32  # that ask for the stamps of files; each one waits for a server most of the time


@dataclasses.dataclass(frozen=True)
class RemoteFiles:
    """Reads files relative to the URL `base`, or anywhere by their own URL.

    With `has_sizes` the listing had the size of each file, so that none needs to be asked for before it is read.
    """

    base: str
    has_sizes: bool = False

    def read(self, path: str, place: tuple[int, int, int] | None = None) -> bytes:
        """Return the bytes of the file `path`; `place` is not used.

        Raises Refusal and OSError as `Files.read` does, after the driver's own retries.
        """
        return _read(path, self.base, has_size=self.has_sizes)


def open_remote_folder(url: str, categories: Sequence[str] = (), selection: Selection | None = None) -> Source:
    """Find the image files below a URL, as `open_folder` does on this machine.

    Raises:
        UsageError: there is no driver for the protocol, the folder cannot be listed, or there is no image file.
    """
    selection = selection or Selection()
    unquote = functools.partial(urllib.parse.unquote, errors="surrogateescape") if _is_web(url) else str
    found = FileListing()
    folders: list[str] = []
    unknown: list[int] = []  # files whose listing does not say when they change
    with driver_of(url) as (driver, root):
        root = root.rstrip("/")
        left = [root]
        while left:
            folder = left.pop()
            for info in driver.ls(folder, detail=True):  # its walk() skips folders that it cannot list
                quoted = info["name"].rstrip("/").rpartition("/")[2]
                name = unquote(quoted)
                inside = info["name"].rstrip("/") == f"{folder}/{quoted}" and "?" not in quoted
                if not name or not inside or selection.skips(name):
                    continue
                path = unquote(f"{folder}/{quoted}"[len(root) + 1 :])
                if info["type"] == "directory":
                    if not selection.enters(path):
                        continue
                    left.append(f"{folder}/{quoted}")
                    if folder == root:
                        folders.append(name)
                    continue
                if not selection.takes(path):
                    continue
                size = info.get("size")
                if not (stamp := stamp_of(info)) and is_image(path):
                    unknown.append(len(found.paths))
                found.add(path, -1 if size is None else int(size), stamp)
    if categories and set(categories) <= set(folders):
        unknown = [row for row in unknown if found.paths[row].partition("/")[0] in categories]
    add_stamps(found, unknown, url)
    return source_of_folders(
        found,
        location=url,
        files=RemoteFiles(url, all(size >= 0 for size in found.sizes)),
        name=unquote(root.rpartition("/")[2]) or "pictures",
        categories=categories,
        folders=folders,
        selection=selection,
        is_selected=True,
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
        return UsageError(f"{shown} cannot be read: {describe(error)}")

    with remote_errors(as_error):
        driver, path = _driver(url)
        driver.invalidate_cache()  # of what this process was told about the files before
        yield driver, path


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
    """Return the bytes of the file at a URL, from `start` to `end` if they are given; raises Refusal and OSError as
    `Files.read` does.
    """
    return _read(url, start=start, end=end)


def size_and_stamp(path: str, base: str = "") -> tuple[int, int]:
    """Return the size in bytes of a file below the URL `base`, or of a URL, -1 if the server does not say it; and its
    stamp as in `Source`.

    Raises Refusal and OSError as `Files.read` does.
    """
    with remote_errors(refusal_of):
        driver, path = _located(path, base)
        info = driver.info(path)
    size = info.get("size")
    return -1 if size is None else int(size), stamp_of(info)


def add_stamps(found: FileListing, rows: Sequence[int], base: str) -> None:
    """Ask for the stamps of the files at the indices `rows`, which lie below the URL `base` or have URLs of their own.

    Their sizes decide only whether they are too large: the digest of a source has no size where a listing has none.
    Raises ConversionError, with the address of the file, if a server does not answer.
    """

    def ask(row: int) -> tuple[int, int]:
        path = found.paths[row]
        try:
            with machine_errors(path if is_url(path) else f"{base.rstrip('/')}/{path}"):
                return patiently(lambda: size_and_stamp(path, base))
        except Refusal:
            return -1, 0  # the worker finds out, too

    for row, (size, stamp) in in_threads(ask, rows):
        found.stamps[row] = stamp
        if size > MAX_FILE_BYTES:
            found.refused.setdefault(row, too_large(size))


def in_threads(
    ask: Callable[[_Item], _Answer], items: Sequence[_Item], num_threads: int = _NUM_THREADS
) -> Iterator[tuple[_Item, _Answer]]:
    """Yield each item and `ask(item)`, in any order; raise the first error.

    The threads are daemons, so that neither Ctrl-C nor the end of the process waits for a server that does not answer.
    """
    todo: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[_Item, Any, Exception | None]] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                item = todo.get_nowait()
                try:
                    done.put((item, ask(item), None))
                except Exception as error:
                    done.put((item, None, error))

    for _ in range(min(num_threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in items:
            item, answer, error = done.get()
            if error is not None:
                raise error
            yield item, answer
    finally:
        with suppress(queue.Empty):  # after an error or Ctrl-C nobody waits for the others
            while True:
                todo.get_nowait()


@contextmanager
def remote_errors(as_error: Callable[[Exception], Exception]) -> Iterator[None]:
    """Turn every exception except MemoryError into `as_error(exception)`: drivers raise what their libraries raise."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise as_error(error) from None


def stamp_of(info: Mapping[str, Any]) -> int:
    """Return a negative number that changes with the content of a file, from its listing by a driver; 0 if the listing
    has nothing.
    """
    for name in _STAMPS:
        if info.get(name) is not None:
            return -1 - int.from_bytes(hashlib.sha256(str(info[name]).encode()).digest()[:7], "little")
    return 0


def _driver(url: str) -> tuple[Any, str]:
    import fsspec.core  # not at the top: workers that read a local folder do not need it

    driver, path = fsspec.core.url_to_fs(url)
    return driver, str(path)


def _located(path: str, base: str = "") -> tuple[Any, str]:
    """Return the driver of a file below the URL `base`, or of a URL, and the path that it knows it by."""
    if is_url(path):
        return _driver(path)
    driver, root = _driver(base)
    return driver, f"{root.rstrip('/')}/{urllib.parse.quote(path, errors='surrogateescape') if _is_web(base) else path}"


def _read(
    path: str, base: str = "", start: int | None = None, end: int | None = None, *, has_size: bool = False
) -> bytes:
    """Return a file below the URL `base` or of a URL, or a range of it. Of a file that is too large nothing is read,
    unless its listing had a size that was not; of a range up to one byte too many, if a server sends the whole file
    instead.
    """
    with remote_errors(refusal_of):  # also of a driver that cannot be made: some connect at once
        driver, path = _located(path, base)
        streams = "https" in driver.protocol  # not one such as simplecache, which fetches from the web by itself
        if start is not None and end is not None:
            if not streams:
                return bytes(driver.cat_file(path, start=start, end=end))
            return _streamed(driver, path, end - start, {"Range": f"bytes={start}-{end - 1}"})
        if streams:
            data = _streamed(driver, path, MAX_FILE_BYTES)
            size = len(data)
        elif (size := 0 if has_size else driver.info(path).get("size") or 0) <= MAX_FILE_BYTES:
            data = bytes(driver.cat_file(path))
            size = len(data)
        if size > MAX_FILE_BYTES:
            raise too_large(size)
    return data


def _streamed(driver: Any, url: str, num_bytes: int, headers: Mapping[str, str] = {}) -> bytes:
    """Return the answer to one request, of which no more than `num_bytes` and a MiB are read; one whose header says
    that it is too large for a file is rejected.
    """
    data = bytearray()
    headers = {**driver.kwargs.get("headers", {}), **headers}
    with driver.open(url, block_size=0, size=1, headers=headers) as file:  # an answer may have no size
        if (size := file.r.content_length or 0) > num_bytes == MAX_FILE_BYTES:
            raise too_large(size)
        while len(data) <= num_bytes and (part := file.read(_READ_BYTES)):
            data += part
    return bytes(data)


def _is_web(url: str) -> bool:
    """Return whether a URL is an address of the web, in which special characters are quoted."""
    return url.startswith(("http://", "https://"))
