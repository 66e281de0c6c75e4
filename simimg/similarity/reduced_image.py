"""Images at the size at which copies are compared, and how files come to it without being decoded in full.

A JPEG's decoder reduces the image itself. Other formats take a tenth of a second for ten megapixels, so their reduced
images are kept from when they were indexed (`simimg.similarity.fingerprint_store.FingerprintStore.reduced`).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from simimg.similarity.differences import MOST_PX
from tfrecords.convert.image.decoder import DecodedImage, ImageOptions, decode_composites, load_image
from tfrecords.convert.image.image_formats import ANY_SIZE
from tfrecords.convert.image.jpeg import MARGIN, resize_image

_DECODED_PX = 224  # a JPEG's decoder reduces it as for the squares of `lite0`, so that it is decoded once for all

_WORTH_BYTES = MOST_PX * MOST_PX  # smaller images are decoded again: that takes little time


def reduced_pixels(image: Image.Image) -> np.ndarray:
    """Return an image, mode RGB, with at most `MOST_PX` along its longer side: uint8 `[h, w, 3]`."""
    if (longer := max(image.size)) > MOST_PX:
        width, height = (max(1, round(side * MOST_PX / longer)) for side in image.size)
        image = resize_image(image, (width, height), (0, 0, *image.size))
    return np.asarray(image)


def reduced_file(data: bytes, background: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Return the reduced image of a file, and of a transparent one also that on the contrasting background.

    Raises:
        Refusal: the bytes are not an image.
    """
    least_px = math.ceil(MARGIN * MOST_PX)
    images = decode_composites(data, background=background, truncated="keep", max_pixels=ANY_SIZE, least_px=least_px)
    return tuple(reduced_pixels(image) for image in images if image is not None)


def fitted_in(data: bytes, background: tuple[int, int, int], px: int) -> tuple[DecodedImage, list[np.ndarray]]:
    """Return a file padded to a square, and without the padding, on one or both backgrounds, the longer side `px`."""
    # Whoever made the index decides what becomes of truncated files. One that is in it is whole, or is kept as it is.
    options = ImageOptions(
        image_size=px,
        resize="pad",
        truncated="keep",
        background=background,
        max_pixels=ANY_SIZE,
        vector_code=True,
        decoded_px=_DECODED_PX,
    )
    image = load_image(data, options, contrast=True)
    size = image.width, image.height
    width, height = (max(1, round(side * px / max(size))) for side in size)
    left, top = (round((px - side) * 0.5) for side in (width, height))
    part = slice(top, top + height), slice(left, left + width)
    return image, [square[part] for square in (image.pixels, image.contrast) if square is not None]


def is_worth_keeping(pixels: np.ndarray) -> bool:
    """Whether a reduced image, uint8 `[h, w, 3]`, is that of a large file, which should not be decoded again."""
    return max(pixels.shape) == MOST_PX and pixels.nbytes >= _WORTH_BYTES
