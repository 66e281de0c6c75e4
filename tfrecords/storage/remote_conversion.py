"""Conversions to a URL: the dataset is made in a local folder, and its files are put whole, the one that counts last.

    <cache>/conversions/<name>-<digest>/<name>/.1.0.0.work/     an unfinished conversion, as in every data_dir
    <cache>/conversions/<name>-<digest>/<name>/1.0.0/           the finished dataset, until all of it is in the store
    <cache>/conversions/<name>-<digest>/sent.jsonl              what is in the store: name, length and stamp

1. One process writes a dataset, see `tfrecords.storage.claims`.
2. An object is put from a file that is complete, so it is whole or absent; large ones by a multipart upload.
3. layout.json is put after everything else, and dataset_info.json after that. TFDS and simimg open no folder without
   it, so nobody sees a dataset that lacks something. Where the server can, it is put only if there is none.
   Before, what an interrupted conversion with other options had put there is removed.
4. Whatever ends the process, the same command on the same machine goes on: with finished shards, and with the first
   object that is not in the store. Uploads that were never ended are removed then.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, Interrupted, SimimgError, UsageError
from tfrecords.convert.sources.read_errors import redacted
from tfrecords.convert.sources.remote import in_threads, stamp_of
from tfrecords.format.naming import (
    FEATURES_FILE,
    FILE_FORMATS,
    INFO_FILE,
    LABELS_FILE,
    LAYOUT_FILE,
    MANIFEST_FILE,
    QUARANTINE_FILE,
    REPORT_FILE,
    SIDECAR_FOLDERS,
    VERSION,
    version_numbers,
)
from tfrecords.storage.claims import Claim, claimed, refused_to_overwrite
from tfrecords.storage.drivers import first_answer, open_driver, patiently, usage_errors
from tfrecords.storage.object_cache import cache_folder
from tfrecords.storage.remote_dataset import local_dataset

_NUM_THREADS = 4  # each large file is sent in several parts at once besides
_SENT = "sent.jsonl"
_NAMES = (LAYOUT_FILE, MANIFEST_FILE, QUARANTINE_FILE, REPORT_FILE, FEATURES_FILE, LABELS_FILE)


class RemoteTarget:
    """Where a conversion to a URL goes.

    Attributes:
        url: of the dataset, DATA_DIR/NAME/VERSION.
        exists: whether there is a dataset already. It is then in `data_dir`, without its shards, to be compared.
        data_dir: the folder of this machine to convert to.
        dataset_dir: the dataset in it.
    """

    def __init__(self, driver: Any, data_url: str, root: str, name: str, version: str) -> None:
        self.url, self._driver, self._target = f"{data_url}/{name}/{version}", driver, f"{root}/{name}/{version}"
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.data_dir = cache_folder() / "conversions" / f"{name}-{digest}"
        self.dataset_dir = self.data_dir / name / version
        self.exists = driver.exists(f"{self._target}/{INFO_FILE}")

    def prepare(self, claim: Claim) -> None:
        """Fetch what there is to compare, and remove what an interrupted upload left."""
        with _disk_errors(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if self.exists:
                shutil.rmtree(self.data_dir)
                there = local_dataset(self.url, "", what="--data_dir")
                self.dataset_dir.mkdir(parents=True)
                for path in there.iterdir():
                    if path.is_file() and not path.name.startswith("."):
                        shutil.copyfile(path, self.dataset_dir / path.name)
                # When the conversion began is not known: files without a stamp may all have changed since.
                os.utime(self.dataset_dir / LAYOUT_FILE, (0, 0))
        with suppress(Exception):  # not every server has these requests, nor everybody the right to make them
            abort_uploads(self._driver, self._target)
        self._claim = claim

    def send(self, describe: Callable[[str], object]) -> None:
        """Put all files of the finished dataset into the store, and make it visible.

        Raises:
            ConversionError: another process has written the dataset meanwhile.
            DataError: the store does not take a file, after several attempts; those that it took are kept.
        """
        if self.exists:
            return
        files = {path.relative_to(self.dataset_dir).as_posix(): path for path in self.dataset_dir.rglob("*")}
        files = {name: path for name, path in files.items() if path.is_file() and not path.name.startswith(".")}
        last = [name for name in (LAYOUT_FILE, INFO_FILE) if name in files]
        sent = self._sent()
        todo = [name for name in sorted(files) if name not in last and not self._is_there(sent.get(name), name)]
        num_bytes = sum(files[name].stat().st_size for name in todo)
        describe(f"sending {len(todo):,} files ({num_bytes / 1e6:,.0f} MB) to {redacted(self.url)}")
        self._claim.check()
        self._claim.is_sending = True
        self._remove_all_but(files)
        with open(self.data_dir / _SENT, "a") as journal:
            for name, facts in in_threads(lambda name: self._put(name, files[name]), todo, _NUM_THREADS):
                journal.write(json.dumps([name, *facts]) + "\n")
                journal.flush()
        self._claim.check()
        for name in last:
            self._put(name, files[name], new=name == INFO_FILE)
        self._claim.is_sending = False

    def finish(self) -> None:
        """Remove everything of the conversion from this machine."""
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _remove_all_but(self, files: Mapping[str, Path]) -> None:
        """Remove what an interrupted conversion of other files, or with other options, had put there."""

        def others() -> list[str]:
            if self._driver.exists(f"{self._target}/{INFO_FILE}"):
                return []  # of a dataset that somebody else has just completed, nothing is removed
            with suppress(FileNotFoundError):
                names = {path: path.removeprefix(self._target).lstrip("/") for path in self._driver.find(self._target)}
                return [path for path, name in names.items() if name not in files and _is_of_dataset(name)]
            return []

        for path in patiently(others, self.url):
            with suppress(FileNotFoundError):
                patiently(functools.partial(self._driver.rm_file, path), self.url, doing="write")

    def _sent(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        with suppress(FileNotFoundError):
            for line in (self.data_dir / _SENT).read_text().splitlines():
                with suppress(ValueError):  # a power failure
                    name, num_bytes, stamp = json.loads(line)
                    found[name] = num_bytes, stamp
        return found

    def _is_there(self, facts: tuple[int, int] | None, name: str) -> bool:
        if facts is None or facts[0] != (self.dataset_dir / name).stat().st_size:
            return False
        try:
            return patiently(lambda: self._facts(name), self.url) == facts
        except SimimgError:
            return False

    def _facts(self, name: str) -> tuple[int, int]:
        info = self._driver.info(f"{self._target}/{name}")
        return int(info["size"]), stamp_of(info)

    def _put(self, name: str, path: Path, *, new: bool = False) -> tuple[int, int]:
        """Put a file and return its length and stamp in the store; a `new` one only if there is none."""
        url, target = f"{self.url}/{name}", f"{self._target}/{name}"
        exists = ConversionError(
            f"{redacted(url)}: another conversion has just written it. Give the same command again."
        )

        def put() -> tuple[int, int]:
            if new and self._claim.conditional:
                try:
                    self._driver.pipe_file(target, path.read_bytes(), mode="create")
                except Exception as error:
                    # An attempt whose answer was lost may have written it.
                    if not refused_to_overwrite(error) or self._driver.cat_file(target) != path.read_bytes():
                        raise exists if refused_to_overwrite(error) else error from None
            else:
                if new and self._driver.exists(target):
                    raise exists
                self._driver.put_file(str(path), target)
            facts = self._facts(name)
            if facts[0] != path.stat().st_size:
                raise OSError(f"{facts[0]:,} bytes of {path.stat().st_size:,} were written")
            return facts

        return patiently(put, url, doing="write")


@contextmanager
def remote_target(data_url: str, name: str, what: str = "--data_dir") -> Iterator[RemoteTarget]:
    """Hold the right to write dataset `name` below a URL, and yield where to convert to.

    Errors of the conversion name the URL instead of the local folder.

    Raises:
        UsageError: the store cannot be used; nothing was done.
        ConversionError: another process is writing the dataset.
    """
    driver, root = open_driver(data_url, what)
    first_answer(lambda: driver.info(f"{root}/{name}"), data_url, what)
    with usage_errors(data_url, what):
        if hasattr(driver, "call_s3"):  # some servers make a bucket of a mistyped name when an object is put there
            driver.call_s3("head_bucket", Bucket=root.partition("/")[0])
        target = RemoteTarget(driver, data_url, root, name, _newest_version(driver, f"{root}/{name}"))
    try:
        with claimed(driver, f"{root}/{name}/{target.dataset_dir.name}", target.url, what) as claim:
            target.prepare(claim)
            yield target
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command resumes the conversion.") from None
    except SimimgError as error:
        text = str(error).replace(str(target.dataset_dir), target.url)
        text = text.replace("choose another --data_dir", "name another --cache_dir")
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
        number = abort_uploads(driver, target)
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


def _is_of_dataset(name: str) -> bool:
    """Return whether an object of this name, relative to a dataset, may be one that a conversion put there."""
    if name.partition("/")[0] in SIDECAR_FOLDERS:
        return True
    return name in _NAMES or any(re.search(rf"\.{kind}-\d+-of-\d+$", name) for kind in FILE_FORMATS)


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
