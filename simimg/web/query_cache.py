"""Queries of the search page, uploads or rows of the index, kept in memory under random names.

The name of an uploaded file is ignored, and nothing is written to disk. The size is limited in bytes before an upload
is read, and in pixels before it is decoded. The last few queries are kept, so that another search for one needs no
second upload.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import OrderedDict

import numpy as np

from simimg.image_files import png_bytes
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import jpeg_quality
from simimg.similarity.search_queries import QueryImage, query_views
from simimg.web.request_guard import RequestError
from simimg.web.thumbnails import large_jpeg
from tfrecords.convert.image.decoder import decode_composites, visible_composite
from tfrecords.convert.image.image_formats import open_image, reading
from tfrecords.format.quarantine import Refusal

MAX_BYTES = 32 << 20
"""Of an upload; the largest JPEG files of cameras have about this size."""

MAX_PIXELS = 64_000_000
"""Of an upload; 192 MB when it is decoded."""

MIN_PART_PX = 16
"""Of each side of a part that is searched for."""

_KEPT = 6


@dataclasses.dataclass(frozen=True, slots=True)
class CachedQuery:
    """A query: its id for the browser, its row of the index (-1 for an upload), its views and a JPEG for display.

    `size` is the width and height in px, upright. For the views and the image, see
    `simimg.similarity.search_queries`.
    """

    name: str
    row: int
    views: np.ndarray
    size: tuple[int, int]
    jpeg: bytes
    image: QueryImage


class QueryCache:
    """The last few queries, by name. Thread-safe."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, CachedQuery] = OrderedDict()

    def add(self, data: bytes, *, row: int = -1) -> CachedQuery:
        """Add the bytes of an image file.

        Raises:
            RequestError: the data is not an image, or the image is too large.
        """
        try:
            with reading(data):
                width, height = open_image(data).size
            if width * height > MAX_PIXELS:
                raise RequestError(
                    413,
                    f"This image has {width:,} x {height:,} pixels. The limit is {MAX_PIXELS // 1_000_000} million.",
                )
            options = self._embedder.image_options
            image, contrast = decode_composites(
                data,
                background=options.background,
                truncated=options.truncated,
                sample_range=options.sample_range,
            )
            views = query_views(image, options, data, contrast)
        except Refusal as refusal:
            raise RequestError(415, f"This is not an image that can be read: {refusal}.") from None
        except MemoryError:
            raise RequestError(413, "There is not enough memory to decode this image.") from None
        query = CachedQuery(
            name=secrets.token_urlsafe(12) if row < 0 else f"row-{row}",
            row=row,
            views=views,
            size=image.size,
            jpeg=large_jpeg(visible_composite(image, contrast)),
            image=QueryImage(image, quality=jpeg_quality(data), contrast=contrast, background=options.background),
        )
        with self._lock:
            self._kept[query.name] = query
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return query

    def part(self, data: bytes, box: tuple[float, float, float, float]) -> CachedQuery:
        """Add a part of the image of a file; `box` is left, top, right and bottom as shares of width and height.

        Raises:
            RequestError: the part has fewer than `MIN_PART_PX` pixels in a side, or as `add`.
        """
        try:
            image = visible_composite(*decode_composites(data, truncated="keep", max_pixels=MAX_PIXELS))
        except Refusal as refusal:
            raise RequestError(415, f"This is not an image that can be read: {refusal}.") from None
        left, top, right, bottom = (round(share * side) for share, side in zip(box, 2 * image.size, strict=True))
        if min(right - left, bottom - top) < MIN_PART_PX:
            raise RequestError(422, f"This part is too small: {MIN_PART_PX} pixels in each side are needed.")
        return self.add(png_bytes(image.crop((left, top, right, bottom))))

    def get(self, name: str) -> CachedQuery | None:
        """Return a query that is still kept, or None."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)
