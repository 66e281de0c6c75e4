"""From what was found to a source: which files are of which class, in which order, and which are refused by their name.

Two ways to classes. By folders: the top folder that a file lies in is its class. By labels: each file comes with one.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import difflib
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.natural_sort import natural_key, natural_order
from tfrecords.convert.sources.source import (
    MAX_FILE_BYTES,
    SUFFIXES,
    Files,
    Source,
    class_name,
    is_picture,
    too_large,
)
from tfrecords.format.quarantine import Reason, Refusal

__all__ = ["FileListing", "check_categories", "some_of", "source_of_folders", "source_of_labels"]

_NO_CLASS = Refusal(Reason.NO_CLASS_FOLDER, "it lies beside the class folders; move it into one")
_NO_LABEL = Refusal(Reason.NO_CLASS_FOLDER, "it has no label")
_UNKNOWN_SUFFIX = Refusal(Reason.UNKNOWN_SUFFIX, f"the name ends in none of {' '.join(sorted(SUFFIXES))}")


@dataclasses.dataclass(eq=False)
class FileListing:
    """What was found, in any order, in columns; see `Source`. `refused` has the number in `paths` as its key."""

    paths: list[str] = dataclasses.field(default_factory=list)
    sizes: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    stamps: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    places: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))  # three a file, or none
    labels: list[str] = dataclasses.field(default_factory=list)  # where each file comes with one; "" is none
    splits: list[str] = dataclasses.field(default_factory=list)  # where the source has its own
    refused: dict[int, Refusal] = dataclasses.field(default_factory=dict)

    def add(
        self,
        path: str,
        size: int = -1,
        stamp: int = 0,
        place: tuple[int, int, int] | None = None,
        *,
        label: str | None = None,
        split: str | None = None,
        refused: Refusal | None = None,
    ) -> None:
        """Appends one file."""
        if refused is not None:
            self.refused[len(self.paths)] = refused
        elif size > MAX_FILE_BYTES:
            self.refused[len(self.paths)] = too_large(size)
        self.paths.append(path)
        self.sizes.append(size)
        self.stamps.append(stamp)
        if place is not None:
            self.places.extend(place)
        if label is not None:
            self.labels.append(label)
        if split is not None:
            self.splits.append(split)

    def drop(self, rows: Collection[int]) -> None:
        """Takes files out."""
        gone = set(rows)
        kept = [row for row in range(len(self.paths)) if row not in gone]
        self.refused = {new: self.refused[old] for new, old in enumerate(kept) if old in self.refused}
        self.paths = [self.paths[row] for row in kept]
        self.sizes = array.array("q", (self.sizes[row] for row in kept))
        self.stamps = array.array("q", (self.stamps[row] for row in kept))
        self.places = array.array("q", (self.places[3 * row + at] for row in kept if self.places for at in range(3)))
        self.labels = [self.labels[row] for row in kept if self.labels]
        self.splits = [self.splits[row] for row in kept if self.splits]

    def source(
        self,
        rows: Sequence[int],
        labels: Iterable[int],
        *,
        location: str,
        class_names: Sequence[str],
        files: Files,
        refused: dict[int, Refusal],
        notes: Iterable[str],
    ) -> Source:
        """Returns the source whose file i is row `rows[i]` of this, with these labels."""
        ids = np.asarray(rows, dtype=np.int64)
        places = np.array(self.places, dtype=np.int64).reshape(-1, 3)[ids] if self.places else None
        return Source(
            location=location,
            class_names=tuple(class_names),
            paths=[self.paths[row] for row in rows],
            labels=np.fromiter(labels, dtype=np.int32, count=len(rows)),
            sizes=np.array(self.sizes, dtype=np.int64)[ids],
            stamps=np.array(self.stamps, dtype=np.int64)[ids],
            files=files,
            places=places,
            splits=[self.splits[row] for row in rows] if self.splits else None,
            refused=refused,
            notes=tuple(notes),
        )


def source_of_folders(
    found: FileListing,
    *,
    location: str,
    files: Files,
    name: str,
    categories: Sequence[str] = (),
    folders: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Source:
    """Returns the source in which a file's class is the top folder that it lies in.

    Classes are in natural order and so are the files of each; files that lie beside the class folders come last.
    Folders without pictures are no classes. Where there is no class folder at all, the pictures are one class.

    Args:
        found: the files.
        location: as in `Source`.
        files: as in `Source`.
        name: the class of a folder that has pictures and no class folders.
        categories: the class folders to take, labels counting them in this order.
        folders: top folders, also those in which nothing was found.
        notes: further things a user should know.

    Raises:
        UsageError: a category is not there, a class name cannot be used, or there is no image file.
    """
    paths = found.paths
    by_folder: dict[str, list[int]] = {folder: [] for folder in folders}
    loose: list[int] = []
    for row, path in enumerate(paths):
        top, slash, _ = path.partition("/")
        is_inside = slash and top != ".."  # which is beside the one folder that an archive has
        (by_folder.setdefault(top, []) if is_inside else loose).append(row)
    in_order = sorted(by_folder, key=natural_key)
    check_categories(categories, in_order, location)

    classes = {folder: _in_order(by_folder[folder], paths, len(folder) + 1) for folder in categories or in_order}
    loose = [] if categories else _in_order(loose, paths)
    without = [folder for folder, rows in classes.items() if not any(is_picture(paths[row]) for row in rows)]
    if not categories:
        for folder in without:
            del classes[folder]
    if not classes and any(is_picture(paths[row]) for row in loose):
        classes, loose = {name: loose}, []

    rows = [row for members in classes.values() for row in members]
    refused = {id: refusal for id, row in enumerate(rows) if (refusal := _refusal(found, row))}
    for id, row in enumerate(loose, start=len(rows)):
        refused[id] = found.refused.get(row, _NO_CLASS)
    if len(refused) == len(rows) + len(loose):
        raise UsageError(
            f"--image_dir={location} has no image file ({len(refused)} other files). "
            "Name a folder that has one folder of pictures a class."
        )
    return found.source(
        rows + loose,
        [label for label, members in enumerate(classes.values()) for _ in members] + [-1] * len(loose),
        location=location,
        class_names=_distinct(map(class_name, classes), location),
        files=files,
        refused=refused,
        notes=(*notes, *_without_pictures(without, bool(categories))),
    )


def source_of_labels(
    found: FileListing,
    *,
    location: str,
    files: Files,
    categories: Sequence[str] = (),
    class_names: Sequence[str] = (),
    flag: str = "--image_dir",
    notes: Iterable[str] = (),
) -> Source:
    """Returns the source in which each file comes with its label, in the order in which the files were found.

    Args:
        found: the files and their labels.
        location: as in `Source`.
        files: as in `Source`.
        categories: the classes to take, labels counting them in this order; files of others are left out.
        class_names: what labels count, if the source says so; by default the labels that are there, whole numbers by
            their value and names in natural order.
        flag: what errors call the source.
        notes: further things a user should know.

    Raises:
        UsageError: a category is not there, a class name cannot be used, or no file is left.
    """
    there = class_names or _label_order(set(found.labels) - {""})
    check_categories(categories, there, location, "class")
    taken = [class_name(name, f"{flag}={location}: label", "Rename the class.") for name in categories or there]
    number = {name: label for label, name in enumerate(categories or there)}
    rows = [row for row, name in enumerate(found.labels) if not categories or name in number]
    labels = [number.get(found.labels[row], -1) for row in rows]
    refused = {}
    for id, row in enumerate(rows):
        refusal = found.refused.get(row) or (_NO_LABEL if labels[id] < 0 else None)
        if refusal is not None:
            refused[id] = refusal
    if len(refused) == len(rows):
        first = next(iter(refused.values()), None)
        why = f"; the first is refused: {first.detail}" if first else ""
        raise UsageError(f"{flag}={location} has no image file that can be used ({len(rows)} files{why}).")
    return found.source(
        rows,
        labels,
        location=location,
        class_names=_distinct(taken, location),
        files=files,
        refused=refused,
        notes=notes,
    )


def check_categories(categories: Sequence[str], there: Sequence[str], location: str, what: str = "folder") -> None:
    """Checks that all `categories` are `there`.

    Raises:
        UsageError: one is not; names the nearest, or the first ten.
    """
    known = set(there)
    for category in categories:
        if category not in known:
            near = difflib.get_close_matches(category, there, n=1)
            has = ", ".join(there[:10]) or ("no folders" if what == "folder" else "no classes")
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {has}."
            raise UsageError(f"--categories: {location} has no {what} {category!r}. {hint}")


def some_of(names: Sequence[str]) -> str:
    """Returns the first ten of `names` as text, and how many more there are."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def _in_order(rows: Sequence[int], paths: Sequence[str], start: int = 0) -> list[int]:
    return [rows[at] for at in natural_order([paths[row][start:] for row in rows])]


def _refusal(found: FileListing, row: int) -> Refusal | None:
    return found.refused.get(row) or (None if is_picture(found.paths[row]) else _UNKNOWN_SUFFIX)


def _without_pictures(folders: Sequence[str], are_classes: bool) -> list[str]:
    if not folders:
        return []
    if are_classes:
        have = "1 class has" if len(folders) == 1 else f"{len(folders)} classes have"
        return [f"{have} no pictures: {some_of(folders)}"]
    have = (
        "1 folder has no pictures and is no class"
        if len(folders) == 1
        else (f"{len(folders)} folders have no pictures and are no classes")
    )
    return [f"{have}: {some_of(folders)}"]


def _label_order(labels: Iterable[str]) -> list[str]:
    names = list(labels)
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names, key=natural_key)


def _distinct(names: Iterable[str], location: str) -> tuple[str, ...]:
    listed = tuple(names)
    twice = [name for name, count in collections.Counter(listed).items() if count > 1]
    if twice:
        raise UsageError(f"{location} has two classes of the name {twice[0]!r}. Rename one.")
    return listed
