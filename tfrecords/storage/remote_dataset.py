"""Datasets at URLs as folders of this machine: links to objects of the cache, so that every reader can read them.

1. The dataset is listed, always anew. Its folder here is named after its URL and after names, lengths and stamps (ETag)
   of all its objects, so a dataset that was changed has another folder, and who reads the old one goes on with it.
2. layout.json is read first. It has the length and the SHA-256 of everything else, and an object whose bytes differ is
   read once more and then refused. Datasets of other programs have no checksums: their lengths and stamps are compared.
3. Shards are read only for the splits that are asked for.

A dataset is there when its last object is: dataset_info.json. One that has a layout.json without it is being written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.sources.remote import in_threads, stamp_of
from tfrecords.format.atomic_files import TEMPORARY, file_sha256
from tfrecords.format.layout import Layout
from tfrecords.format.naming import INFO_FILE, LAYOUT_FILE, SIDECAR_FOLDERS
from tfrecords.locations import path_of, url_of
from tfrecords.storage.drivers import first_answer, open_driver, patiently, usage_errors
from tfrecords.storage.object_cache import OBJECTS, ObjectCache

_DATASETS = "datasets"
_ORIGIN_FILE = ".url"  # in the folder of a dataset at a URL
_NUM_THREADS = 8
_TOLD_BYTES = 64 << 20  # more than that to read is worth a note
_OLD_S = 86400  # folders of datasets whose objects are all gone are removed after that
_LOGGER = logging.getLogger("simimg.storage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteObject:
    """An object of a dataset: its name in the dataset, the driver's name, its length, and its stamp."""

    name: str
    path: str
    num_bytes: int
    stamp: int


def local_dataset(
    location: str | Path, split: str | None = None, *, what: str = "--dataset_dir", verified: bool = True
) -> Path:
    """Return a folder of this machine that has the dataset at `location`: the location itself, if it is no URL.

    What is read stays in the cache until nothing of it is in use and its room is needed; see `ObjectCache`.

    Args:
        location: a folder, or a URL of one.
        split: whose shards are needed: names with + between them, "" for none, None for all. A split that does not
            exist is no error here.
        what: names the location in errors.
        verified: whether an object that does not match its checksum is an error. Otherwise it is in the folder.

    Raises:
        UsageError: there is no dataset, it may not be read, or the cache cannot be used.
        DataError: an object is missing or damaged, or cannot be read after several attempts.
    """
    if not (url := url_of(location).rstrip("/")):
        return path_of(location)
    driver, root = open_driver(url, what)
    first_answer(lambda: driver.info(f"{root}/{INFO_FILE}"), url, what)
    objects = _listing(driver, root, url, what)
    remote = _RemoteDataset(url, driver, objects, ObjectCache.of_environment(), verified)
    _check_complete(objects, url, what)
    if LAYOUT_FILE not in objects:
        remote.link([(found, "") for found in objects.values()])
        return remote.folder
    remote.link([(objects[LAYOUT_FILE], "")])
    try:
        layout = Layout.load(remote.folder)
    except DataError:
        if verified:
            raise
        remote.link([(found, "") for found in objects.values()])
        return remote.folder
    names = set(layout.splits) if split is None else set(split.split("+")) & set(layout.splits)
    shards = {info.file: info for name in names for info in layout.splits[name]}
    if verified:
        for name in shards.keys() & objects.keys():
            if objects[name].num_bytes != shards[name].num_bytes:
                raise DataError(
                    f"{url}/{name} has {objects[name].num_bytes:,} bytes, and {LAYOUT_FILE} says "
                    f"{shards[name].num_bytes:,}. Copy or convert the dataset again."
                )
    sha256 = layout.files | {name: info.sha256 for name, info in shards.items()}
    needed = [name for name in sha256 if _shard_of(name) in ("", *shards)] if verified else list(objects)
    remote.link([(objects[name], sha256.get(name, "")) for name in needed if name in objects and name != LAYOUT_FILE])
    return remote.folder


def origin_of(folder: Path) -> str:
    """Return where the dataset in a folder is: its URL if `local_dataset` made the folder, otherwise its path."""
    if folder.parent.name == _DATASETS and (folder.parent.parent / OBJECTS).is_dir():
        with suppress(OSError):
            return (folder / _ORIGIN_FILE).read_text()
    return str(folder.resolve())


class _Damaged(DataError):
    """The bytes of an object do not match their checksum."""


class _RemoteDataset:
    """A dataset at a URL, with its objects by name, and its folder here."""

    def __init__(
        self, url: str, driver: Any, objects: Mapping[str, RemoteObject], cache: ObjectCache, verified: bool
    ) -> None:
        self._url, self._driver, self._cache = url, driver, cache
        listed = repr([verified, url, *((found.name, found.num_bytes, found.stamp) for found in objects.values())])
        digest = hashlib.sha256(listed.encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.-]+", "-", url.partition("://")[2])[-80:].strip("-.")
        self.folder = cache.folder / _DATASETS / f"{name}-{digest}"
        self._verified = verified
        if not self.folder.is_dir():
            _remove_old(self.folder.parent)
            self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / _ORIGIN_FILE, lambda path: path.write_text(url))

    def link(self, wanted: Sequence[tuple[RemoteObject, str]]) -> None:
        """Give objects, each with its SHA-256 or "", their names in the folder; those that the cache lacks are read."""
        self._cache.check_size(sum(found.num_bytes for found, _ in wanted))
        num_bytes = sum(found.num_bytes for found, sha256 in wanted if not self._cache.has(self._key(found, sha256)))
        if num_bytes > _TOLD_BYTES:
            _LOGGER.info(
                "reading %s (%s MB) through %s", redacted(self._url), f"{num_bytes / 1e6:,.0f}", self._cache.folder
            )
        for (found, _), held in in_threads(self._held, wanted, _NUM_THREADS):
            name = self.folder / found.name
            target = os.path.relpath(held, name.parent)
            if not (name.is_symlink() and os.readlink(name) == target):
                name.parent.mkdir(exist_ok=True)
                _replace(name, lambda path, target=target: path.symlink_to(target))

    def _held(self, wanted: tuple[RemoteObject, str]) -> Path:
        try:
            return self._object(*wanted)
        except _Damaged:
            if self._verified:
                raise
            return self._object(wanted[0], "")

    def _key(self, found: RemoteObject, sha256: str) -> str:
        named = "\0".join((self._url, found.name, str(found.num_bytes), str(found.stamp), sha256))
        return f"{hashlib.sha256(named.encode()).hexdigest()[:40]}-{found.num_bytes}"

    def _object(self, found: RemoteObject, sha256: str) -> Path:
        url = f"{self._url}/{found.name}"

        def fetch(path: Path) -> None:
            for is_last in (False, True):
                patiently(lambda: self._read(found, path), url)
                if not sha256 or file_sha256(path) == sha256:
                    break
                if is_last:
                    raise _Damaged(
                        f"{redacted(url)}: its SHA-256 differs from the one in {LAYOUT_FILE}. `simimg verify` says "
                        "what is damaged; copy or convert the dataset again."
                    )
            if not sha256 and self._verified and _stamp(self._driver.info(found.path)) != found.stamp:
                raise DataError(f"{redacted(url)} was replaced while it was read. Give the same command again.")

        return self._cache.hold(self._key(found, sha256), found.num_bytes, fetch)

    def _read(self, found: RemoteObject, path: Path) -> None:
        self._driver.get_file(found.path, str(path))
        if (length := path.stat().st_size) != found.num_bytes:
            raise OSError(f"{length:,} bytes of {found.num_bytes:,} were read")


def _listing(driver: Any, root: str, url: str, what: str) -> dict[str, RemoteObject]:
    """Return the objects of a dataset by their names, sorted; names that lead elsewhere are left out."""
    found: dict[str, RemoteObject] = {}
    with usage_errors(url, what):
        entries = driver.find(root, maxdepth=2, detail=True)
        for path, info in sorted(entries.items()):
            name = str(info["name"]).removeprefix(root).lstrip("/")
            folder, _, last = name.rpartition("/")
            if folder not in ("", *SIDECAR_FOLDERS) or last in ("", ".", "..") or last.startswith("."):
                continue
            if info.get("size") is None or not _stamp(info):
                info = driver.info(path)
            if info.get("size") is None or not (stamp := _stamp(info)):
                raise UsageError(
                    f"{what}={redacted(url)}: its server says neither how long {name} is nor when it changes (ETag, "
                    "Last-Modified). Copy the dataset to this machine."
                )
            found[name] = RemoteObject(name=name, path=path, num_bytes=int(info["size"]), stamp=stamp)
        if not found and not driver.exists(root):
            raise FileNotFoundError(root)
    return found


def _stamp(info: Mapping[str, Any]) -> int:
    """Return the stamp of an object; some drivers have a time as a number in listings, and as a datetime elsewhere."""
    return stamp_of({key: value.timestamp() if hasattr(value, "timestamp") else value for key, value in info.items()})


def _check_complete(objects: Mapping[str, RemoteObject], url: str, what: str) -> None:
    if INFO_FILE in objects:
        return
    if LAYOUT_FILE in objects:
        raise UsageError(
            f"{what}={redacted(url)} has a {LAYOUT_FILE} and no {INFO_FILE}: it is being written, or that was "
            "interrupted. Wait, or give the command that writes it again."
        )
    raise UsageError(
        f"{what}={redacted(url)} has no {INFO_FILE}: it is no dataset. Name the folder of one, DATA_DIR/NAME/VERSION."
    )


def _shard_of(name: str) -> str:
    """Return the shard that a file of a dataset is a sidecar of, "" for every other file."""
    folder, _, last = name.rpartition("/")
    return last.rpartition(".")[0] if folder in SIDECAR_FOLDERS else ""


def _replace(path: Path, make: Any) -> None:
    """Make a file or a link under a temporary name, and give it its own."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
    make(temporary)
    os.replace(temporary, path)


def _remove_old(folders: Path) -> None:
    """Remove the folders of datasets of which nothing is in the cache any more."""
    with suppress(OSError):
        for folder in folders.iterdir():
            links = [path for path in folder.rglob("*") if path.is_symlink()]
            if time.time() - folder.stat().st_mtime > _OLD_S and not any(path.exists() for path in links):
                shutil.rmtree(folder, ignore_errors=True)
