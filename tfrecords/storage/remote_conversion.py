"""Conversions to a URL: the dataset is made in a local folder, and its files are put whole, the one that counts last.

    <cache>/conversions/<name>-<digest>/<name>/.1.0.0.work/     an unfinished conversion, as in every data_dir
    <cache>/conversions/<name>-<digest>/<name>/1.0.0/           the finished dataset, until all of it is in the store,
                                                                or the existing one, which a new version is made from
    <cache>/edits/<name>-<digest>/…                             the same for an edit, which no conversion goes on with
    <cache>/conversions/<name>-<digest>/1.0.0-sent.jsonl        what is in the store, see `tfrecords.storage.uploads`

1. One process writes a dataset, see `tfrecords.storage.claims`. Who makes a new version of one holds both, the new one
   while it is sent.
2. layout.json is put after everything else, and dataset_info.json after that. TFDS and simimg open no folder without
   it, so nobody sees a dataset that lacks something. Where the server can, it is put only if there is none.
   Before, what an interrupted conversion with other options had put there is removed.
3. Whatever ends the process, the same command on the same machine goes on: with finished shards, and with the first
   object that is not in the store. Uploads that were never ended are removed then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import Interrupted, SimimgError, UsageError, name_for_users
from tfrecords.convert.output.reshard import link_or_copy
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.format.naming import (
    FEATURES_FILE,
    INFO_FILE,
    LABELS_FILE,
    LAYOUT_FILE,
    MANIFEST_FILE,
    QUARANTINE_FILE,
    REPORT_FILE,
    SIDECAR_FOLDERS,
    VERSION,
    is_shard,
    version_numbers,
)
from tfrecords.storage.claims import Claim, claimed
from tfrecords.storage.drivers import check_bucket, first_answer, open_driver, usage_errors
from tfrecords.storage.handover import remove_handed_over
from tfrecords.storage.object_cache import cache_folder
from tfrecords.storage.remote_dataset import local_dataset
from tfrecords.storage.uploads import Upload

_SENT = "sent.jsonl"
_NAMES = (LAYOUT_FILE, MANIFEST_FILE, QUARANTINE_FILE, REPORT_FILE, FEATURES_FILE, LABELS_FILE)


class RemoteTarget:
    """Where a conversion to a URL goes.

    Attributes:
        url: of the dataset that is there or is made, DATA_DIR/NAME/VERSION.
        exists: whether there is a dataset already. It is then in `data_dir`, to be compared or continued.
        data_dir: the folder of this machine to convert to.
        dataset_dir: the dataset in it.
        handover: where the workers of a cluster put shards, see `tfrecords.storage.handover`.
    """

    def __init__(self, driver: Any, data_url: str, root: str, name: str, version: str, *, anew: bool) -> None:
        self._driver, self._parent_url, self._parent = driver, f"{data_url}/{name}", f"{root}/{name}"
        self.url, self._target = f"{self._parent_url}/{version}", f"{self._parent}/{version}"
        self.handover = _handover(self.url)
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._anew = anew
        self.data_dir = cache_folder() / ("edits" if anew else "conversions") / f"{name}-{digest}"
        self.dataset_dir = self.data_dir / name / version
        self.exists = driver.exists(f"{self._target}/{INFO_FILE}")

    def prepare(self, claim: Claim, *, whole: bool) -> None:
        """Fetch what there is to compare, or the `whole` dataset, and remove what an interrupted upload left.

        Beside the same dataset, finished versions that were not sent stay, unless this begins `anew`.
        """
        self._claim = claim
        with _disk_errors(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if self.exists:
                there = local_dataset(self.url, None if whole else "", what="--data_dir")
                layout = self.dataset_dir / LAYOUT_FILE
                same = layout.is_file() and layout.read_bytes() == (there / LAYOUT_FILE).read_bytes()
                shutil.rmtree(self.dataset_dir if same and not self._anew else self.data_dir, ignore_errors=True)
                for path in there.rglob("*"):
                    if path.is_file() and not path.name.startswith("."):
                        target = self.dataset_dir / path.relative_to(there)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        link_or_copy(path.resolve(), target)
                # When the conversion began is not known: files without a stamp may all have changed since.
                layout.unlink()
                shutil.copyfile(there / LAYOUT_FILE, layout)
                os.utime(layout, (0, 0))
        name_for_users(self.data_dir, self._parent_url.rpartition("/")[0])
        self._abort_uploads(self._target)
        remove_handed_over(self.handover)

    def is_new(self, made: Path) -> bool:
        """Return whether the dataset `made`, a version below `data_dir`, is not the one that is there already."""
        return not self.exists or made != self.dataset_dir

    def send(self, made: Path, describe: Callable[[str], object]) -> None:
        """Put all files of the dataset `made`, a version below `data_dir`, and make it visible.

        Raises:
            ConversionError: another process writes the dataset, or has written it meanwhile.
            DataError: the store does not take a file, after several attempts; those that it took are kept.
        """
        self.url, target = f"{self._parent_url}/{made.name}", f"{self._parent}/{made.name}"
        files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
        files = {name for name in files if not name.rpartition("/")[2].startswith(".")}
        last = [name for name in (LAYOUT_FILE, INFO_FILE) if name in files]
        is_held = made.name == self.dataset_dir.name
        with nullcontext(self._claim) if is_held else claimed(self._driver, target, self.url, "--data_dir") as claim:
            self._abort_uploads(target)
            upload = Upload(self._driver, self.url, target, made, self.data_dir / f"{made.name}-{_SENT}", claim)
            upload.send(sorted(files - {*last}), last, describe=describe, new=INFO_FILE, is_ours=_is_of_dataset)

    def _abort_uploads(self, target: str) -> None:
        with suppress(Exception):  # not every server has these requests, nor everybody the right to make them
            abort_uploads(self._driver, target)

    def finish(self) -> None:
        """Remove everything of the conversion from this machine."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        remove_handed_over(self.handover)


@contextmanager
def remote_target(
    data_url: str, name: str, what: str = "--data_dir", *, whole: bool = False, anew: bool = False
) -> Iterator[RemoteTarget]:
    """Hold the right to write dataset `name` below a URL, and yield where to convert to.

    An existing dataset is then on this machine, too: without its shards, unless it is needed as a `whole`, to be
    continued. What an interrupted call made beside it is resumed, unless this one begins `anew`, as each edit does.
    Errors name the URL instead of the local folder.

    Raises:
        UsageError: the store cannot be used; nothing was done.
        ConversionError: another process is writing the dataset.
    """
    driver, root = open_driver(data_url, what)
    first_answer(lambda: driver.info(f"{root}/{name}"), data_url, what)
    check_bucket(driver, root, data_url, what)
    with usage_errors(data_url, what):
        target = RemoteTarget(driver, data_url, root, name, _newest_version(driver, f"{root}/{name}"), anew=anew)
    try:
        with claimed(driver, f"{root}/{name}/{target.dataset_dir.name}", target.url, what) as claim:
            target.prepare(claim, whole=whole)
            yield target
    except KeyboardInterrupt:
        then = "begins again" if anew else "resumes the conversion"
        raise Interrupted(f"interrupted; the same command {then}.") from None
    except SimimgError as error:
        text = str(error).replace("choose another --data_dir", "name another --cache_dir")
        raise type(error)(text) from error.__cause__


def remove_leftovers(url: str, what: str = "--dataset_dir") -> tuple[int, bool]:
    """Remove what interrupted conversions left of the dataset at `url`: uploads that were never ended, and if it has no
    dataset_info.json, all of its objects. Return how many of both, and whether there is a complete dataset.

    Raises:
        UsageError: the store cannot be used.
        ConversionError: another process is writing the dataset.
    """
    driver, target = open_driver(url, what)
    first_answer(lambda: driver.info(f"{target}/{INFO_FILE}"), url, what)
    if not version_numbers(target.rpartition("/")[2]):
        raise UsageError(f"{what}={redacted(url)}: should be the URL of a dataset, DATA_DIR/NAME/VERSION.")
    with claimed(driver, target, url, what), usage_errors(url, what):
        number = abort_uploads(driver, target) + remove_handed_over(_handover(url))
        if not (is_complete := driver.exists(f"{target}/{INFO_FILE}")):
            found = [path for path in driver.find(target) if path != target]  # some servers list the folder itself
            strange = [path for path in found if not _is_of_dataset(path.removeprefix(target).lstrip("/"))]
            if strange:
                raise UsageError(
                    f"{what}={redacted(url)} has objects that are of no conversion, e.g. {min(strange)}. Look at them, "
                    "and remove them with the store's own tools."
                )
            for path in found:
                driver.rm_file(path)
            number += len(found)
    return number, is_complete


def abort_uploads(driver: Any, target: str) -> int:
    """Remove the multipart uploads below `target` that were never ended, which cost storage; return their number.

    Only S3 keeps them visible; on other stores it is 0.
    """
    if not hasattr(driver, "call_s3"):
        return 0
    bucket, _, prefix = target.partition("/")
    marker: dict[str, str] = {}
    number = 0
    while True:
        found = driver.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/", **marker)
        for upload in found.get("Uploads") or ():
            if upload["Key"].startswith(f"{prefix}/"):  # some servers do not look at the prefix
                driver.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                number += 1
        if not found.get("IsTruncated"):
            return number
        marker = {"KeyMarker": found["NextKeyMarker"], "UploadIdMarker": found["NextUploadIdMarker"]}


def _handover(url: str) -> str:
    parent, _, version = url.rpartition("/")
    return f"{parent}/.{version}.shards"


def _is_of_dataset(name: str) -> bool:
    """Return whether an object of this name, relative to a dataset, may be one that a conversion put there."""
    if name.partition("/")[0] in SIDECAR_FOLDERS:
        return True
    return name in _NAMES or is_shard(name)


def _newest_version(driver: Any, folder: str) -> str:
    """Return the newest version of the dataset in `folder`, a driver's path; the first one if none is complete."""
    try:
        names = [str(info["name"]).rstrip("/").rpartition("/")[2] for info in driver.ls(folder, detail=True)]
    except FileNotFoundError:
        return VERSION
    there = sorted(filter(version_numbers, names), key=version_numbers)
    return next((name for name in reversed(there) if driver.exists(f"{folder}/{name}/{INFO_FILE}")), VERSION)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--cache_dir={folder} cannot be written: {error.strerror or error}. Name a folder with room for the whole "
            "dataset."
        ) from None
