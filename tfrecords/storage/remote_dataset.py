"""Datasets at URLs as folders of this machine: links to objects of the cache, so that every reader can read them.

1. The dataset is listed, always anew. Its folder here is named after its URL and after names, lengths and stamps (ETag)
   of all its objects, so a dataset that was changed has another folder, and who reads the old one goes on with it.
2. layout.json is read first. It has the length and the SHA-256 of everything else, and an object whose bytes differ is
   read once more and then refused. Datasets of other programs have no checksums: their lengths and stamps are compared.
3. Shards are read only for the splits that are asked for.

A dataset is there when its last object is: dataset_info.json. One that has a layout.json without it is being written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.format.absent_shards import supply
from tfrecords.format.layout import Layout
from tfrecords.format.naming import INFO_FILE, LAYOUT_FILE, SIDECAR_FOLDERS, is_shard
from tfrecords.locations import path_of, url_of
from tfrecords.storage.drivers import first_answer, open_driver
from tfrecords.storage.object_cache import ObjectCache
from tfrecords.storage.remote_folder import RemoteFolder, RemoteObject, listing
from tfrecords.storage.shard_supply import RemoteShards


def local_dataset(
    location: str | Path,
    split: str | None = None,
    *,
    what: str = "--dataset_dir",
    verified: bool = True,
    streamed: bool = False,
) -> Path:
    """Return a folder of this machine that has the dataset at `location`: the location itself, if it is no URL.

    What is read stays in the cache until nothing of it is in use and its room is needed; see `ObjectCache`.

    Args:
        location: a folder, or a URL of one.
        split: whose shards are needed: names with + between them, "" for none, None for all. A split that does not
            exist is no error here.
        what: names the location in errors.
        streamed: whether shards may be missing in the folder if those of all splits do not fit into the cache
            together. They are then brought here one after the other, see `tfrecords.format.absent_shards`.
        verified: whether an object that does not match its checksum is an error. Otherwise it is in the folder.

    Raises:
        UsageError: there is no dataset, it may not be read, or the cache cannot be used.
        DataError: an object is missing or damaged, or cannot be read after several attempts.
    """
    if not (url := url_of(location).rstrip("/")):
        return path_of(location)
    driver, root = open_driver(url, what)
    first_answer(lambda: driver.info(f"{root}/{INFO_FILE}"), url, what)
    objects = listing(driver, root, url, what, ("", *SIDECAR_FOLDERS).__contains__)
    state = [verified, *((found.name, found.num_bytes, found.stamp) for found in objects.values())]
    remote = RemoteFolder(url, driver, ObjectCache.of_environment(), state=state, verified=verified)
    _check_complete(objects, url, what)
    if LAYOUT_FILE not in objects:
        remote.link([(found, "") for found in objects.values() if split != "" or not is_shard(found.name)])
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
    needed = [name for name in needed if name in objects and name != LAYOUT_FILE]
    known = {info.file: info.sha256 for infos in layout.splits.values() for info in infos if info.file in objects}
    whole = {LAYOUT_FILE, *layout.files, *known} & objects.keys()  # a split that is linked leaves the others no room
    if streamed and not remote.cache.fits(sum(objects[name].num_bytes for name in whole)):
        if lost := sorted(shards.keys() - objects.keys()):
            raise DataError(f"{url}/{lost[0]} is missing. Copy or convert the dataset again.")
        remote.cache.check_size(max((objects[name].num_bytes for name in shards), default=0))
        supply(remote.folder, RemoteShards(remote, {name: (objects[name], digest) for name, digest in known.items()}))
        needed = [name for name in needed if name in layout.files and not _shard_of(name)]
    remote.link([(objects[name], sha256.get(name, "")) for name in needed])
    return remote.folder


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
