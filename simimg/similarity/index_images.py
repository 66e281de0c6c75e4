"""The images of an index for verification and display: their files, or the pixels that a dataset stores.

A file counts only if its bytes are still those that were indexed, which is checked again whenever the file has changed.
If it is missing or edited, or the index does not know its folder, a dataset may have the image as it was converted: a
smaller square, perhaps stretched. Squares are only compared with squares, and files with files, because next to a small
square a file would seem stretched and resized.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from simimg.similarity.edits import EDITS
from simimg.similarity.fingerprint import (
    CACHED,
    JPEG_START,
    Fingerprint,
    Stamp,
    fingerprint,
    fingerprint_file,
    read_unchanged,
    reduced_images,
    stamp_of,
)
from simimg.similarity.fingerprint_store import FingerprintStore
from simimg.similarity.full_size import FullImage, compared, full_image
from simimg.similarity.match_verification import Verification, geometric_edits, verify_placed
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.transparency import verify_composites
from tfrecords.base_errors import DataError, UsageError
from tfrecords.convert.image.color import WHITE
from tfrecords.convert.image.decoder import decode, decode_visible
from tfrecords.convert.image.image_formats import ANY_SIZE, open_image, reading
from tfrecords.format.dataset_images import DatasetImages
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.quarantine import Refusal

_COLUMNS = ("path", "sha256", "num_bytes", "modified_ns")
_SUBFILE_TYPE = 254  # the TIFF tag
_FULL_CACHED = 48  # images at the size at which they are compared: 110 MB
_NUM_LOCKS = 16  # of more threads than cores, few wait for a lock that is another image's as well


class _Known(NamedTuple):
    """What an index knows about a file."""

    path: Path
    sha256: str
    size_and_time: tuple[int, ...]


class Examined(NamedTuple):
    """What came of a pair: its verification, the same at full size if that was compared, and the rows `stored` and
    `missing` as in `IndexImages`.
    """

    found: Verification | None
    compared: Verification | None
    stored: frozenset[int]
    missing: frozenset[int]


class IndexImages:
    """The images of an index, by row. Thread-safe.

    Attributes:
        ahead: what came of pairs that were examined elsewhere, by query, candidate, and whether thoroughly; each is
            used once.
        index: the index.
        missing: requested rows that have neither a file nor stored pixels.
        stored: requested rows of which the stored pixels were used.
    """

    def __init__(
        self,
        index: SearchIndex,
        *,
        background: tuple[int, int, int] = WHITE,
        store: FingerprintStore | None = None,
    ) -> None:
        """Take an opened index, and the color behind transparent pixels of its files, the same as of the queries.

        `store` has what is known of them; by default it is that beside the index.
        """
        self.missing: set[int] = set()
        self.stored: set[int] = set()
        self.ahead: dict[tuple[int, int, bool], Examined] = {}
        self._compared_ahead: dict[tuple[int, int], Examined] = {}
        self.index = index
        self._background = background
        self._facts = index.images.table
        self._known = functools.lru_cache(maxsize=CACHED)(self._look_up)
        self._store = store or FingerprintStore(None if index.is_temporary else index.index_dir)
        self._checked: dict[int, tuple[Stamp, bool]] = {}  # a file's stamp when it was read, and whether it was edited
        self._square = functools.lru_cache(maxsize=CACHED)(self._square_fingerprint)
        self._full = functools.lru_cache(maxsize=_FULL_CACHED)(self._decoded)
        # The pairs of one image come one after the other, so that several threads would decode it at the same time.
        self._decoding = [threading.Lock() for _ in range(_NUM_LOCKS)]

    def file(self, row: int) -> Fingerprint | None:
        """Return the fingerprint of a row's file; None if it is not the file that was indexed."""
        known = self._known(row)
        try:
            stamp = stamp_of(known.path.stat())
            if self._checked.get(row) == (stamp, True):
                return None
            unchanged = stamp[2:] == known.size_and_time
            return fingerprint_file(
                known.path, known.sha256, self._background, store=self._store, unchanged=unchanged, stamp=stamp
            )
        except OSError:
            return None
        except Refusal:
            self._checked[row] = stamp, True
            return None

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's file; raise OSError if it cannot be read, and Refusal if it was edited."""
        known = self._known(row)
        return read_unchanged(known.path, known.sha256)

    def num_frames(self, row: int) -> int:
        """Return how many frames or pages a row's file has, of which the first one is the image; 1 if it is gone.

        What follows the image in a JPEG file is a preview or a map of its light, and does not count; nor do the reduced
        pages of a TIFF file (bit 0 of the tag NewSubfileType).
        """
        try:
            data = self.read(row)
            if data.startswith(JPEG_START):
                return 1
            with reading(data, max_pixels=ANY_SIZE):
                image = open_image(data, ANY_SIZE)
                num_frames = getattr(image, "n_frames", 1)
                if not isinstance(image, TiffImageFile):
                    return num_frames
                num_reduced = 0
                for page in range(num_frames):
                    image.seek(page)
                    num_reduced += image.tag_v2.get(_SUBFILE_TYPE, 0) & 1
                return num_frames - num_reduced
        except (OSError, Refusal):
            return 1

    def is_edited(self, row: int) -> bool:
        """Whether a row's file is there, but is not the file that was indexed. It is read only if it has changed."""
        known = self._known(row)
        try:
            stamp = stamp_of(known.path.stat())
            unchanged = stamp[2:] == known.size_and_time
            if not unchanged and self._checked.get(row, (None,))[0] != stamp:
                try:
                    self.read(row)
                    self._checked[row] = stamp, False
                except Refusal:
                    self._checked[row] = stamp, True
            return not unchanged and self._checked[row][1]
        except OSError:
            return False

    def square(self, row: int) -> Fingerprint | None:
        """Return the fingerprint of a row's stored pixels; None if there are none."""
        found = self._square(row)
        if found is not None:
            self.stored.add(row)
        elif self.file(row) is None:  # a file is there in vain if the image it is compared with has none
            self.missing.add(row)
        return found

    def verify(self, one: int, other: int) -> Verification | None:
        """Return the verification that one image is a copy of another; None if it is not, or if one is missing."""
        return self._verify(one, other, thorough=True)

    def glance(self, one: int, other: int) -> Verification | None:
        """Do the same without `thorough`, see `simimg.similarity.match_verification.verify`."""
        return self._verify(one, other, thorough=False)

    def examine(self, one: int, other: int, *, thorough: bool, threshold: float) -> Examined:
        """Return what comes of a pair, compared at full size if it reaches the threshold. Not thread-safe."""
        self.stored.clear()
        self.missing.clear()
        found = self._verify(one, other, thorough=thorough)
        compared = self.compared(found, one, other) if found is not None and found.similarity >= threshold else None
        return Examined(found, compared, frozenset(self.stored), frozenset(self.missing))

    def compared(self, found: Verification, one: int, other: int, within: Set[str] = frozenset(EDITS)) -> Verification:
        """Return a verification by `verify` with what differs at full size; see `simimg.similarity.full_size`."""
        known = self._compared_ahead.pop((one, other), None)
        if known is not None and known.compared is not None and known.found is found:
            return known.compared
        as_files = self.file(one) is not None and self.file(other) is not None
        ours, theirs = (self.full_file(row) if as_files else self._full_square(row) for row in (one, other))
        return found if ours is None or theirs is None else compared(found, ours, theirs, within)

    def compared_file(self, found: Verification, image: FullImage, row: int) -> Verification:
        """Return the verification that an image is a copy of a row's file, with what differs at full size."""
        theirs = self.full_file(row)
        return found if theirs is None else compared(found, image, theirs)

    def compared_square(self, found: Verification, image: FullImage, row: int) -> Verification:
        """Return the verification that a square is a copy of a row's stored pixels, with what differs."""
        theirs = self._full_square(row)
        return found if theirs is None else compared(found, image, theirs)

    def verify_new(self, new: Fingerprint, row: int, *, thorough: bool = True) -> Verification | None:
        """Return the verification that an image is a copy of a row's file; None if it is not, or the file is gone."""
        file = self.file(row)
        return None if file is None else _verified(new, file, thorough=thorough)

    def full_file(self, row: int) -> FullImage | None:
        """Return a row's file at the size at which copies are compared; None if it is gone or was edited."""
        try:
            with self._decoding[row % _NUM_LOCKS]:
                return self._full(row, stamp_of(self._known(row).path.stat()))
        except (OSError, Refusal):
            return None

    def save(self) -> None:
        """Keep the thumbnails and keypoints that were computed, see `simimg.similarity.fingerprint_store`."""
        self._store.save()

    def verify_placed(self, one: int, other: int, place: np.ndarray) -> Verification | None:
        """Do the same as `verify` for images whose alignment is known, see `Verification.place`."""
        ours, theirs = self._both(one, other)
        if ours is None or theirs is None or ours.on_contrast is not None or theirs.on_contrast is not None:
            return None
        return verify_placed(ours, theirs, place)

    def geometric_edits(self, one: int, other: int, place: np.ndarray) -> list[str]:
        """Return the reasons that the alignment shows, see `Verification`; none if an image is missing."""
        ours, theirs = self._both(one, other)
        return [] if ours is None or theirs is None else geometric_edits(ours, theirs, place)

    def _verify(self, one: int, other: int, *, thorough: bool) -> Verification | None:
        known = self.ahead.pop((one, other, thorough), None)
        if known is not None:
            self.stored.update(known.stored)
            self.missing.update(known.missing)
            if known.compared is not None:
                self._compared_ahead[one, other] = known
            return known.found
        ours, theirs = self._both(one, other)
        return None if ours is None or theirs is None else _verified(ours, theirs, thorough=thorough)

    def _both(self, one: int, other: int) -> tuple[Fingerprint | None, Fingerprint | None]:
        """Return the fingerprints of two files, or of their stored pixels if one has no file."""
        ours, theirs = self.file(one), self.file(other)
        return (ours, theirs) if ours is not None and theirs is not None else (self.square(one), self.square(other))

    def image(self, row: int, most_px: int, background: tuple[int, int, int] | None = None) -> Image.Image | None:
        """Return an image for display, mode RGB, upright, sides at most `most_px`, or None if it is missing.

        It is on this background; by default on white, or on black if it shows nothing on white.
        """
        image: Image.Image | None
        try:
            data = self.read(row)
            if background:
                image = decode(data, background=background, truncated="keep", max_pixels=ANY_SIZE)
            else:
                image = decode_visible(data, max_pixels=ANY_SIZE)
        except (OSError, Refusal):
            image = self.square_image(row)
        if image is not None:
            image.thumbnail((most_px, most_px))
        return image

    def square_image(self, row: int) -> Image.Image | None:
        """Return a row's stored pixels, mode RGB, or None if there are none."""
        if self._dataset is None:
            return None
        images, manifest_rows = self._dataset
        try:
            return images.image(manifest_rows[self._facts["path"][row].as_py()])
        except (DataError, KeyError, OSError):
            return None

    def _look_up(self, row: int) -> _Known:
        path, sha256, *size_and_time = (self._facts[name][row].as_py() for name in _COLUMNS)
        return _Known(self.index.file_of(path), sha256, tuple(size_and_time))

    def _square_fingerprint(self, row: int) -> Fingerprint | None:
        image = self.square_image(row)
        return None if image is None else fingerprint(image)

    def _decoded(self, row: int, stamp: Stamp) -> FullImage | None:
        known, small = self._known(row), self.file(row)
        if small is None:
            return None
        is_unchanged = stamp[2:] == known.size_and_time
        kept = reduced_images(known.path, known.sha256, self._background, self._store, is_unchanged=is_unchanged)
        return FullImage(kept[0], kept[1] if len(kept) > 1 else None, self._background, small.jpeg_quality)

    def _full_square(self, row: int) -> FullImage | None:
        image = self.square_image(row)
        return None if image is None else full_image(image)

    @functools.cached_property
    def _dataset(self) -> tuple[DatasetImages, dict[str, int]] | None:
        """The stored images of the index's dataset, and the rows of its manifest by path."""
        try:
            folder = self.index.info.dataset_folder
            if folder is None:
                return None
            manifest = read_manifest(folder)
            rows = {path: row for row, path in enumerate(manifest.paths) if manifest.reasons[row] < 0}
            return DatasetImages(folder, Layout.load(folder), manifest), rows
        except (DataError, UsageError):  # it was removed, or is being converted again
            return None


def _verified(query: Fingerprint, candidate: Fingerprint, *, thorough: bool = True) -> Verification | None:
    try:
        return verify_composites(query, candidate, thorough=thorough)
    except (OSError, Refusal):  # a file was removed or edited in between
        return None
