"""The pictures of an index, for a closer look: their files, or the pixels that a data set has stored.

A file counts if its bytes are still those that were indexed. Where one is gone, or was changed, or the index does not
know its folder, there may be a data set with the picture as it was converted: a square, smaller, perhaps stretched. So
squares are compared with squares, and files with files: a file beside a small square would look as if somebody had
stretched and shrunk it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from simimg.similarity.fingerprint import CACHED, Fingerprint, fingerprint, fingerprint_file
from simimg.similarity.search_index import SearchIndex
from tfrecords.base_errors import DataError
from tfrecords.convert.image.decoder import decode
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Refusal

__all__ = ["IndexImages"]


class IndexImages:
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
        self._paths, self._sha256 = index.pictures.table["path"], index.pictures.table["sha256"]
        self._fileless: set[int] = set()
        self._examine_square = functools.lru_cache(maxsize=CACHED)(self._examine_square_now)

    def file(self, row: int) -> Fingerprint | None:
        """Returns what a close look at a row's file finds; None where it is not what was indexed."""
        if row in self._fileless:
            return None
        try:
            return fingerprint_file(self._path(row), self._sha256[row].as_py())
        except (OSError, Refusal):
            self._fileless.add(row)
            return None

    def square(self, row: int) -> Fingerprint | None:
        """Returns what a close look at a row's stored pixels finds; None where there are none."""
        seen = self._examine_square(row)
        (self.missing if seen is None else self.stored).add(row)
        return seen

    def pair(self, one: int, other: int) -> tuple[Fingerprint, Fingerprint] | None:
        """Returns two pictures that can be compared with each other, or None where one is missing."""
        ours, theirs = self.file(one), self.file(other)
        if ours is None or theirs is None:
            ours, theirs = self.square(one), self.square(other)
        return None if ours is None or theirs is None else (ours, theirs)

    def image(self, row: int, most_px: int) -> Image.Image | None:
        """Returns a picture to be shown, mode RGB, upright, a side at most `most_px`, or None where it is missing."""
        try:
            image: Image.Image | None = decode(self._path(row).read_bytes())
        except (OSError, Refusal):
            image = self.square_image(row)
        if image is not None:
            image.thumbnail((most_px, most_px))
        return image

    def square_image(self, row: int) -> Image.Image | None:
        """Returns a row's stored pixels, mode RGB, or None where there are none."""
        if self._dataset is None:
            return None
        pictures, places = self._dataset
        try:
            return pictures.image(places[self._paths[row].as_py()])
        except (DataError, KeyError, OSError):
            return None

    def _path(self, row: int) -> Path:
        return self._index.file_of(self._paths[row].as_py())

    def _examine_square_now(self, row: int) -> Fingerprint | None:
        image = self.square_image(row)
        return None if image is None else fingerprint(image)

    @functools.cached_property
    def _dataset(self) -> tuple[DatasetImages, dict[str, int]] | None:
        """The stored pictures of the index's data set, and the rows of its manifest by path."""
        if self._index.info.dataset_dir is None:
            return None
        folder = Path(self._index.info.dataset_dir)
        try:
            manifest = read_manifest(folder)
            places = {path: row for row, path in enumerate(manifest.paths) if manifest.reasons[row] < 0}
            return DatasetImages(folder, Layout.load(folder), manifest), places
        except DataError:  # it is gone since, or was converted anew
            return None
