"""The list of the files that were found, the source that is made of it by labels of its own, and the names of classes.

`tfrecords.convert.sources.class_folders` makes the source whose classes are folders. The order of classes is natural,
see `tfrecords.convert.sources.natural_sort`.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import difflib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.natural_sort import natural_key
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import MAX_FILE_BYTES, Files, Source, class_name, too_large
from tfrecords.format.quarantine import Reason, Refusal

NO_LABEL = Refusal(Reason.NO_CLASS_FOLDER, "it has no label")

_MAX_INT64 = (1 << 63) - 1


@dataclasses.dataclass(eq=False)
class FileListing:
    """The files that were found, in any order, in columns; see `Source`. Keys of `refused` are indices into `paths`."""

    paths: list[str] = dataclasses.field(default_factory=list)
    sizes: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    stamps: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    places: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))  # three per file, or none
    labels: list[str] = dataclasses.field(default_factory=list)  # if the source gives labels; "" for none
    splits: list[str] = dataclasses.field(default_factory=list)  # if the source has its own splits
    groups: list[str] = dataclasses.field(default_factory=list)  # if a column gives them; "" for none
    times: list[str] = dataclasses.field(default_factory=list)  # likewise
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
        self.sizes.append(min(size, _MAX_INT64))  # an archive or a server may claim any size
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
        form: str = "",
        keeps_splits: bool = False,
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
            groups=[self.groups[row] for row in rows] if self.groups else None,
            times=[self.times[row] for row in rows] if self.times else None,
            refused=refused,
            notes=tuple(notes),
            form=form,
            keeps_splits=keeps_splits,
        )


def source_of_labels(
    found: FileListing,
    *,
    location: str,
    files: Files,
    categories: Sequence[str] = (),
    class_names: Sequence[str] = (),
    selection: Selection | None = None,
    flag: str = "--image_dir",
    notes: Iterable[str] = (),
    form: str = "",
) -> Source:
    """Return the source in which each file has its own label, in the order in which the files were found.

    Args:
        found: the files and their labels.
        location: as in `Source`.
        files: as in `Source`.
        categories: the classes to take, in the order of their labels; files of other classes are left out.
        class_names: the classes of the source, if it has a list of them; by default the labels that occur, whole
            numbers sorted by value and names in natural order.
        selection: which files are taken; by default all.
        flag: name of the source in errors.
        notes: further notes for the user.
        form: as in `Source`, without the number of classes.

    Raises:
        UsageError: a category does not exist, a class name cannot be used, or no file is left.
    """
    taken: Iterable[int] = range(len(found.paths))
    if selection and selection.has_patterns:
        taken = [row for row in taken if selection.takes(found.paths[row])]
        notes = (*notes, *selection.notes())
    there = class_names or label_order({found.labels[row] for row in taken} - {""})
    check_categories(categories, there, location, "class")
    names = [class_name(name, f"{flag}={location}: label", "Rename the class.") for name in categories or there]
    number = {name: label for label, name in enumerate(categories or there)}
    rows = [row for row in taken if not categories or found.labels[row] in number]
    labels = [number.get(found.labels[row], -1) for row in rows]
    refused = {
        id: found.refused.get(row, NO_LABEL) for id, row in enumerate(rows) if labels[id] < 0 or row in found.refused
    }
    if len(refused) == len(rows):
        first = next(iter(refused.values()), None)
        why = f"; the first was rejected: {first.detail}" if first else ""
        left_out = selection.why_none() if selection and selection.has_patterns else ""
        raise UsageError(f"{flag}={location} has no image file that can be used ({len(rows)} files{why}).{left_out}")
    return found.source(
        rows,
        labels,
        location=location,
        class_names=distinct(names, location),
        files=files,
        refused=refused,
        notes=(*notes, *alike_names(names)),
        form=f"{form}; {counted_classes(names)}" if form else "",
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


def alike_names(class_names: Iterable[str], what: str = "classes") -> list[str]:
    """Return a note about classes whose names look the same, and differ in case, spaces or their Unicode form."""
    alike: dict[str, list[str]] = {}
    for name in class_names:
        plain = "".join(part for part in unicodedata.normalize("NFC", name) if part.isprintable())
        alike.setdefault(" ".join(plain.casefold().split()), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return []
    shown = "; ".join(f"{' and '.join(map(repr, names))} ({_difference(names)})" for names in groups[:3])
    more = f" and {len(groups) - 3:,} more" if len(groups) > 3 else ""
    return [f"{what} whose names look the same are different {what}: {shown}{more}; rename them to make them one"]


def counted_classes(class_names: Sequence[str]) -> str:
    """Return the number of classes and some of their names."""
    shown = ", ".join(class_names[:3]) + (", …" if len(class_names) > 3 else "")
    return f"{len(class_names):,} {'class' if len(class_names) == 1 else 'classes'} ({shown})"


def distinct(names: Iterable[str], location: str) -> tuple[str, ...]:
    """Return the names of the classes, or raise UsageError if one is there twice."""
    listed = tuple(names)
    twice = [name for name, count in collections.Counter(listed).items() if count > 1]
    if twice:
        raise UsageError(f"{location} has two classes named {twice[0]!r}. Rename one.")
    return listed


def some_of(names: Sequence[str]) -> str:
    """Return the first ten of `names` as text, and the number of the others."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def _difference(names: Sequence[str]) -> str:
    """Return how names that look the same differ."""
    composed = {unicodedata.normalize("NFC", name) for name in names}
    if len(composed) < len(names):
        return "Unicode forms NFC and NFD"
    return "case" if len({name.casefold() for name in composed}) < len(names) else "spaces"


def label_order(labels: Iterable[str]) -> list[str]:
    """Return whole numbers sorted by value, and names in natural order."""
    names = list(labels)
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names, key=natural_key)
