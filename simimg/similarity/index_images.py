"""The images of an index for verification and display: their files, or the pixels that a dataset stores.

A file counts only if its bytes are still those that were indexed. If it is missing or changed, or the index does not
know its folder, a dataset may have the image as it was converted: a smaller square, perhaps stretched. Squares are only
compared with squares, and files with files, because next to a small square a file would seem stretched and resized.
"""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from simimg.image_files import thumbnail
from simimg.similarity.fingerprint import CACHED, Fingerprint, fingerprint, fingerprint_file
from simimg.similarity.match_verification import Verification, verify
from simimg.similarity.search_index import SearchIndex
from tfrecords.base_errors import DataError
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Refusal

__all__ = ["IndexImages"]


class IndexImages:
    """The images of an index, by row. Thread-safe.

    Attributes:
        missing: requested rows that have neither a file nor stored pixels.
        stored: requested rows of which the stored pixels were used.
    """

    def __init__(self, index: SearchIndex) -> None:
        """Take an opened index."""
        self.missing: set[int] = set()
        self.stored: set[int] = set()
        self._index = index
        self._paths, self._sha256 = index.pictures.table["path"], index.pictures.table["sha256"]
        self._without_file: set[int] = set()
        self._square = functools.lru_cache(maxsize=CACHED)(self._square_fingerprint)

    def file(self, row: int) -> Fingerprint | None:
        """Return the fingerprint of a row's file; None if it is not the file that was indexed."""
        if row in self._without_file:
            return None
        try:
            return fingerprint_file(self._path(row), self._sha256[row].as_py())
        except (OSError, Refusal):
            self._without_file.add(row)
            return None

    def square(self, row: int) -> Fingerprint | None:
        """Return the fingerprint of a row's stored pixels; None if there are none."""
        found = self._square(row)
        (self.missing if found is None else self.stored).add(row)
        return found

    def verify(self, one: int, other: int) -> Verification | None:
        """Return the verification that one image is a copy of another; None if it is not, or if one is missing."""
        ours, theirs = self.file(one), self.file(other)
        if ours is None or theirs is None:
            ours, theirs = self.square(one), self.square(other)
        return None if ours is None or theirs is None else verify(ours, theirs)

    def image(self, row: int, most_px: int) -> Image.Image | None:
        """Return an image for display, mode RGB, upright, sides at most `most_px`, or None if it is missing."""
        image = thumbnail(self._path(row), most_px)
        if image is None and (image := self.square_image(row)) is not None:
            image.thumbnail((most_px, most_px))
        return image

    def square_image(self, row: int) -> Image.Image | None:
        """Return a row's stored pixels, mode RGB, or None if there are none."""
        if self._dataset is None:
            return None
        images, manifest_rows = self._dataset
        try:
            return images.image(manifest_rows[self._paths[row].as_py()])
        except (DataError, KeyError, OSError):
            return None

    def _path(self, row: int) -> Path:
        return self._index.file_of(self._paths[row].as_py())

    def _square_fingerprint(self, row: int) -> Fingerprint | None:
        image = self.square_image(row)
        return None if image is None else fingerprint(image)

    @functools.cached_property
    def _dataset(self) -> tuple[DatasetImages, dict[str, int]] | None:
        """The stored images of the index's dataset, and the rows of its manifest by path."""
        if self._index.info.dataset_dir is None:
            return None
        folder = Path(self._index.info.dataset_dir)
        try:
            manifest = read_manifest(folder)
            rows = {path: row for row, path in enumerate(manifest.paths) if manifest.reasons[row] < 0}
            return DatasetImages(folder, Layout.load(folder), manifest), rows
        except DataError:  # it was removed, or is being converted again
            return None
