"""What lies behind a URL: folders and single files, wherever a driver of fsspec reaches.

Addresses end up in messages and in the data set's files, so one that has a password, a key or a signature in it is not
taken. Drivers find credentials by themselves, in the environment and in their own files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.labels import FileListing, source_of_folders
from tfrecords.convert.sources.source import MAX_FILE_BYTES, Source, is_ignored, too_large
from tfrecords.format.quarantine import Reason, Refusal

__all__ = [
    "RemoteFiles",
    "check_driver",
    "check_url",
    "exists_url",
    "glob_urls",
    "is_url",
    "local_path",
    "open_remote_folder",
    "opened",
    "read_url",
    "redacted",
    "refusal_of_url",
    "stamp_of",
]

# What to install where fsspec has the driver's name and not the driver.
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp requests", "https": "aiohttp requests",
    "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko",
    "smb": "smbprotocol", "webdav": "webdav4", "oci": "ocifs", "oss": "ossfs", "hdfs": "pyarrow",
}  # fmt: skip
_SECRET = re.compile(
    r"://[^/@\s]*:[^/@\s]*@|[?&][^=&\s]*(?:sig|token|key|secret|passw|credential|auth)[^=&\s]*=", re.IGNORECASE
)
# Of a file's listing, what changes with its content; drivers call it by different names.
_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


@dataclasses.dataclass(frozen=True)
class RemoteFiles:
    """Reads files below the URL `base`, or anywhere by a URL of their own."""

    base: str

    def read(self, path: str, place: tuple[int, int, int] | None = None) -> bytes:
        """Returns the bytes of the file `path`; `place` means nothing here.

        Raises:
            Refusal: it cannot be read; the driver has tried as often as it does.
        """
        if is_url(path):
            return read_url(path)
        try:
            driver, root = _driver(self.base)
            if _is_quoted(self.base):
                path = urllib.parse.quote(path, errors="surrogateescape")
            return _cat(driver, f"{root.rstrip('/')}/{path}")
        except MemoryError:
            raise
        except Exception as error:  # drivers raise what their libraries raise
            raise refusal_of_url(error) from None


def open_remote_folder(url: str, categories: Sequence[str] = ()) -> Source:
    """Finds the image files below a URL, as `open_folder` does in a folder of this machine.

    Raises:
        UsageError: there is no driver for the protocol, the folder cannot be listed, or there is no image file.
    """
    check_url(url)
    driver, root = _driver_or_error(url)
    root = root.rstrip("/")
    unquote = functools.partial(urllib.parse.unquote, errors="surrogateescape") if _is_quoted(url) else str
    found = FileListing()
    folders: list[str] = []
    left = [root]
    try:
        while left:
            folder = left.pop()
            for info in driver.ls(folder, detail=True):  # its own walk() leaves out the folders that it cannot list
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
    except MemoryError:
        raise
    except Exception as error:
        raise _usage_error(error, "--image_dir", url) from None
    return source_of_folders(
        found,
        location=url,
        files=RemoteFiles(url),
        name=unquote(root.rpartition("/")[2]) or "pictures",
        categories=categories,
        folders=folders,
    )


def is_url(path: str) -> bool:
    """Tells whether `path` is a URL."""
    return "://" in path


def local_path(path: str) -> str:
    """Returns the path of a `file://` URL, and everything else as it is."""
    for protocol in ("file://", "local://"):
        if path.startswith(protocol):
            plain = path.removeprefix(protocol).removeprefix("localhost")
            return plain if os.path.lexists(plain) else urllib.parse.unquote(plain)
    return path


def check_url(url: str, flag: str = "--image_dir") -> None:
    """Checks that a URL has no secret in it.

    Raises:
        UsageError: it has; it is not shown.
    """
    if _SECRET.search(url):
        raise UsageError(
            f"{flag}={redacted(url)} has a password, a key or a signature in it, which would end up in the data set's "
            "files. Leave it out: drivers take credentials from the environment and from their own configuration."
        )


def redacted(text: str) -> str:
    """Returns `text` without the user names, passwords and queries of URLs in it."""
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1?***", re.sub(r"://[^/@\s]*:[^/@\s]*@", "://***@", text))


def check_driver(url: str, flag: str = "--image_dir") -> None:
    """Checks that there is a driver for the protocol of `url`.

    Raises:
        UsageError: there is none; says what to install.
    """
    _driver_or_error(url, flag)


def exists_url(url: str, flag: str = "--image_dir") -> bool:
    """Tells whether there is a file at a URL; raises UsageError where there is no driver for it."""
    check_url(url, flag)
    driver, path = _driver_or_error(url, flag)
    try:
        return bool(driver.exists(path))
    except MemoryError:
        raise
    except Exception as error:
        raise _usage_error(error, flag, url) from None


@contextmanager
def opened(url: str, flag: str) -> Iterator[Any]:
    """Opens the file at a URL for reading; it can seek.

    Raises:
        UsageError: it cannot be opened.
    """
    check_url(url, flag)
    driver, path = _driver_or_error(url, flag)
    try:
        file = driver.open(path, "rb")
    except MemoryError:
        raise
    except Exception as error:
        raise _usage_error(error, flag, url) from None
    with file:
        yield file


def glob_urls(pattern: str, flag: str = "--image_dir") -> list[str]:
    """Returns the URLs of the files that `pattern` stands for.

    Raises:
        UsageError: there is no driver for the protocol, or it cannot list.
    """
    driver, path = _driver_or_error(pattern, flag)
    try:
        return [driver.unstrip_protocol(found) for found in driver.glob(path)]
    except MemoryError:
        raise
    except Exception as error:
        raise _usage_error(error, flag, pattern) from None


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Returns the bytes of the file at a URL, from `start` to `end` if they are given.

    Raises:
        Refusal: it cannot be read.
    """
    try:
        driver, path = _driver(url)
        return _cat(driver, path, start, end)
    except MemoryError:
        raise
    except Exception as error:
        raise refusal_of_url(error) from None


def refusal_of_url(error: Exception) -> Refusal:
    """Returns why a file is refused whose driver raised `error`."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, FileNotFoundError):
        return Refusal(Reason.UNREADABLE, "it is not there")
    text = redacted(str(error)).strip()
    return Refusal(Reason.UNREADABLE, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def stamp_of(info: Mapping[str, Any]) -> int:
    """Returns a number that changes with the content of a file that a driver describes so; 0 if it does not say."""
    for name in _STAMPS:
        if info.get(name) is not None:
            return int.from_bytes(hashlib.sha256(str(info[name]).encode()).digest()[:7], "little")
    return 0


def _driver(url: str) -> tuple[Any, str]:
    import fsspec.core  # not at the top: workers that read a folder need not wait for it

    driver, path = fsspec.core.url_to_fs(url)
    return driver, str(path)


def _driver_or_error(url: str, flag: str = "--image_dir") -> tuple[Any, str]:
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        return _driver(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"Install its driver: pip install {package}" if package else f"Its driver is missing: {error}"
        raise UsageError(f"{flag}={redacted(url)}: {protocol}:// cannot be read here. {hint}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise _usage_error(error, flag, url) from None
        raise UsageError(
            f"{flag}={redacted(url)}: there is no protocol {protocol}://. "
            "Known are file, http, https, s3, gs, az, hf, sftp and whatever else fsspec has a driver for."
        ) from None
    except Exception as error:
        raise _usage_error(error, flag, url) from None


def _usage_error(error: Exception, flag: str, url: str) -> UsageError:
    if isinstance(error, UsageError):
        return error
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{flag}={redacted(url)} does not exist. Check the address, and that it may be listed.")
    return UsageError(f"{flag}={redacted(url)} cannot be read: {refusal_of_url(error).detail}")


def _cat(driver: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
    data = bytes(driver.cat_file(path, start=start, end=end))
    if len(data) > MAX_FILE_BYTES:
        raise too_large(len(data))
    return data


def _is_quoted(url: str) -> bool:
    return url.startswith(("http://", "https://"))
