"""Images of an index for the browser: thumbnails, which are created once, and larger images, all as JPEG.

    <index_dir>/web/thumbnails/<ab>/<sha256>-<px>.jpg       `simimg index` removes those of images that are gone

Images are requested by row. A file is used only if it lies in the folder of the index and its bytes are those that were
indexed, and so is its thumbnail: of a file that was edited since, none is shown. A file is never sent itself: it is
decoded and encoded again, so only images can leave the server. For a dataset whose files are elsewhere, the stored
pixels are used.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from pathlib import Path, PurePosixPath

from PIL import Image

from simimg.image_files import jpeg_bytes, png_bytes
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_info import THUMBNAILS
from simimg.similarity.plan_file import is_inside
from simimg.similarity.search_index import SearchIndex
from simimg.web.request_guard import RequestError
from tfrecords.convert.image.decoder import ImageOptions, decode_composites, load_image, visible_composite
from tfrecords.convert.image.image_formats import ANY_SIZE
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.quarantine import Refusal

CACHE = PurePosixPath(THUMBNAILS).parts[0]
"""The folder of an index for files that can be computed again."""

THUMBNAIL_PX = 320
"""Longer side: twice a tile of the grid, for high-resolution screens; 15 KB."""

LARGE_PX = 1600

FULL_PIXELS = 64_000_000
"""Of an image at full size; of a larger one, the large image is shown."""

_EDITED = "The file of this image was changed after indexing. Run simimg index again."
_QUALITY, _LARGE_QUALITY, _FULL_QUALITY = 80, 90, 93  # libjpeg's scale
_FULL_CACHED = 2  # 10 MB each
_LARGE_CACHED = 12  # 400 KB each
_SMALL_CACHED = 2_000  # in memory, in addition to the disk: 30 MB


class Thumbnails:
    """Thumbnails and large images, with a longer side of at most `LARGE_PX`, by row. Thread-safe."""

    def __init__(self, index: SearchIndex) -> None:
        self.images = IndexImages(index)
        self._index = index
        self._folder = index.index_dir / THUMBNAILS
        self._small = functools.lru_cache(_SMALL_CACHED)(self._thumbnail)
        self._full = functools.lru_cache(_FULL_CACHED)(lambda row: _at_full_size(self.read(row)))
        self._large = functools.lru_cache(_LARGE_CACHED)(lambda row: _reduced(self.read(row), LARGE_PX, _LARGE_QUALITY))

    def thumbnail(self, row: int) -> bytes:
        """Return a JPEG whose longer side is at most `THUMBNAIL_PX`.

        Raises:
            RequestError: there is no such row, or its file is missing, edited, or outside the folder of the index.
        """
        self._check(row)
        return self._small(row)

    def large(self, row: int) -> bytes:
        """Return a JPEG whose longer side is at most `LARGE_PX`; raise as `thumbnail`."""
        self._check(row)
        return self._large(row)

    def full(self, row: int) -> bytes:
        """Return a JPEG of the size that the image has, or a large one if that is too much; raise as `thumbnail`."""
        self._check(row)
        image = self._image(row)
        return self._full(row) if image.width * image.height <= FULL_PIXELS else self._large(row)

    def file(self, row: int) -> Path:
        """Return the path of a row's file, which is there and lies in the folder of the index; raise as `thumbnail`."""
        image = self._image(row)
        if not self._is_file(image):
            raise RequestError(404, "This image is not a file of this machine.")
        file = self._index.path_of(image)
        if not file.is_file():
            raise RequestError(404, "The file of this image is gone. Run simimg index again.")
        return file

    def _thumbnail(self, row: int) -> bytes:
        sha256 = self._image(row).sha256
        path = self._folder / sha256[:2] / f"{sha256}-{THUMBNAIL_PX}.jpg"
        with suppress(OSError):
            return path.read_bytes()
        data = _reduced(self.read(row), THUMBNAIL_PX, _QUALITY)
        with suppress(OSError):  # the index is read-only
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, sync=False, sync_name=False) as file:
                file.write(data)
        return data

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's file, which are those that were indexed; raise as `thumbnail`.

        If the index knows only a dataset, the stored pixels are returned as a PNG.
        """
        image = self._image(row)
        if self._index.info.image_dir is None and (square := self.images.square_image(row)) is not None:
            return png_bytes(square)
        if not self._is_file(image):
            raise RequestError(404, "This image is not a file of this machine.")
        try:
            return self.images.read(row)
        except (OSError, ValueError):
            raise RequestError(404, "The file of this image is gone. Run simimg index again.") from None
        except Refusal:
            raise RequestError(404, _EDITED) from None

    def _check(self, row: int) -> None:
        image = self._image(row)
        if self._is_file(image) and self.images.is_edited(row):
            raise RequestError(404, _EDITED)

    def _is_file(self, image: IndexedImage) -> bool:
        """Whether an image is a file in the folder of the index: no other file leaves this machine."""
        return self._index.info.image_dir is not None and is_inside(image.path)

    def _image(self, row: int) -> IndexedImage:
        if not 0 <= row < len(self._index.images):
            raise RequestError(404, f"There is no image {row}: the index has {len(self._index.images):,}.")
        image: IndexedImage = self._index.images[row]
        return image


def large_jpeg(image: Image.Image) -> bytes:
    """Return an image, mode RGB, as a JPEG, reduced to a longer side of at most `LARGE_PX`."""
    if max(image.size) > LARGE_PX:
        image = image.copy()
        image.thumbnail((LARGE_PX, LARGE_PX), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return jpeg_bytes(image, _LARGE_QUALITY)


def _at_full_size(data: bytes) -> bytes:
    """Return the image of a file as a JPEG of the same size, upright, in sRGB."""
    try:
        image, contrast = decode_composites(data, truncated="keep")
    except Refusal as refusal:
        raise RequestError(404, f"This image cannot be decoded: {refusal}.") from None
    return jpeg_bytes(visible_composite(image, contrast), _FULL_QUALITY)


def _reduced(data: bytes, longer_side: int, quality: int) -> bytes:
    """Return the image of a file as a JPEG: decoded at a fraction of its size if possible, upright, in sRGB."""
    try:
        options = ImageOptions(image_size=longer_side, resize="pad", truncated="keep", max_pixels=ANY_SIZE)
        picture = load_image(data, options)
    except Refusal as refusal:
        raise RequestError(404, f"This image cannot be decoded: {refusal}.") from None
    longest = max(picture.width, picture.height)
    width, height = (max(1, round(side / longest * longer_side)) for side in (picture.width, picture.height))
    left, top = round((longer_side - width) * 0.5), round((longer_side - height) * 0.5)
    image = Image.fromarray(picture.visible[top : top + height, left : left + width])
    if longest < longer_side:  # small images are not enlarged
        image = image.resize((picture.width, picture.height), Image.Resampling.BICUBIC)
    return jpeg_bytes(image, quality)
