"""Turns a list of found files into a source: which class each file has, their order, and which names are rejected.

A class comes either from the folder that a file lies in, or from a label that the source gives for each file. The order
is natural: image_2 comes before image_10, so that an example's id does not depend on the file system.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.source import (
    MAX_FILE_BYTES,
    SUFFIXES,
    Files,
    Source,
    class_name,
    is_image,
    too_large,
)
from tfrecords.format.quarantine import Reason, Refusal

_NO_CLASS = Refusal(Reason.NO_CLASS_FOLDER, "it lies beside the class folders; move it into one")
_NO_LABEL = Refusal(Reason.NO_CLASS_FOLDER, "it has no label")
_UNKNOWN_SUFFIX = Refusal(Reason.UNKNOWN_SUFFIX, f"the name ends in none of {' '.join(sorted(SUFFIXES))}")

_DIGITS = re.compile(r"[0-9]+")
# Texts that the short key below cannot express: its markers, runs too long for one character of Latin-1, and the digits
# of other scripts, which count as numbers if they are a whole part.
_ODD = re.compile(r"\0|[0-9]{128}|(?![0-9])\d")

_ALIKE = str.maketrans("0123456789", "0" * 10)


@dataclasses.dataclass(eq=False)
class FileListing:
    """The files that were found, in any order, in columns; see `Source`. Keys of `refused` are indices into `paths`."""

    paths: list[str] = dataclasses.field(default_factory=list)
    sizes: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    stamps: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    places: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))  # three per file, or none
    labels: list[str] = dataclasses.field(default_factory=list)  # if the source gives labels; "" for none
    splits: list[str] = dataclasses.field(default_factory=list)  # if the source has its own splits
    refused: dict[int, Refusal] = dataclasses.field(default_factory=dict)
    replaced: set[int] = dataclasses.field(default_factory=set)  # files that a later one with the same path replaces

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
        """Append one file."""
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
        """Return the source whose file i is row `rows[i]` of this listing, with these labels."""
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
    """Return the source in which a file's class is its top folder.

    Classes are in natural order, and so are the files of each class. Files beside the class folders come last. Folders
    without images are not classes. If there is no class folder at all, the images are one class.

    Args:
        found: the files.
        location: as in `Source`.
        files: as in `Source`.
        name: the class of a folder that has images and no class folders.
        categories: the class folders to take, in the order of their labels.
        folders: top folders, including those in which nothing was found.
        notes: further notes for the user.

    Raises:
        UsageError: a category does not exist, a class name cannot be used, or there is no image file.
    """
    paths = found.paths
    by_folder: dict[str, list[int]] = {folder: [] for folder in folders}
    loose: list[int] = []
    for row, path in enumerate(paths):
        if row in found.replaced:
            continue
        top, slash, _ = path.partition("/")
        is_inside = slash and top != ".."  # ".." is beside the only folder of an archive
        (by_folder.setdefault(top, []) if is_inside else loose).append(row)
    in_order = sorted(by_folder, key=natural_key)
    check_categories(categories, in_order, location)

    classes = {folder: _in_order(by_folder[folder], paths, len(folder) + 1) for folder in categories or in_order}
    loose = [] if categories else _in_order(loose, paths)
    without = [folder for folder, rows in classes.items() if not any(is_image(paths[row]) for row in rows)]
    if not categories:
        for folder in without:
            del classes[folder]
    if not classes and any(is_image(paths[row]) for row in loose):
        classes, loose = {name: loose}, []

    rows = [row for members in classes.values() for row in members]
    refused = {id: refusal for id, row in enumerate(rows) if (refusal := _refusal(found, row))}
    for id, row in enumerate(loose, start=len(rows)):
        refused[id] = found.refused.get(row, _NO_CLASS)
    if len(refused) == len(rows) + len(loose):
        raise UsageError(
            f"--image_dir={location} has no image file ({len(refused)} other files). "
            "Name a folder that has one folder of images per class."
        )
    return found.source(
        rows + loose,
        [label for label, members in enumerate(classes.values()) for _ in members] + [-1] * len(loose),
        location=location,
        class_names=_distinct(map(class_name, classes), location),
        files=files,
        refused=refused,
        notes=(*notes, *_without_images(without, bool(categories))),
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
    """Return the source in which each file has its own label, in the order in which the files were found.

    Args:
        found: the files and their labels.
        location: as in `Source`.
        files: as in `Source`.
        categories: the classes to take, in the order of their labels; files of other classes are left out.
        class_names: the classes of the source, if it has a list of them; by default the labels that occur, whole
            numbers sorted by value and names in natural order.
        flag: name of the source in errors.
        notes: further notes for the user.

    Raises:
        UsageError: a category does not exist, a class name cannot be used, or no file is left.
    """
    there = class_names or _label_order(set(found.labels) - {""})
    check_categories(categories, there, location, "class")
    taken = [class_name(name, f"{flag}={location}: label", "Rename the class.") for name in categories or there]
    number = {name: label for label, name in enumerate(categories or there)}
    rows = [row for row, name in enumerate(found.labels) if not categories or name in number]
    labels = [number.get(found.labels[row], -1) for row in rows]
    refused = {
        id: found.refused.get(row, _NO_LABEL) for id, row in enumerate(rows) if labels[id] < 0 or row in found.refused
    }
    if len(refused) == len(rows):
        first = next(iter(refused.values()), None)
        why = f"; the first was rejected: {first.detail}" if first else ""
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
    """Raise UsageError for the first of `categories` that is not in `there`; it names the most similar one, or ten
    others.
    """
    known = set(there)
    for category in categories:
        if category not in known:
            near = difflib.get_close_matches(category, there, n=1)
            has = ", ".join(there[:10]) or ("no folders" if what == "folder" else "no classes")
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {has}."
            raise UsageError(f"--categories: {location} has no {what} {category!r}. {hint}")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders runs of digits by value, and equal values by their spelling."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def natural_order(texts: Sequence[str]) -> list[int]:
    """Return the indices of `texts` in the order of `natural_key`.

    A million keys of tuples take a gigabyte and ten seconds. Plain strings in which each run of digits is preceded by
    its length have the same order. Tuples are used only for texts that such a string cannot distinguish. (The package
    natsort has another order for equal values, which would change the ids of existing datasets.)
    """
    shape = texts[0].translate(_ALIKE) if texts else ""
    keys: Sequence[object]
    if all(text.translate(_ALIKE) == shape for text in texts):  # image_0001.jpg, image_0002.jpg, ...
        keys = texts
    elif any(map(_ODD.search, texts)):
        keys = [natural_key(text) for text in texts]
    else:
        keys = [_DIGITS.sub(_with_length, text) for text in texts]
    return sorted(range(len(texts)), key=keys.__getitem__)  # type: ignore[arg-type]


def some_of(names: Sequence[str]) -> str:
    """Return the first ten of `names` as text, and the number of the others."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def _in_order(rows: Sequence[int], paths: Sequence[str], start: int = 0) -> list[int]:
    return [rows[at] for at in natural_order([paths[row][start:] for row in rows])]


def _refusal(found: FileListing, row: int) -> Refusal | None:
    return found.refused.get(row) or (None if is_image(found.paths[row]) else _UNKNOWN_SUFFIX)


def _without_images(folders: Sequence[str], are_classes: bool) -> list[str]:
    count = len(folders)
    if are_classes:
        have = "1 class has no images" if count == 1 else f"{count} classes have no images"
    elif count == 1:
        have = "1 folder has no images and is not a class"
    else:
        have = f"{count} folders have no images and are not classes"
    return [f"{have}: {some_of(folders)}"] if folders else []


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
        raise UsageError(f"{location} has two classes named {twice[0]!r}. Rename one.")
    return listed


def _with_length(match: re.Match[str]) -> str:
    # NUL sorts before any text, as a number does. Then come the number of digits and the digits, which give the value,
    # and the zeros in front of them: by their spelling, 001 < 01 < 1, but 0 < 00.
    digits = match[0]
    value = digits.lstrip("0")
    zeros = len(digits) - len(value)
    return f"\0{chr(len(value))}{value}{chr(128 - zeros if value else zeros)}"
