"""Indexes at URLs: searched through the cache, and updated in a folder of this machine whose new files are then sent.

    <url>/index.json, <url>/generation-000001/…, …      the files of a folder, without what can be computed again
    <cache>/datasets/<name>-<digest>/                   what is searched: links to objects of the cache
    <url>/.tasks/                                       what tasks of a cluster hand over, until it is fetched
    <cache>/indexes/<name>-<digest>/                    what is updated; embeddings of an interrupted update stay
        .base                                           the index.json at the URL that it was made from

1. One process updates an index, see `tfrecords.storage.claims`.
2. The files of a generation are put whole, then index.json. After that the earlier generation is removed. So whoever
   opens the index meanwhile gets one or the other, and tries again if it was the one that is gone.
3. Decisions and the findings of an audit are put when they are made, see `tfrecords.storage.uploads`.
4. Whatever ends an update, the same command on the same machine goes on, unless the index has changed at the URL.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simimg.errors import DataError, SearchIndexError, UsageError
from simimg.similarity.index_info import INFO_FILE
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.format.atomic_files import parse_json
from tfrecords.locations import path_of, url_of
from tfrecords.storage.claims import claimed
from tfrecords.storage.drivers import check_bucket, first_answer, open_driver, patiently, remove_paths, usage_errors
from tfrecords.storage.object_cache import NoRoom, ObjectCache
from tfrecords.storage.remote_folder import RemoteFolder, RemoteObject, listing, origin_of, replace
from tfrecords.storage.uploads import Upload

_WHAT = "--index_dir"
_BASE = ".base"
_SMALL = ("decisions.jsonl", "web/findings.json")  # files, not links, because they change in their place
_GENERATION = re.compile(r"generation-\d{6}")
_ATTEMPTS = 3  # to find the files that index.json names while another process writes the next ones
_LOGGER = logging.getLogger("simimg.storage")


def local_index(index_dir: str | Path, *, whole: bool = True) -> Path:
    """Return a folder of this machine that has the index at `index_dir`: `index_dir` itself, if it is no URL.

    Without `whole` it has index.json and the decisions alone.

    Raises:
        UsageError: the store cannot be used, or the cache has no room.
        SearchIndexError: there is no index.
        DataError: an object cannot be read after several attempts.
    """
    if not (url := url_of(index_dir).rstrip("/")):
        return path_of(index_dir)
    driver, root = open_driver(url, _WHAT)
    first_answer(lambda: driver.info(f"{root}/{INFO_FILE}"), url, _WHAT)
    remote = RemoteFolder(url, driver, ObjectCache.of_environment())
    objects = _objects(driver, root, url)
    for is_last in (*[False] * (_ATTEMPTS - 1), True):
        if INFO_FILE not in objects:
            raise SearchIndexError(f"{redacted(url)} is not an index: it has no {INFO_FILE}. Make one: simimg index")
        try:
            _link(remote, driver, objects, whole=whole)
            break
        except DataError:
            before, objects = objects, _objects(driver, root, url)
            if is_last or objects.get(INFO_FILE) == before[INFO_FILE]:
                raise
    return remote.folder


@contextmanager
def updated_index(index_dir: str | Path) -> Iterator[Path]:
    """Yield a folder of this machine to update the index at `index_dir` in: `index_dir` itself, if it is no URL.

    If the block raises nothing, what is new in the folder is sent.

    Raises:
        UsageError: the store cannot be used, or the cache has no room.
        ConversionError: another process updates the index.
        DataError: an object cannot be read or written after several attempts.
    """
    if not (url := url_of(index_dir).rstrip("/")):
        yield path_of(index_dir)
        return
    driver, root = open_driver(url, _WHAT)
    if "/" not in root.strip("/"):
        raise UsageError(f"{_WHAT}={redacted(url)}: should name a folder in the bucket.")
    first_answer(lambda: driver.info(f"{root}/{INFO_FILE}"), url, _WHAT)
    check_bucket(driver, root, url, _WHAT)
    with claimed(driver, root, url, _WHAT) as claim:
        remote = RemoteFolder(url, driver, ObjectCache.of_environment(), below="indexes")
        info, base = remote.folder / INFO_FILE, remote.folder / _BASE
        objects = _objects(driver, root, url)
        there = repr(objects.get(INFO_FILE))
        if info.is_symlink() or not base.is_file() or base.read_text() != there:
            info.unlink(missing_ok=True)
            if INFO_FILE in objects:
                _link(remote, driver, objects)
            replace(base, lambda path: path.write_text(there))
        yield remote.folder
        if info.is_symlink() or not info.is_file():  # nothing is new
            return
        current = _generation(info)
        files = [f"{current}/{path.name}" for path in (remote.folder / current).iterdir() if not path.is_symlink()]
        upload = Upload(driver, url, root, remote.folder, remote.folder / ".sent", claim)
        upload.send(files, [INFO_FILE], describe=_LOGGER.info)
        earlier = [name for name in objects if _GENERATION.match(name) and not name.startswith(current)]
        remove_paths(driver, [objects[name].path for name in earlier], url)
        objects = _objects(driver, root, url)
        replace(base, lambda path: path.write_text(repr(objects[INFO_FILE])))
        with suppress(NoRoom):  # the folder keeps the files
            remote.adopt(objects[name] for name in (INFO_FILE, *files))


def handover_of(index_dir: Path) -> str:
    """Return the URL where tasks put what they make for the index in a folder of this machine, "" if all see it."""
    url = url_of(origin_of(index_dir))
    return f"{url}/.tasks" if url else ""


def _objects(driver: Any, root: str, url: str) -> dict[str, RemoteObject]:
    def is_part(folder: str) -> bool:
        return folder in ("", "web") or _GENERATION.fullmatch(folder) is not None

    with usage_errors(url, _WHAT):
        if not driver.exists(root):
            return {}
    return listing(driver, root, url, _WHAT, is_part)


def _link(remote: RemoteFolder, driver: Any, objects: Mapping[str, RemoteObject], *, whole: bool = True) -> None:
    """Link the current generation, then index.json, and fetch the files that are not linked."""
    info = objects[INFO_FILE]
    current = _generation(remote.hold(info, ""))
    if whole:
        remote.link([(found, "") for name, found in objects.items() if name.startswith(f"{current}/")])
    remote.link([(info, "")])
    for folder in remote.folder.glob("generation-*"):
        if folder.name != current:
            shutil.rmtree(folder, ignore_errors=True)
    for name in _SMALL:
        path = remote.folder / name
        if name in objects:
            data = patiently(functools.partial(driver.cat_file, objects[name].path), f"{remote.url}/{name}")
            path.parent.mkdir(exist_ok=True)
            replace(path, lambda temporary, data=data: temporary.write_bytes(data))
        else:
            path.unlink(missing_ok=True)


def _generation(info: Path) -> str:
    """Return the folder that an index.json names; one that is not there if it is damaged, which is said on opening."""
    with suppress(ValueError, KeyError, TypeError):
        return f"generation-{parse_json(info.read_bytes())['generation']:06d}"
    return "generation-none"
