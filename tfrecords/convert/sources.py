"""What there is to convert: a folder with one folder a class, or a folder of pictures.

The order is natural (image_2 before image_10), so an example's id does not depend on the file system. Hidden files and
folders (a leading dot) and the files that desktops leave behind (Thumbs.db, desktop.ini) are not looked at; every other
file is either an image file or refused with a reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfrecords.convert.quarantine import Reason
from tfrecords.errors import UsageError

__all__ = ["SUFFIXES", "ImageFile", "Source", "natural_key", "printable", "scan_folder", "walk"]

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .ico .avif .heic .heif".split()
)
_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file that was found. `path` is relative to the image folder; `refused` says why it cannot be used."""

    id: int
    path: str
    label: int
    num_bytes: int
    refused: Reason | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """All files of an image folder in natural order, with ids 0, 1, … and the class names that labels count."""

    image_dir: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]

    def usable(self) -> list[ImageFile]:
        """Returns the files that are not refused by their name or place."""
        return [file for file in self.files if file.refused is None]

    def sha256(self) -> str:
        """Returns a digest of the names, classes and sizes of all files, in hexadecimal."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for file in self.files:
            digest.update(f"{printable(file.path)}\0{file.label}\0{file.num_bytes}\n".encode())
        return digest.hexdigest()


def scan_folder(image_dir: Path, categories: Sequence[str] = ()) -> Source:
    """Finds the image files of `image_dir`.

    Args:
        image_dir: has one folder a class, whose pictures may lie in folders of their own; or has pictures and no
            folders, which then make up one class named after it.
        categories: the class folders to take, labels counting them in this order; by default all that hold pictures,
            in natural order.

    Raises:
        UsageError: there is no such folder, a category is not in it, or there is no image file.
    """
    if not image_dir.is_dir():
        what = "is not a folder" if image_dir.exists() else "does not exist"
        raise UsageError(f"--image_dir={image_dir} {what}. Name a folder that has one folder of pictures a class.")
    entries = _listing(image_dir)
    folders = [entry.name for entry in entries if _is_folder(entry)]
    for category in categories:
        if category not in folders:
            near = difflib.get_close_matches(category, folders, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(folders[:10]) or 'no folders'}."
            raise UsageError(f"--categories: {image_dir} has no folder {category!r}. {hint}")

    found: dict[str, list[str]] = {
        name: [f"{name}/{path}" for path in walk(image_dir / name)] for name in (categories or folders)
    }
    if not categories:
        found = {name: paths for name, paths in found.items() if any(map(_has_image_suffix, paths))}
    loose = [] if categories else [entry.name for entry in entries if not _is_folder(entry)]
    flat = not found and any(map(_has_image_suffix, loose))
    if flat:
        found, loose = {image_dir.resolve().name: loose}, []

    files: list[ImageFile] = []
    for label, paths in enumerate(found.values()):
        for path in paths:
            files.append(_image_file(image_dir, path, id=len(files), label=label))
    for path in loose:
        file = _image_file(image_dir, path, id=len(files), label=-1)
        detail = "it lies beside the class folders; move it into one"
        files.append(dataclasses.replace(file, refused=Reason.NO_CLASS_FOLDER, detail=detail))
    if not any(file.refused is None for file in files):
        raise UsageError(
            f"--image_dir={image_dir} has no image file ({len(files)} other files). "
            "Name a folder that has one folder of pictures a class."
        )
    return Source(image_dir=image_dir, class_names=tuple(map(_class_name, found)), files=tuple(files))


def walk(folder: Path) -> list[str]:
    """Returns the files below `folder`, relative to it, in natural order; links are followed, loops are not."""
    return sorted(_walk(folder, "", frozenset()), key=natural_key)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that orders runs of digits by their value; equal values by their spelling."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def printable(path: str) -> str:
    r"""Returns `path` as text that any encoding of Unicode can hold: bytes that are no UTF-8 are shown as \xNN."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = os.stat(folder)
    this = (status.st_dev, status.st_ino)
    if this in above:
        return
    for entry in _listing(folder):
        if _is_folder(entry):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {this})
        else:
            yield prefix + entry.name


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not _is_ignored(entry.name)]
    except PermissionError:
        raise UsageError(f"{folder} cannot be listed: permission denied. Make it readable, or leave it out.") from None
    return sorted(kept, key=lambda entry: natural_key(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to what we may not look at: refused as a file
        return False


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _DESKTOP_FILES


def _has_image_suffix(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _class_name(folder: str) -> str:
    if not folder.strip() or "\n" in folder or "\r" in folder:
        raise UsageError(
            f"class folder {folder!r}: a class name should not be blank or have a line break. Rename the folder."
        )
    return printable(folder)


def _image_file(image_dir: Path, path: str, *, id: int, label: int) -> ImageFile:
    try:
        status = os.stat(image_dir / path)
    except OSError as error:
        detail = error.strerror or str(error)
        return ImageFile(id=id, path=path, label=label, num_bytes=0, refused=Reason.UNREADABLE, detail=detail)
    if not stat.S_ISREG(status.st_mode):  # reading a named pipe would wait for ever
        detail = "it is no regular file"
        return ImageFile(id=id, path=path, label=label, num_bytes=0, refused=Reason.UNREADABLE, detail=detail)
    num_bytes = status.st_size
    if not _has_image_suffix(path):
        detail = f"the name ends in none of {' '.join(sorted(SUFFIXES))}"
        return ImageFile(
            id=id, path=path, label=label, num_bytes=num_bytes, refused=Reason.UNKNOWN_SUFFIX, detail=detail
        )
    return ImageFile(id=id, path=path, label=label, num_bytes=num_bytes)
