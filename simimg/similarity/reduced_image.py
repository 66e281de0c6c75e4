"""Images at the size at which copies are compared, and how files come to it without being decoded in full.

A JPEG's decoder reduces the image itself. Other formats take a tenth of a second for ten megapixels, so their reduced
images are kept from when they were indexed (`simimg.similarity.fingerprint_store.FingerprintStore.reduced`).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from simimg.similarity.differences import MOST_PX

_GAP = 2  # times the size to which a large image is reduced by means of pixels, before it is resampled

LEAST_JPEG_PX = _GAP * MOST_PX
"""Of the longer side to which a JPEG's decoder may reduce an image, which means the same."""

_MANY_PIXELS = 1 << 21  # fewer are decoded again: that takes little time


def reduced_image(image: Image.Image) -> Image.Image:
    """Return an image, mode RGB, whose longer side has at most `MOST_PX`; smaller ones as they are."""
    longer = max(image.size)
    if longer <= MOST_PX:
        return image
    width, height = (max(1, round(side * MOST_PX / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=float(_GAP))


def reduced_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of `reduced_image`, uint8 `[h, w, 3]`."""
    return np.asarray(reduced_image(image))


def is_worth_keeping(image: Image.Image) -> bool:
    """Whether an image is so large that its reduced one should be kept."""
    return image.width * image.height >= _MANY_PIXELS
