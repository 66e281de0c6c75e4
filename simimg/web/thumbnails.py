"""The pictures of an index as a browser shows them: thumbnails, made once, and larger ones, both JPEG.

    <index_dir>/web/thumbnails/<ab>/<sha256>-<px>.jpg

Pictures are asked for by their rows. A file is shown only if it lies in the index's folder and its bytes are those that
were indexed, and never as it is: what is sent was decoded and encoded here, so nothing but pictures leaves. Of a data
set whose files are elsewhere, the stored pixels are shown.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path, PurePosixPath

from PIL import Image

from simimg.report.contact_sheet import png_bytes
from simimg.similarity import IndexedImage, IndexImages, SearchIndex
from simimg.web.request_errors import RequestError
from tfrecords.convert.image.decoder import ImageOptions, load_image
from tfrecords.format.atomic_files import atomic_file
from tfrecords.format.quarantine import Refusal

__all__ = ["CACHE", "LARGE_PX", "THUMBNAIL_PX", "Thumbnails", "encode_jpeg"]

CACHE = "web"
"""The folder of an index in which everything lies that can be made again."""

THUMBNAIL_PX = 320
"""Of the longer side: twice a tile of the grid, for fine screens; 15 KB."""

LARGE_PX = 1600

_QUALITY, _LARGE_QUALITY = 80, 90  # libjpeg's scale
_LARGE_KEPT = 12  # 400 KB each
_SMALL_KEPT = 2_000  # in memory, where the index's folder cannot be written: 30 MB


class Thumbnails:
    """Thumbnails and large pictures by row. Safe to use from many threads."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self._originals = IndexImages(index)
        self._folder = index.index_dir / CACHE / "thumbnails"
        self._lock = threading.Lock()
        self._kept: dict[int, OrderedDict[str, bytes]] = {THUMBNAIL_PX: OrderedDict(), LARGE_PX: OrderedDict()}

    def thumbnail(self, row: int) -> bytes:
        """Returns a JPEG, its longer side at most `THUMBNAIL_PX`.

        Raises:
            Refused: there is no such row, or its file is gone, was changed or is not where it should be.
        """
        picture = self._picture(row)
        path = self._folder / picture.sha256[:2] / f"{picture.sha256}-{THUMBNAIL_PX}.jpg"
        if (kept := self._remembered(THUMBNAIL_PX, picture.sha256)) is not None:
            return kept
        try:
            return path.read_bytes()
        except OSError:
            data = _shrunk(self.read(row), THUMBNAIL_PX, _QUALITY)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, sync=False, sync_name=False) as file:
                file.write(data)
        except OSError:  # an index that may only be read
            self._remember(THUMBNAIL_PX, picture.sha256, data, _SMALL_KEPT)
        return data

    def large(self, row: int) -> bytes:
        """Returns a JPEG, its longer side at most `LARGE_PX`; raises as `thumbnail`."""
        sha256 = self._picture(row).sha256
        data = self._remembered(LARGE_PX, sha256)
        if data is None:
            data = _shrunk(self.read(row), LARGE_PX, _LARGE_QUALITY)
            self._remember(LARGE_PX, sha256, data, _LARGE_KEPT)
        return data

    def read(self, row: int) -> bytes:
        """Returns the bytes of a row's file, which are those that were indexed; raises as `thumbnail`.

        Where the index knows no files, but a data set: its stored pixels, as a PNG.
        """
        picture = self._picture(row)
        if self._index.info.image_dir is None and (square := self._originals.square_image(row)) is not None:
            return png_bytes(square)
        if self._index.info.image_dir is None or not _is_inside(picture.path):
            raise RequestError(404, "This picture is no file of this machine.")
        try:
            data = self._index.path_of(picture).read_bytes()
        except (OSError, ValueError):
            raise RequestError(404, "The file of this picture is gone. Run simimg index again.") from None
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise RequestError(404, "The file of this picture was changed since. Run simimg index again.")
        return data

    def _picture(self, row: int) -> IndexedImage:
        if not 0 <= row < len(self._index.pictures):
            raise RequestError(404, f"There is no picture {row}: the index has {len(self._index.pictures):,}.")
        picture: IndexedImage = self._index.pictures[row]
        return picture

    def _remembered(self, px: int, sha256: str) -> bytes | None:
        with self._lock:
            data = self._kept[px].get(sha256)
            if data is not None:
                self._kept[px].move_to_end(sha256)
            return data

    def _remember(self, px: int, sha256: str, data: bytes, most: int) -> None:
        with self._lock:
            self._kept[px][sha256] = data
            while len(self._kept[px]) > most:
                self._kept[px].popitem(last=False)


def encode_jpeg(image: Image.Image, longer_side: int) -> bytes:
    """Returns a picture, mode RGB, as a JPEG, shrunk to a longer side of at most `longer_side` px."""
    if max(image.size) > longer_side:
        image = image.copy()
        image.thumbnail((longer_side, longer_side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_LARGE_QUALITY)
    return buffer.getvalue()


def _shrunk(data: bytes, longer_side: int, quality: int) -> bytes:
    """A file's picture as a JPEG: decoded at a fraction of its size where that is enough, upright, in sRGB."""
    try:
        picture = load_image(data, ImageOptions(image_size=longer_side, resize="pad"))
    except Refusal as refusal:
        raise RequestError(404, f"This picture cannot be decoded: {refusal}.") from None
    longest = max(picture.width, picture.height)
    width, height = (max(1, round(side / longest * longer_side)) for side in (picture.width, picture.height))
    left, top = round((longer_side - width) * 0.5), round((longer_side - height) * 0.5)
    image = Image.fromarray(picture.pixels[top : top + height, left : left + width])
    if longest < longer_side:  # never larger than it is
        image = image.resize((picture.width, picture.height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _is_inside(path: str) -> bool:
    """Whether a path of the index, which may be anybody's, stays in its folder."""
    parts = PurePosixPath(path)
    return bool(path) and not Path(path).is_absolute() and ".." not in parts.parts
