"""Queries of a search: files or images in memory, the views of them that are embedded, and their fingerprints.

The images of an index are embedded once, as they are. A query is embedded in `NUM_VIEWS` views: rotated by quarter
turns, mirrored, and in parts, because a network takes a photo for another one if it is rotated or fills only a corner
of the query.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from simimg.image_files import map_ahead
from simimg.similarity.embeddings import Embedder
from simimg.similarity.fingerprint import Fingerprint, fingerprint, jpeg_quality, jpeg_quality_of
from simimg.similarity.full_size import FullImage, full_image
from tfrecords.convert.image.color import CHECKER, WHITE, contrasting
from tfrecords.convert.image.decoder import (
    DecodedImage,
    ImageOptions,
    decode_composites,
    load_image,
    resize,
    upright_composites,
    visible_composite,
)
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.machine_limits import num_cores

_WINDOW = 0.6  # of each side
_CORNERS = (0.0, 0.2, 0.4)  # where windows begin, as a share of the side: three by three
NUM_VIEWS = 8 + len(_CORNERS) ** 2


@dataclasses.dataclass(frozen=True)
class Query:
    """An image to search for.

    Attributes:
        path: of its file, or "".
        views: see `query_views`.
        image: the image itself, for verification.
    """

    path: str
    views: np.ndarray
    image: QueryImage


class QueryImage:
    """What verification needs of a query, computed once. Then the image, which may have 192 MB, is dropped.

    Thread-safe.
    """

    def __init__(
        self,
        image: Image.Image,
        *,
        quality: int | None = None,
        contrast: Image.Image | None = None,
        background: tuple[int, int, int] = WHITE,
    ) -> None:
        """Take an image, mode RGB, upright, and what `fingerprint` takes of it."""
        self._images: tuple[Image.Image, Image.Image | None] | None = (image, contrast)
        self._quality, self._background = quality, background
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> Fingerprint:
        """Its fingerprint; the first call takes 0.1 s."""
        self._compute()
        return self._fingerprint

    @property
    def full(self) -> FullImage:
        """The image at the size at which copies are compared."""
        self._compute()
        return self._full

    def _compute(self) -> None:
        with self._lock:
            if self._images is not None:
                image, contrast = self._images
                self._fingerprint = fingerprint(
                    image, quality=self._quality, as_query=True, contrast=contrast, background=self._background
                )
                self._full = full_image(image, contrast, self._background, self._quality)
                self._images = None


def query_views(
    image: Image.Image, options: ImageOptions, data: bytes = b"", contrast: Image.Image | None = None
) -> np.ndarray:
    """Return the views of a query, uint8 `[NUM_VIEWS, height, width, 3]`, and one more if it is transparent.

    Of a file with the content `data`, the whole image has the same pixels as when the file is indexed. Pixels in memory
    are resized as those of a PNG file would be. A JPEG decoder reduces a large image itself, which cannot be repeated
    with its pixels.

    The first view is the image, the next seven are its other orientations (quarter turns, and each mirrored), and the
    last nine are windows of 60 % of each side. Measured with 200 photos in 14 edits among 2,387: the original is first
    for 87 % with the image and its mirror image alone and for 92 % with all views; it is among the first fifty for 98 %
    and 99.6 %.

    Of an image with transparent pixels, `contrast` is the image on the contrasting background, which is one more view.
    If the image shows nothing else, all views are of `contrast`, as in the index.

    The mode of the image is RGB. `options` are the model's; they tell the size, and how images become squares.

    Raises:
        Refusal: `data` cannot be decoded.
    """
    if options.backdrop == "auto":  # which is what happens to a query below, with all of its views
        options = dataclasses.replace(options, backdrop="color")
    other = dataclasses.replace(options, background=contrasting(options.background))

    def square(image: Image.Image, options: ImageOptions = options) -> np.ndarray:
        size, vector_code = options.image_size, options.vector_code
        return resize(image, size, options.resize, background=options.background, vector_code=vector_code)

    if data:
        loaded = load_image(data, options, contrast=True)
    else:
        laid = None if contrast is None else square(contrast, other)
        loaded = DecodedImage(square(image), *image.size, laid)
    whole, extra = loaded.pixels, loaded.contrast
    if options.backdrop == CHECKER and contrast is not None:
        image = visible_composite(image, contrast)  # the windows are of one color
    elif extra is not None and contrast is not None and loaded.vanishes:
        image, whole, options, extra = contrast, extra, other, None
    # A resized square is rotated instead of the image; the result is the same.
    views = [np.rot90(side, turns) for side in (whole, whole[:, ::-1]) for turns in range(4)]
    if whole.shape[0] != whole.shape[1]:
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for number, side in ((1, image), (5, mirrored)):
            views[number] = square(side.transpose(Image.Transpose.ROTATE_90), options)
            views[number + 2] = square(side.transpose(Image.Transpose.ROTATE_270), options)
    width, height = image.size
    for top in _CORNERS:
        for left in _CORNERS:
            box = (left * width, top * height, (left + _WINDOW) * width, (top + _WINDOW) * height)
            edges = [round(edge) for edge in box]
            part = image.crop((edges[0], edges[1], max(edges[0] + 1, edges[2]), max(edges[1] + 1, edges[3])))
            views.append(square(part, options))
    return np.stack(views if extra is None else [*views, extra])


def load_query(path: str, embedder: Embedder) -> Query | Refusal:
    """Return a file as a query, or why it cannot be read."""
    try:
        return _file_query(path, Path(path).read_bytes(), embedder)
    except OSError as error:
        return Refusal(Reason.UNREADABLE, error.strerror or str(error))


def _file_query(path: str, data: bytes, embedder: Embedder) -> Query | Refusal:
    try:
        image, contrast = decode_composites(
            data,
            background=embedder.background,
            truncated=embedder.truncated,
            sample_range=embedder.sample_range,
            max_pixels=embedder.max_pixels,
        )
        return make_query(path, image, embedder, quality=jpeg_quality(data), data=data, contrast=contrast)
    except Refusal as refusal:
        return refusal


def image_query(image: Image.Image, embedder: Embedder) -> Query | Refusal:
    """Return an image of any mode as a query, the same as that of its file if Pillow has just opened it."""
    if data := _unread_file(image):
        return _file_query("", data, embedder)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # of a file that Pillow opened, but cannot decode
        return Refusal(Reason.UNREADABLE, str(error))
    laid, contrast = upright_composites(image, embedder.background)
    return make_query("", laid, embedder, quality=jpeg_quality_of(image), contrast=contrast)


def _unread_file(image: Image.Image) -> bytes:
    """Return the content of the file that Pillow has opened as `image`, but not decoded yet; b"" for other images."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if file is None or getattr(image, "_im", None) is not None or image.tell():
        return b""
    try:
        place = file.tell()
        file.seek(0)
        data: bytes = file.read()
        file.seek(place)
    except (OSError, ValueError):  # closed, or a stream
        return b""
    return data


def make_query(
    path: str,
    image: Image.Image,
    embedder: Embedder,
    *,
    quality: int | None = None,
    data: bytes = b"",
    contrast: Image.Image | None = None,
) -> Query:
    """Return an image, mode RGB, upright, as a query; `data` is the content of its file, if it has one.

    For `contrast`, see `query_views`.
    """
    views = query_views(image, embedder.image_options, data, contrast)
    return Query(path, views, QueryImage(image, quality=quality, contrast=contrast, background=embedder.background))


def load_queries(paths: Sequence[str], embedder: Embedder) -> Iterator[tuple[str, Query | Refusal]]:
    """Return an iterator over each path with its query or its refusal, in order, loaded ahead by threads."""

    def load(path: str) -> tuple[str, Query | Refusal]:
        query = load_query(path, embedder)
        if isinstance(query, Query) and len(paths) > 1:  # a single one is better computed while the network runs
            query.image.fingerprint  # noqa: B018
        return path, query

    return map_ahead(load, paths, num_threads=num_cores(), num_ahead=4 * num_cores())
