"""A folder on this machine, with one folder per class or with images only."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.class_folders import source_of_folders
from tfrecords.convert.sources.labels import FileListing
from tfrecords.convert.sources.linked_files import KEEP, Known, join_links, none_known
from tfrecords.convert.sources.natural_sort import natural_key, natural_order
from tfrecords.convert.sources.read_errors import refusal_of
from tfrecords.convert.sources.remote import is_url, read_url
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import (
    MAX_FILE_BYTES,
    QUARANTINE_JOURNAL,
    Source,
    refuse_damaged,
    stamp_of,
    too_large,
)
from tfrecords.format.quarantine import Reason, Refusal

_Identity = tuple[int, int]  # device and inode
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK, because opening a pipe would wait for a writer
_NOT_A_FILE = "it is not a regular file"
_LOOP = Refusal(Reason.LINK_LOOP, "it links to a folder that contains it")
_CHANGED = "it was written to while it was being read; convert it again later"
# A write sets the mtime when it begins, by a clock that ticks every 4 to 10 ms. For that long after a write (with a
# margin), an equal mtime does not mean equal bytes.
_FRESH_NS = 50_000_000
_DEEPEST_CLASS = 4  # folders below the source in which links to one another are looked for
_GENERATION = re.compile(r"generation-\d+")  # of an index, see `simimg.similarity.search_index`


@dataclasses.dataclass(frozen=True, slots=True)
class FolderFiles:
    """Reads files relative to `root`, or anywhere by an absolute path or a URL."""

    root: str

    @refuse_damaged
    def read(self, path: str, place: tuple[int, int, int] | None = None) -> bytes:
        """Return the bytes of the file `path`; `place` is not used.

        Raises Refusal if it cannot be read, is not a regular file, or was written to meanwhile, and OSError if the
        machine fails, or the whole folder is gone.
        """
        if is_url(path):
            return read_url(path)
        full = os.path.join(self.root, path)
        try:
            descriptor = os.open(full, _OPEN)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise Refusal(Reason.NOT_A_FILE, _NOT_A_FILE)
                if before.st_size > MAX_FILE_BYTES:
                    raise too_large(before.st_size)
                data = os.read(descriptor, before.st_size)
                while 0 < len(data) < before.st_size and (more := os.read(descriptor, before.st_size - len(data))):
                    data += more
                if abs(time.time_ns() - before.st_mtime_ns) < _FRESH_NS:
                    time.sleep(_FRESH_NS / 1e9)
                    if os.pread(descriptor, before.st_size, 0) != data:
                        raise Refusal(Reason.CHANGED, _CHANGED)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if _is_gone(self.root or "."):
                raise
            raise refusal_of(error, full) from None
        if len(data) != before.st_size or after.st_size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise Refusal(Reason.CHANGED, _CHANGED)
        return data


def _is_gone(folder: str) -> bool:
    """Return whether a folder is missing, or empty as the place of a mount that was lost."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:  # one that may not be listed is there
        return not os.path.isdir(folder)


def open_folder(
    image_dir: str,
    categories: Sequence[str] = (),
    selection: Selection | None = None,
    links: str = KEEP,
    known: Known = none_known,
) -> Source:
    """Find the image files of a folder, with `categories`, `selection`, `links` and `known` as in `open_source`.

    It has one folder per class, whose images may lie in folders of their own; or it has images and no folders, and they
    are one class named after it. Classes without images are left out, and the others are in natural order. There may
    also be split folders, see `tfrecords.convert.sources.folder_layout`.

    Raises:
        UsageError: a category does not exist, a folder cannot be listed, or there is no image file.
    """
    selection = selection or Selection()
    above = frozenset({_identity(image_dir)})
    found = FileListing()
    folders: list[str] = []
    are_classes = bool(categories)
    for entry in _listing(image_dir, selection):
        if _is_folder(entry):
            if selection.enters(entry.name):
                folders.append(entry.name)
        elif not categories and selection.takes(entry.name):
            add_file(found, entry.name, entry.path, is_link=entry.is_symlink())
    if not set(categories) <= set(folders):  # they may lie below split folders
        are_classes = False
    for folder in categories if are_classes else folders:
        top = os.path.join(image_dir, folder)
        for path, full, is_link in _walk(top, f"{folder}/", above, selection, os.path.islink(top)):
            if full:
                add_file(found, path, full, is_link=is_link)
            else:
                found.add(path, refused=_LOOP)
    source = source_of_folders(
        found,
        location=image_dir,
        files=FolderFiles(os.path.abspath(image_dir)),
        name=os.path.basename(os.path.realpath(image_dir)),
        categories=categories,
        folders=folders,
        selection=selection,
        is_selected=True,
    )
    has_links = found.links > 0
    del found  # 50 MB for a million files
    notes = _same_folders(source)
    if has_links:
        source = join_links(source, links, count_folders=not notes or links != KEEP, known=known)
    return dataclasses.replace(source, notes=(*source.notes, *(notes if links == KEEP else ())))


def walk(folder: Path, selection: Selection | None = None) -> list[str]:
    """Return the files in `folder`, relative to it, in natural order; links are followed, except in loops.

    Folders below it that simimg writes itself are left out: the quarantine of a plan, and an index. So are hidden and
    system files, and what `selection` does not take.
    """
    paths = [path for path, full, _ in _walk(str(folder), "", frozenset(), selection or Selection()) if full]
    return [paths[at] for at in natural_order(paths)]


def has_files(folder: Path, num_files: int) -> bool:
    """Return whether `walk` finds at least `num_files`, without looking further."""
    found = (path for path, full, _ in _walk(str(folder), "", frozenset(), Selection()) if full)
    return next(islice(found, num_files - 1, None), None) is not None


def add_file(
    found: FileListing,
    path: str,
    full: str,
    *,
    label: str | None = None,
    split: str | None = None,
    is_link: bool = False,
) -> None:
    """Append the file `full` to the listing as `path`; it is rejected if there is no such regular file.

    It is counted if it `is_link`, or has several names. Raises OSError if the machine fails.
    """
    try:
        status = os.stat(full)
        _add_status(found, path, status, label, split)
        found.links += is_link or status.st_nlink > 1
    except OSError as error:
        found.add(path, label=label, split=split, refused=refusal_of(error, full))
    except ValueError as error:  # a NUL in the path
        found.add(path, label=label, split=split, refused=Refusal(Reason.UNREADABLE, str(error)))


def _add_status(
    found: FileListing, path: str, status: os.stat_result, label: str | None = None, split: str | None = None
) -> None:
    if stat.S_ISREG(status.st_mode):
        found.add(path, status.st_size, stamp_of(status), label=label, split=split)
    else:  # reading a named pipe would wait forever
        found.add(path, label=label, split=split, refused=Refusal(Reason.NOT_A_FILE, _NOT_A_FILE))


def _walk(
    folder: str, prefix: str, above: frozenset[_Identity], selection: Selection, is_link: bool = False
) -> Iterator[tuple[str, str, bool]]:
    """Yield the path of each file below `folder`, after `prefix`, its full path, which is "" for a link to a folder
    that contains it, and whether it is a link or in a folder that is one, as `folder` if `is_link`.
    """
    this = _identity(folder)
    if this in above:
        yield prefix.rstrip("/"), "", True
        return
    entries = _listing(folder, selection)
    if above and _is_own(entries):
        return
    for entry in entries:
        path = prefix + entry.name
        if _is_folder(entry):
            if selection.enters(path):
                yield from _walk(entry.path, f"{path}/", above | {this}, selection, is_link or entry.is_symlink())
        elif selection.takes(path):
            yield path, entry.path, is_link or entry.is_symlink()


def _identity(folder: str) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _listing(folder: str, selection: Selection) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not selection.skips(entry.name)]
    except OSError as error:
        why = "permission denied" if isinstance(error, PermissionError) else refusal_of(error).detail
        raise UsageError(f"{folder} cannot be listed: {why}. Make it readable, or leave it out.") from None


def _same_folders(source: Source) -> list[str]:
    """Return a note for each folder that is there under several names, by links, as several splits or classes."""
    holding: dict[str, int] = {}  # an image of each folder that has some
    for id, path in enumerate(source.paths):
        holding.setdefault(path.rpartition("/")[0], id)
    first: dict[str, int] = {}  # the same of the folders at the top, where splits and classes are
    for folder, id in holding.items():
        parts = folder.split("/")[:_DEEPEST_CLASS] if folder and source.labels[id] >= 0 else []
        for end in range(1, len(parts) + 1):
            first.setdefault("/".join(parts[:end]), id)
    names: dict[_Identity, list[str]] = {}
    for folder in sorted(first, key=natural_key):
        with suppress(OSError):
            names.setdefault(_identity(os.path.join(source.location, folder)), []).append(folder)
    groups = [same for same in names.values() if len(same) > 1]
    notes = []
    for same in groups:
        above = {os.path.dirname(folder) for folder in same}
        if len(above) == len(same) and any(above <= set(group) for group in groups):
            continue  # the folders that they are in are one already
        if source.splits is not None and len({source.splits[first[folder]] for folder in same}) > 1:
            link = next((one for one in same if os.path.islink(os.path.join(source.location, one))), same[-1])
            notes.append(
                f"{', '.join(same)} are one folder in several splits, so that the same images are trained on and "
                f"validated or tested with; leave the link out: --exclude=/{link}/"
            )
        elif len({source.labels[first[folder]] for folder in same}) > 1:
            notes.append(
                f"the classes {', '.join(same)} are one folder, so that its images have several labels; leave links "
                "out with --categories"
            )
    return notes


def _is_own(entries: list[os.DirEntry[str]]) -> bool:
    """Whether a folder below the images was written by simimg: a quarantine, or an index with its thumbnails."""
    names = {entry.name for entry in entries}
    return QUARANTINE_JOURNAL in names or ("index.json" in names and any(map(_GENERATION.fullmatch, names)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        refusal_of(error, entry.path)  # raises the faults of the machine
        return False  # a link to itself, or to a place without permission: rejected as a file
