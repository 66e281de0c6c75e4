"""Folders at URLs as folders of this machine: links to objects of the cache, so that every reader can read them."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import DataError, UsageError, name_for_users
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.sources.remote import in_threads, stamp_of
from tfrecords.format.atomic_files import TEMPORARY, file_sha256
from tfrecords.storage.drivers import patiently, usage_errors
from tfrecords.storage.object_cache import OBJECTS, ObjectCache

FOLDERS = "datasets"
"""Where the folders are in the cache."""

_ORIGIN_FILE = ".url"
_NUM_THREADS = 8
_TOLD_BYTES = 64 << 20  # more than that to read is worth a note
_OLD_S = 86400  # folders whose objects are all gone are removed after that
_LOGGER = logging.getLogger("simimg.storage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteObject:
    """An object of a folder: its name in the folder, the driver's name, its length, and its stamp."""

    name: str
    path: str
    num_bytes: int
    stamp: int


class DamagedObject(DataError):
    """The bytes of an object do not match their checksum."""


class RemoteFolder:
    """A folder at a URL, and where its objects are on this machine: `<cache>/<below>/<name>-<digest>`.

    The digest is that of the URL and of `state`, everything that makes it another folder. If it is not `verified`,
    objects that do not match their checksum are linked, too.
    """

    def __init__(
        self,
        url: str,
        driver: Any,
        cache: ObjectCache,
        *,
        state: object = None,
        below: str = FOLDERS,
        verified: bool = True,
    ) -> None:
        self.url, self._driver, self.cache = url, driver, cache
        digest = hashlib.sha256(repr([url, state]).encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.-]+", "-", url.partition("://")[2])[-80:].strip("-.")
        self.folder = cache.folder / below / f"{name}-{digest}"
        self._verified = verified
        if not self.folder.is_dir():
            _remove_old(cache.folder / FOLDERS)
            self.folder.mkdir(parents=True, exist_ok=True)
        replace(self.folder / _ORIGIN_FILE, lambda path: path.write_text(url))
        name_for_users(self.folder, url)

    def link(self, wanted: Sequence[tuple[RemoteObject, str]]) -> None:
        """Give objects, each with its SHA-256 or "", their names in the folder; those that the cache lacks are read.

        All of them are held until this process ends.

        Raises:
            UsageError: the cache has no room for all of them.
            DataError: an object is missing or damaged, or cannot be read after several attempts.
        """
        self.cache.check_size(sum(found.num_bytes for found, _ in wanted))
        num_bytes = sum(found.num_bytes for found, sha256 in wanted if not self.cache.has(self._key(found, sha256)))
        if num_bytes > _TOLD_BYTES:
            _LOGGER.info(
                "reading %s (%s MB) through %s", redacted(self.url), f"{num_bytes / 1e6:,.0f}", self.cache.folder
            )
        for (found, _), held in in_threads(self._held, wanted, _NUM_THREADS):
            self._place(found.name, held)

    def adopt(self, found: Iterable[RemoteObject]) -> None:
        """Give the cache the files of the folder that have just become these objects, and put links in their place."""
        for one in found:
            name = self.folder / one.name

            def copy(path: Path, name: Path = name) -> None:
                shutil.copyfile(name, path)

            self._place(one.name, self.cache.hold(self._key(one, ""), one.num_bytes, copy))

    def hold(self, found: RemoteObject, sha256: str) -> Path:
        """Return the path of an object in the cache, held until `release`; see `link` for errors."""
        return self.cache.hold(self._key(found, sha256), found.num_bytes, self._fetcher(found, sha256))

    def release(self, found: RemoteObject, sha256: str) -> None:
        """Hold an object no more."""
        self.cache.release(self._key(found, sha256))

    def _place(self, name: str, held: Path) -> None:
        path = self.folder / name
        target = os.path.relpath(held, path.parent)
        if not (path.is_symlink() and os.readlink(path) == target):
            path.parent.mkdir(exist_ok=True)
            replace(path, lambda temporary: temporary.symlink_to(target))

    def _held(self, wanted: tuple[RemoteObject, str]) -> Path:
        try:
            return self.hold(*wanted)
        except DamagedObject:
            if self._verified:
                raise
            return self.hold(wanted[0], "")

    def _key(self, found: RemoteObject, sha256: str) -> str:
        named = "\0".join((self.url, found.name, str(found.num_bytes), str(found.stamp), sha256))
        return f"{hashlib.sha256(named.encode()).hexdigest()[:40]}-{found.num_bytes}"

    def _fetcher(self, found: RemoteObject, sha256: str) -> Callable[[Path], None]:
        url = f"{self.url}/{found.name}"

        def fetch(path: Path) -> None:
            for is_last in (False, True):
                patiently(lambda: self._read(found, path), url)
                if not sha256 or file_sha256(path) == sha256:
                    break
                if is_last:
                    raise DamagedObject(
                        f"{redacted(url)}: its SHA-256 differs from the one in layout.json. `simimg verify` says "
                        "what is damaged; copy or convert the dataset again."
                    )
            if not sha256 and self._verified and _stamp(self._driver.info(found.path)) != found.stamp:
                raise DataError(f"{redacted(url)} was replaced while it was read. Give the same command again.")

        return fetch

    def _read(self, found: RemoteObject, path: Path) -> None:
        self._driver.get_file(found.path, str(path))
        if (length := path.stat().st_size) != found.num_bytes:
            raise OSError(f"{length:,} bytes of {found.num_bytes:,} were read")


def origin_of(folder: Path) -> str:
    """Return where the content of a folder is: its URL if it is a `RemoteFolder`, otherwise its path."""
    if (folder.parent.parent / OBJECTS).is_dir():
        with suppress(OSError):
            return (folder / _ORIGIN_FILE).read_text()
    return str(folder.resolve())


def listing(driver: Any, root: str, url: str, what: str, is_part: Callable[[str], bool]) -> dict[str, RemoteObject]:
    """Return the objects of a folder for whose folder in it `is_part` is true, by their names, sorted.

    Hidden ones, and names that lead elsewhere, are left out. Raises UsageError if the store cannot be listed.
    """
    found: dict[str, RemoteObject] = {}
    with usage_errors(url, what):
        entries = driver.find(root, maxdepth=2, detail=True)
        for path, info in sorted(entries.items()):
            name = str(info["name"]).removeprefix(root).lstrip("/")
            folder, _, last = name.rpartition("/")
            if not is_part(folder) or last in ("", ".", "..") or last.startswith("."):
                continue
            if info.get("size") is None or not _stamp(info):
                info = driver.info(path)
            if info.get("size") is None or not (stamp := _stamp(info)):
                raise UsageError(
                    f"{what}={redacted(url)}: its server says neither how long {name} is nor when it changes (ETag, "
                    "Last-Modified). Copy the folder to this machine."
                )
            found[name] = RemoteObject(name=name, path=path, num_bytes=int(info["size"]), stamp=stamp)
        if not found and not driver.exists(root):
            raise FileNotFoundError(root)
    return found


def _stamp(info: Mapping[str, Any]) -> int:
    """Return the stamp of an object; some drivers have a time as a number in listings, and as a datetime elsewhere."""
    return stamp_of({key: value.timestamp() if hasattr(value, "timestamp") else value for key, value in info.items()})


def replace(path: Path, make: Any) -> None:
    """Make a file or a link under a temporary name, and give it its own."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    make(temporary)
    os.replace(temporary, path)


def _remove_old(folders: Path) -> None:
    """Remove folders of which nothing is in the cache any more; none that somebody else made there."""
    with suppress(OSError):
        for folder in (origin.parent for origin in folders.glob(f"*/{_ORIGIN_FILE}")):
            links = [path for path in folder.rglob("*") if path.is_symlink()]
            if time.time() - folder.stat().st_mtime > _OLD_S and not any(path.exists() for path in links):
                shutil.rmtree(folder, ignore_errors=True)
