"""Pictures that somebody looks for: what a browser sent, or a row of the index, kept in memory under a random name.

What is sent has no name that counts, touches no disk, and is bounded in bytes before it is read and in pixels before it
is decoded. The last few are kept, so that another question about one needs no second upload.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image

from simimg.similarity import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint, jpeg_quality
from simimg.similarity.query_views import query_views
from simimg.web.request_errors import RequestError
from simimg.web.thumbnails import LARGE_PX, encode_jpeg
from tfrecords.convert.image.decoder import decode
from tfrecords.convert.image.image_formats import open_image, reading
from tfrecords.format.quarantine import Refusal

__all__ = ["MAX_BYTES", "MAX_PIXELS", "CachedQuery", "QueryCache"]

MAX_BYTES = 32 << 20
"""Of an upload: the largest JPEG of a camera has about this."""

MAX_PIXELS = 64_000_000
"""Of an upload: 192 MB when it is decoded."""

_KEPT = 6


@dataclasses.dataclass(slots=True)
class CachedQuery:
    """A query: its name, views, size in px, and what to show of it.

    Attributes:
        name: what the browser calls it.
        row: of the index; -1 for an upload.
        views: see `simimg.similarity.query_views`.
        size: width and height, upright.
        shown: a JPEG.
    """

    name: str
    row: int
    views: np.ndarray
    size: tuple[int, int]
    shown: bytes
    _image: Image.Image | None
    _quality: int | None
    _examined: Fingerprint | None = None

    def examined(self) -> Fingerprint:
        """Returns what a close look finds: at the first call in 0.1 s, of one thread at a time."""
        if self._examined is None:
            assert self._image is not None
            self._examined = fingerprint(self._image, quality=self._quality, as_query=True)
            self._image = None  # up to 192 MB
        return self._examined


class QueryCache:
    """The last few queries by name. Safe to use from many threads."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, CachedQuery] = OrderedDict()

    def add(self, data: bytes, *, row: int = -1) -> CachedQuery:
        """Takes in the bytes of a picture.

        Raises:
            Refused: it is no picture, or too large a one.
        """
        try:
            with reading(data):
                width, height = open_image(data).size
            if width * height > MAX_PIXELS:
                raise RequestError(
                    413,
                    f"This picture has {width:,} x {height:,} pixels; {MAX_PIXELS // 1_000_000} million is the most.",
                )
            image = decode(data)
        except Refusal as refusal:
            raise RequestError(415, f"This is no picture that can be read: {refusal}.") from None
        except MemoryError:
            raise RequestError(413, "There is not enough memory to decode this picture.") from None
        name = secrets.token_urlsafe(12) if row < 0 else f"row-{row}"
        asked = CachedQuery(
            name,
            row,
            query_views(image, self._embedder.image_size, self._embedder.resize),
            image.size,
            encode_jpeg(image, LARGE_PX),
            image,
            jpeg_quality(data),
        )
        with self._lock:
            self._kept[name] = asked
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return asked

    def get(self, name: str) -> CachedQuery | None:
        """Returns a query that is still kept."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)
