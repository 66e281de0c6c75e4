"""The source whose classes are folders: which class and split each file has, the order, and what is rejected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.companion_files import companions_of
from tfrecords.convert.sources.folder_layout import FolderLayout, find_layout, note_on_splits
from tfrecords.convert.sources.labels import (
    FileListing,
    alike_names,
    check_categories,
    counted_classes,
    distinct,
    some_of,
)
from tfrecords.convert.sources.natural_sort import natural_key, natural_order
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import SUFFIXES, TABLE_SUFFIXES, Files, Source, class_name, is_image
from tfrecords.format.naming import LAYOUT_FILE
from tfrecords.format.quarantine import Reason, Refusal

_NO_CLASS = Refusal(Reason.NO_CLASS_FOLDER, "it lies beside the class folders; move it into one")
_UNKNOWN_SUFFIX = Refusal(Reason.UNKNOWN_SUFFIX, f"the name ends in none of {' '.join(sorted(SUFFIXES))}")


def source_of_folders(
    found: FileListing,
    *,
    location: str,
    files: Files,
    name: str,
    categories: Sequence[str] = (),
    folders: Iterable[str] = (),
    selection: Selection | None = None,
    is_selected: bool = False,
    notes: Iterable[str] = (),
    kind: str = "folder",
) -> Source:
    """Return the source in which a file's class is its top folder, or the folder below or above its split folder.

    Classes are in natural order, and so are the files of each class and split. Files beside the class folders come
    last. Folders without images are not classes. If there is no class folder at all, the images are one class. Files
    that belong to an image, such as sidecars, are left out.

    Args:
        found: the files.
        location: as in `Source`.
        files: as in `Source`.
        name: the class of a folder that has images and no class folders.
        categories: the class folders to take, in the order of their labels.
        folders: top folders, including those in which nothing was found.
        selection: which files are taken.
        is_selected: whether `found` has these files only.
        notes: further notes for the user.
        kind: what the source is, for the user.

    Raises:
        UsageError: a category does not exist, a class name cannot be used, or there is no image file.
    """
    paths = found.paths
    taken: Iterable[int] = range(len(paths))
    patterns = selection if selection and selection.has_patterns and not is_selected else None
    if found.replaced or patterns:
        taken = [row for row in taken if row not in found.replaced and (not patterns or patterns.takes(paths[row]))]
    others = {row: paths[row] for row in taken if not is_image(paths[row])}
    companions = None
    if others:
        companions = companions_of((paths[row] for row in taken if row not in others), list(others.values()))
    by_folder: dict[str, list[int]] = {folder: [] for folder in folders}
    loose: list[int] = []
    for row in taken:
        top, slash, _ = paths[row].partition("/")
        is_inside = slash and top != ".."  # ".." is beside the only folder of an archive
        members = by_folder.setdefault(top, []) if is_inside else loose
        if companions is None or row not in others or others[row] not in companions:
            members.append(row)
    layout, split_notes = _layout(by_folder, paths, others, categories)
    if layout:
        by_folder, loose = _regrouped(found, layout, by_folder, loose)
    in_order = sorted(by_folder, key=natural_key)
    check_categories(categories, in_order, location)

    classes = {
        folder: _by_split(found, layout, _in_order(by_folder[folder], paths, 0 if layout else len(folder) + 1))
        for folder in categories or in_order
    }
    loose = [] if categories else _in_order(loose, paths)
    without = [folder for folder, rows in classes.items() if all(row in others for row in rows)]
    if not categories:
        for folder in without:
            del classes[folder]
    is_flat = not classes and any(row not in others for row in loose)
    if is_flat:
        classes, loose = {name: loose}, []

    rows = [row for members in classes.values() for row in members]
    refused = {id: refusal for id, row in enumerate(rows) if (refusal := _refusal(found, row, others))}
    for id, row in enumerate(loose, start=len(rows)):
        refused[id] = found.refused.get(row, _NO_CLASS)
    if len(refused) == len(rows) + len(loose):
        num_other = len({*others, *rows, *loose})
        example = f", e.g. {next(iter(others.values()))}" if others else ""
        datasets = sorted(path.rpartition("/")[0] for path in others.values() if path.endswith(f"/{LAYOUT_FILE}"))
        hint = "Name a folder that has one folder of images per class."
        if datasets:
            hint = f"To convert a dataset again, give it as --from={location}/{datasets[-1]}."
        raise UsageError(
            f"--image_dir={location} has no image file ({num_other} other files){example}. "
            f"{hint}{selection.why_none() if selection else ''}"
        )
    names = distinct(map(class_name, classes), location)
    splits = {found.splits[row] for row in rows} - {""} if layout else set()
    return found.source(
        rows + loose,
        [label for label, members in enumerate(classes.values()) for _ in members] + [-1] * len(loose),
        location=location,
        class_names=names,
        files=files,
        refused=refused,
        notes=(
            *notes,
            *(selection.notes() if selection else ()),
            *(companions.notes() if companions else ()),
            *split_notes,
            *_deeper_folders(classes, paths, others, layout),
            *_without_images(without, bool(categories)),
            *alike_names(names),
            *_note_on_tables(others.values(), location),
        ),
        form=_form(kind, len(rows) + len(loose) - len(refused), names, layout, is_flat),
        keeps_splits=len(splits) > 1 or (layout is not None and set(layout.splits.values()) == {"train"}),
    )


def _layout(
    by_folder: Mapping[str, Sequence[int]], paths: Sequence[str], others: Mapping[int, str], categories: Sequence[str]
) -> tuple[FolderLayout | None, list[str]]:
    """Return the layout if there are split folders, and notes about it. Categories that are top folders are classes."""
    first = {top: next((paths[row] for row in rows if row not in others), "") for top, rows in by_folder.items()}
    tops = [top for top in sorted(by_folder, key=natural_key) if first[top]]
    if categories and set(categories) <= set(by_folder):
        return None, []

    def images() -> Iterator[str]:
        return (paths[row] for top in tops for row in by_folder[top] if row not in others)

    layout = find_layout(tops, images, [first[top] for top in tops])
    if layout is None:
        return None, note_on_splits(tops, images)
    return layout, layout.notes(images())


def _regrouped(
    found: FileListing, layout: FolderLayout, by_folder: Mapping[str, Sequence[int]], loose: Sequence[int]
) -> tuple[dict[str, list[int]], list[int]]:
    """Return the files by class and those beside the classes, and note the split of each file in `found`."""
    classes: dict[str, list[int]] = {}
    beside = list(loose)
    splits = [""] * len(found.paths)
    for row in (row for rows in by_folder.values() for row in rows):
        place = layout.place(found.paths[row])
        if place is None:
            beside.append(row)
        else:
            classes.setdefault(place[0], []).append(row)
            splits[row] = place[1]
    found.splits = splits
    return classes, beside


def _by_split(found: FileListing, layout: FolderLayout | None, rows: list[int]) -> list[int]:
    """Return the rows of a class with those of the training split first."""
    if layout is None:
        return rows
    order = {split: number for number, split in enumerate(dict.fromkeys(layout.splits.values()))}
    return sorted(rows, key=lambda row: order[found.splits[row]])


def _form(kind: str, num_images: int, class_names: Sequence[str], layout: FolderLayout | None, is_flat: bool) -> str:
    """Return what the source was taken for."""
    where = "one folder without class folders" if is_flat else "class folders"
    if layout and len(layout.splits) == 1:
        where = f"class folders in {layout.prefix}{next(iter(layout.splits))}/"
    elif layout:
        where = f"class folders {'in' if layout.is_outer else 'around'} the split folders {layout.folders}"
    images = "1 image" if num_images == 1 else f"{num_images:,} images"
    return f"{kind} with {images} in {where}; {counted_classes(class_names)}"


def _note_on_tables(paths: Iterable[str], location: str) -> list[str]:
    tables = sorted(path for path in paths if "/" not in path and path.lower().endswith(TABLE_SUFFIXES))
    if not tables:
        return []
    return [f"{tables[0]} is not used; if it has the labels of the images, give it as --table={location}/{tables[0]}"]


def _in_order(rows: Sequence[int], paths: Sequence[str], start: int = 0) -> list[int]:
    return [rows[at] for at in natural_order([paths[row][start:] for row in rows])]


def _refusal(found: FileListing, row: int, others: Mapping[int, str]) -> Refusal | None:
    return found.refused.get(row) or (_UNKNOWN_SUFFIX if row in others else None)


def _deeper_folders(
    classes: Mapping[str, Sequence[int]], paths: Sequence[str], others: Mapping[int, str], layout: FolderLayout | None
) -> list[str]:
    """Return a note if all images lie in folders inside the class folders, which may be meant as the classes."""
    if layout is not None:
        return []
    images = [paths[row] for rows in classes.values() for row in rows if row not in others]
    if not all(path.count("/") > 1 for path in images):
        return []
    inside = dict.fromkeys(path.rsplit("/", 1)[0] for path in images)
    if len(inside) <= len(classes):
        return []
    return [f"images lie in folders inside the class folders, which are not classes: {some_of(list(inside))}"]


def _without_images(folders: Sequence[str], are_classes: bool) -> list[str]:
    count = len(folders)
    if are_classes:
        have = "1 class has no images" if count == 1 else f"{count} classes have no images"
    elif count == 1:
        have = "1 folder has no images and is not a class"
    else:
        have = f"{count} folders have no images and are not classes"
    return [f"{have}: {some_of(folders)}"] if folders else []
