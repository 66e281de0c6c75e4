"""The image files of a folder, listed without reading one: their labels, and what else is there.

`index_folder` and `simimg audit` list a folder in this way.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from pathlib import Path

from simimg.errors import UsageError
from simimg.similarity.image_table import IndexedImage, size_and_time
from tfrecords.convert.sources import SUFFIXES, Selection, printable, walk
from tfrecords.convert.sources.companion_files import companions_of
from tfrecords.convert.sources.folder_layout import FolderLayout, layout_of
from tfrecords.format.atomic_files import file_identity
from tfrecords.format.layout import newest_dataset
from tfrecords.format.quarantine import Reason, Refusal


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """The image files of a folder.

    Attributes:
        images: by path, with the label, but without what only reading shows.
        refused: other files, each with the reason.
        other_names: names that lead to one of these files, each with the one by which it is listed.
        notes: what was left out on purpose, for the user.
    """

    images: dict[str, IndexedImage]
    refused: tuple[tuple[str, Refusal], ...]
    other_names: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def find_images(image_dir: Path, selection: Selection | None = None, index_dir: Path | None = None) -> FoundImages:
    """Return the image files of a folder as `index_folder` takes them; no file is read.

    What is in `index_dir` is no file of the folder.

    Raises:
        UsageError: it is not a folder, or has no images.
    """
    if not image_dir.is_dir():
        fault = "is not a folder (extract an archive first)" if image_dir.exists() else "does not exist"
        raise UsageError(f"--image_dir={image_dir} {fault}. Name a folder of images.")
    selection = selection or Selection()
    found = walk(image_dir, selection)
    own = None if index_dir is None else _real_path(index_dir)
    image_paths = {path for path in found if Path(path).suffix.lower() in SUFFIXES}
    others = [
        path
        for path in found
        if path not in image_paths and (own is None or not _real_path(image_dir / path).is_relative_to(own))
    ]
    companions = companions_of(image_paths, others)
    refused = [
        (path, Refusal(Reason.UNKNOWN_SUFFIX, "not the name of an image")) for path in others if path not in companions
    ]
    paths, other_names = _one_name_each(image_dir, [path for path in found if path in image_paths])
    if not paths:
        stored = newest_dataset(image_dir)
        hint = (
            f"{stored} is a dataset: give it to `simimg index` as --dataset_dir."
            if stored
            else "Name a folder of images."
        )
        raise UsageError(
            f"--image_dir={image_dir} has no image file ({len(found)} other files). {hint}{selection.why_none()}"
        )
    layout = layout_of([path for path in found if path in image_paths])
    return FoundImages(
        images={path: _unread(image_dir, path, layout) for path in paths},
        refused=tuple(refused),
        other_names=tuple(other_names),
        notes=(*selection.notes(), *companions.notes()),
    )


def _one_name_each(folder: Path, paths: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return one path of each file, and the other paths with the one of the same file.

    The path without links is preferred, and then the first.
    """
    names = defaultdict(list)
    for path in paths:
        names[file_identity(folder / path) or path].append(path)
    root = _real_path(folder)
    chosen, others = set(), []
    for same in names.values():
        best = same[0]
        if len(same) > 1:
            best = next((path for path in same if _real_path(root / path) == root / path), best)
            others += [(printable(path), printable(best)) for path in same if path != best]
        chosen.add(best)
    return [path for path in paths if path in chosen], others


def _real_path(path: Path) -> Path:
    """Follow links; a loop of them is no error, unlike in `Path.resolve` before Python 3.13."""
    return Path(os.path.realpath(path))


def _unread(image_dir: Path, path: str, layout: FolderLayout | None) -> IndexedImage:
    """Return what is known of a file that was not read."""
    place = layout.place(path) if layout else None
    label = place[0] if place else "" if layout else path.partition("/")[0] if "/" in path else ""
    image = IndexedImage(path=printable(path), sha256="", label=printable(label))
    try:
        num_bytes, modified_ns = size_and_time(os.stat(image_dir / path))
    except OSError:  # reported when it is read
        return image
    return dataclasses.replace(image, num_bytes=num_bytes, modified_ns=modified_ns)
