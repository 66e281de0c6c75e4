"""The pictures of an index, for a closer look: their files, or the pixels that a data set has stored.

A file counts if its bytes are still those that were indexed. Where one is gone, or was changed, or the index does not
know its folder, there may be a data set with the picture as it was converted: smaller, and perhaps stretched. So two
pictures are compared by their files where both are there, and else by their stored pixels, both of them: a file beside
a small square would look as if somebody had stretched and shrunk it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from simimg.report.conversion.stored import StoredPictures
from simimg.search.examine import CACHED, Examined, examine, examine_file
from simimg.search.index import SearchIndex
from tfrecords.convert.images import decode
from tfrecords.convert.quarantine import Refusal
from tfrecords.errors import DataError
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest

__all__ = ["Originals"]


class Originals:
    """The pictures of an index, by row. Safe to use from several threads.

    Attributes:
        missing: rows that were asked for, and of which there is neither a file nor stored pixels.
        stored: rows that were looked at by their stored pixels.
    """

    def __init__(self, index: SearchIndex) -> None:
        """Take an opened index."""
        self.missing: set[int] = set()
        self.stored: set[int] = set()
        self._index = index
        self._paths: list[str] = index.pictures.column("path").tolist()
        self._sha256: list[str] = index.pictures.column("sha256").tolist()
        self._fileless: set[int] = set()
        self._examine_stored = functools.lru_cache(maxsize=CACHED)(self._examine_stored_now)

    def pair(self, one: int, other: int) -> tuple[Examined, Examined] | None:
        """Returns two pictures that can be compared with each other, or None where one is missing."""
        ours, theirs = self._file(one), self._file(other)
        if ours is None or theirs is None:
            ours, theirs = self._examine_stored(one), self._examine_stored(other)
            for row, seen in ((one, ours), (other, theirs)):
                (self.missing if seen is None else self.stored).add(row)
        return None if ours is None or theirs is None else (ours, theirs)

    def image(self, row: int) -> Image.Image | None:
        """Returns a picture to be shown, mode RGB, upright, or None where it is missing."""
        try:
            return decode(self._path(row).read_bytes())
        except (OSError, Refusal):
            return self._stored_image(row)

    def _path(self, row: int) -> Path:
        return self._index.file_of(self._paths[row])

    def _file(self, row: int) -> Examined | None:
        if row in self._fileless:
            return None
        try:
            return examine_file(self._path(row), self._sha256[row])
        except (OSError, Refusal):
            self._fileless.add(row)
            return None

    def _examine_stored_now(self, row: int) -> Examined | None:
        image = self._stored_image(row)
        return None if image is None else examine(image)

    def _stored_image(self, row: int) -> Image.Image | None:
        if self._dataset is None:
            return None
        pictures, places = self._dataset
        try:
            return pictures.image(places[self._paths[row]])
        except (DataError, KeyError, OSError):
            return None

    @functools.cached_property
    def _dataset(self) -> tuple[StoredPictures, dict[str, int]] | None:
        """The stored pictures of the index's data set, and the rows of its manifest by path."""
        if self._index.info.dataset_dir is None:
            return None
        folder = Path(self._index.info.dataset_dir)
        try:
            manifest = read_manifest(folder)
            places = {path: row for row, path in enumerate(manifest.paths) if manifest.reasons[row] < 0}
            return StoredPictures(folder, Layout.load(folder), manifest), places
        except DataError:  # it is gone since, or was converted anew
            return None
