"""What there is to convert: files with their labels in columns, and how a worker reads one of them.

A row is a file and its number the file's id. Columns, because a million files as objects would take a gigabyte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.format.quarantine import Reason, Refusal

__all__ = [
    "MAX_FILE_BYTES",
    "SUFFIXES",
    "Files",
    "Source",
    "class_name",
    "is_ignored",
    "is_picture",
    "printable",
    "too_large",
]

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .ico .avif .heic .heif".split()
)

# A worker holds a whole file in memory. No camera writes a gigabyte; what does is a video, or a zip bomb.
MAX_FILE_BYTES = 1 << 30

_DESKTOP_FILES = frozenset({"thumbs.db", "desktop.ini"})
_ROWS_AT_ONCE = 10_000


class Files(Protocol):
    """How a worker reads the files of a source. Small and picklable; what it opens, it opens in the worker."""

    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Returns the bytes of one file.

        Args:
            path: from `Source.paths`.
            place: the file's row of `Source.places`, or None where the source has none.

        Raises:
            Refusal: the file cannot be read, or is not what was found when the source was opened.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """All files of a source.

    Attributes:
        location: what the user named, for messages.
        class_names: what labels count.
        paths: id -> path relative to the location, "/" between its parts, unique. Bytes that are no UTF-8 are escaped
            as `os.fsdecode` does.
        labels: int32 [n]; -1 where the file has no class.
        sizes: int64 [n], bytes; -1 where unknown.
        stamps: int64 [n]; differs when the content may have changed. For local files the later of mtime and ctime in
            ns; 0 where the source has no such thing.
        files: how a worker reads them.
        places: int64 [n, 3], (number of the container file, offset, length) where `files` reads by place; else None.
        splits: the source's own split of each file, where it has one; else None.
        refused: id -> why a file cannot be used, known by its name or place alone.
        notes: what a user should know.
    """

    location: str
    class_names: tuple[str, ...]
    paths: list[str]
    labels: np.ndarray
    sizes: np.ndarray
    stamps: np.ndarray
    files: Files
    places: np.ndarray | None = None
    splits: list[str] | None = None
    refused: dict[int, Refusal] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def usable(self) -> np.ndarray:
        """Returns the ids, int64 and ascending, of the files that are not refused by their name or place."""
        keep = np.ones(len(self.paths), dtype=bool)
        keep[list(self.refused)] = False
        return np.flatnonzero(keep)

    def sha256(self) -> str:
        """Returns a digest, in hexadecimal, of the class names and of each file's printable path, class name, size
        and, where the source has one, split. The order of ids does not matter.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        order = sorted(range(len(self.paths)), key=self.paths.__getitem__)
        for start in range(0, len(order), _ROWS_AT_ONCE):
            digest.update("".join(self._rows(order[start : start + _ROWS_AT_ONCE])).encode())
        return digest.hexdigest()

    def _rows(self, ids: Sequence[int]) -> Iterator[str]:
        names = (*self.class_names, "")  # -1 counts from the end
        for id, label, size in zip(ids, self.labels[ids].tolist(), self.sizes[ids].tolist(), strict=True):
            path = self.paths[id]
            split = f"\0{self.splits[id]}" if self.splits is not None else ""
            yield f"{path if path.isascii() else printable(path)}\0{names[label]}\0{size}{split}\n"


def printable(path: str) -> str:
    r"""Returns `path` as text that any encoding of Unicode can hold: bytes that are no UTF-8 are shown as \xNN."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_ignored(name: str) -> bool:
    """Tells whether a file or folder of this name is hidden (a leading dot) or left behind by a desktop."""
    return name.startswith(".") or name.lower() in _DESKTOP_FILES


def is_picture(path: str) -> bool:
    """Tells whether `path` ends like the name of a picture."""
    dot = path.rfind(".")
    return dot > path.rfind("/") + 1 and path[dot:].lower() in SUFFIXES


def class_name(name: str, what: str = "class folder", fix: str = "Rename the folder.") -> str:
    """Returns `name` as it will stand in the list of labels, which has a line a class.

    Args:
        name: as the source has it.
        what: what errors call it.
        fix: what errors tell the user to do.

    Raises:
        UsageError: it is blank or has a line break.
    """
    if not name.strip() or "\n" in name or "\r" in name:
        raise UsageError(f"{what} {name!r}: a class name should not be blank or have a line break. {fix}")
    return printable(name)


def too_large(num_bytes: int) -> Refusal:
    """Returns the refusal of a file of `num_bytes`, which is more than `MAX_FILE_BYTES`."""
    return Refusal(Reason.TOO_LARGE, f"{num_bytes} bytes are more than {MAX_FILE_BYTES}, which no picture has")
