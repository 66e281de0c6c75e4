"""The interface of a source: its files with their labels in columns, and how a worker reads one of them.

A row is a file, and its number is the file's id. Columns, because a million files as objects would take a gigabyte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tfrecords.base_errors import UsageError
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.quarantine import Reason, Refusal

if TYPE_CHECKING:
    from tfrecords.convert.sources.row_values import RowValues

SUFFIXES = frozenset(
    (
        ".jpg .jpeg .jpe .jfif .png .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .j2k .ico .avif .heic "
        ".heif .jxl"
    ).split()
)

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")

QUARANTINE_JOURNAL = "moves.jsonl"
"""Is in a folder that `simimg apply` moves copies to. It is no part of any collection, wherever it lies."""

# A worker holds a whole file in memory. No camera writes a gigabyte; such a file is a video or a zip bomb.
MAX_FILE_BYTES = 1 << 30

refuse_damaged = parser_errors(lambda fault: Refusal(Reason.CORRUPT, fault))
"""Decorates `Files.read`: whatever its parsers raise about a damaged file is a Refusal."""

_ROWS_AT_ONCE = 10_000


class Files(Protocol):
    """Reads the files of a source in a worker. Small and picklable; it opens files only in the worker."""

    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Return the bytes of one file.

        Args:
            path: from `Source.paths`.
            place: the file's row of `Source.places`, or None if the source has none.

        Raises:
            Refusal: the file cannot be read, or has changed since the source was opened.
            OSError: the machine or the network failed, which says nothing about the file.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """All files of a source.

    Attributes:
        location: as given by the user, for messages.
        class_names: the class of each label.
        paths: path of each id, relative to the location, with "/" as the separator, unique. Bytes that are not UTF-8
            are escaped as by `os.fsdecode`.
        labels: int32 [n]; -1 if the file has no class.
        sizes: int64 [n], bytes; -1 if unknown.
        stamps: int64 [n]; differs if the content may have changed. Above 0 for local files, see `stamp_of`; below 0 for
            others, made from an ETag or the like; 0 if the source has nothing like that.
        files: reads the files in a worker.
        places: int64 [n, 3], (number of the container file, offset, length) if `files` reads by place; else None.
        splits: the source's own split of each file, if it has splits; else None.
        groups: the group of each file that --group_column gives, "" if it has none; else None.
        times: the cell of --time_column of each file, "" if it has none; else None.
        refused: why a file cannot be used, by id, if its name or place alone shows it.
        notes: notes for the user.
        form: what the source was taken for, in one line for the user.
        keeps_splits: whether its splits are kept unless others are asked for.
        values: what is known of each file beside one class; None if that is all.
        split_order: its splits in order, where that is not the order in which they occur.
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
    groups: list[str] | None = None
    times: list[str] | None = None
    refused: dict[int, Refusal] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    form: str = ""
    keeps_splits: bool = False
    values: RowValues | None = None
    split_order: tuple[str, ...] = ()

    def usable(self) -> np.ndarray:
        """Return the ids, int64 and ascending, of the files that are not rejected already."""
        keep = np.ones(len(self.paths), dtype=bool)
        keep[list(self.refused)] = False
        return np.flatnonzero(keep)

    def select(self, rows: np.ndarray) -> Source:
        """Return the source that has only the files at the indices `rows`, with the same classes."""
        ids = rows.tolist()
        return dataclasses.replace(
            self,
            paths=[self.paths[row] for row in ids],
            labels=self.labels[rows],
            sizes=self.sizes[rows],
            stamps=self.stamps[rows],
            places=None if self.places is None else self.places[rows],
            splits=None if self.splits is None else [self.splits[row] for row in ids],
            groups=None if self.groups is None else [self.groups[row] for row in ids],
            times=None if self.times is None else [self.times[row] for row in ids],
            refused={new: self.refused[old] for new, old in enumerate(ids) if old in self.refused},
            values=None if self.values is None else self.values.select(ids),
        )

    def digest(self, rows: np.ndarray, *columns: np.ndarray) -> str:
        """Return a digest of the files at the indices `rows` and of their values in `columns`, in hexadecimal."""
        names = "\0".join([self.paths[row] for row in rows.tolist()])
        digest = hashlib.sha256(names.encode(errors="surrogateescape"))
        for column in (*columns, self.sizes, self.stamps):
            digest.update(column[rows].astype("<i8").tobytes())
        return digest.hexdigest()

    def sha256(self) -> str:
        """Return a digest, in hexadecimal, of the class names and of each file's printable path, class name, size and,
        if the source has them, split, group, time and values. The order of ids does not matter.
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
            columns = [column[id] for column in (self.splits, self.groups, self.times) if column is not None]
            more = "".join(f"\0{printable(value)}" for value in columns)
            more += f"\0{self.values.text(id)}" if self.values is not None else ""
            yield f"{path if path.isascii() else printable(path)}\0{names[label]}\0{size}{more}\n"


def printable(path: str) -> str:
    r"""Return `path` as text that any encoding of Unicode can hold: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode(errors="backslashreplace")


def unprintable(path: str, folder: Path) -> str:
    """Return the file name below `folder` for a path from `printable`; the path itself if there is no such file."""
    if "\\x" not in path or os.path.lexists(folder / path):
        return path
    name = ""
    for part in path.split("/"):  # a name may also have "\\x41" in it, so that it cannot be decoded
        if not os.path.lexists(folder / name / part):
            try:
                part = next(one for one in os.listdir(folder / name) if printable(one) == part)
            except (OSError, StopIteration):
                return path
        name = os.path.join(name, part)
    return name


def is_image(path: str) -> bool:
    """Return whether `path` has the suffix of an image format."""
    dot = path.rfind(".")
    return dot > path.rfind("/") + 1 and path[dot:].lower() in SUFFIXES


def class_name(name: str, what: str = "class folder", fix: str = "Rename the folder.") -> str:
    """Return `name` as it is written to the list of labels, which has one line per class.

    `what` names its kind in errors, and `fix` says what the user should do.

    Raises:
        UsageError: it is blank or has a line break.
    """
    if not name.strip() or "\n" in name or "\r" in name:
        raise UsageError(f"{what} {name!r}: a class name should not be blank or have a line break. {fix}")
    return printable(name)


def stamp_of(status: os.stat_result) -> int:
    """Return the stamp of a local file, in ns: the later of mtime and ctime, since `rsync -t` and `cp -p`, for example,
    replace a file by another one with the same mtime.

    An mtime after the ctime was set by hand, or the file system has no ctime, so it is the sum, modulo 2^63. Inodes
    are not part of it, because some network file systems give a file another one each time.
    """
    mtime, ctime = status.st_mtime_ns, status.st_ctime_ns
    return ctime if mtime <= ctime else ((mtime + ctime) & (2**63 - 1)) or 1


def too_large(num_bytes: int) -> Refusal:
    """Return the refusal of a file with `num_bytes`, more than `MAX_FILE_BYTES`."""
    return Refusal(Reason.TOO_LARGE, f"it has {num_bytes} bytes, more than the limit of {MAX_FILE_BYTES}")
