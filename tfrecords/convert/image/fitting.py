"""Fits a decoded image, upright, into the wanted size: stretched, cropped, padded, or reduced in its own shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tfrecords.convert.image.image_reader import Box
from tfrecords.convert.image.jpeg import MARGIN, reduction, resize_image, resize_pixels
from tfrecords.convert.image.own_shape import checked_size, own_size
from tfrecords.format.image_size import width_height
from tfrecords.format.record_layout import OWN_SHAPES

if TYPE_CHECKING:
    from tfrecords.convert.image.decoder import ImageOptions

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What Pillow has to do for each EXIF orientation but 1."""


def reduced_by(width: int, height: int, orientation: int, options: ImageOptions) -> int:
    """Return by what a JPEG's decoder may reduce an image of this size, as stored, with a margin left."""
    if options.decode != "fast" or options.resize == "none":
        return 1
    across, down = _as_stored(width_height(options.decoded_px or options.image_size), orientation)
    # Fitted in, an image is reduced to the result by one side; otherwise by the other one.
    fits_in = options.resize in ("pad", "longest") and options.decoded_px is None
    by_width = width * down >= height * across if fits_in else width * down < height * across
    side, wanted = (width, across) if by_width else (height, down)
    return reduction(side, math.ceil(wanted * MARGIN / (options.center_share or 1)))


def least_reduced_by(width: int, height: int, options: ImageOptions) -> int:
    """Return by what a JPEG's decoder may reduce it, whose orientation is not known yet."""
    if options.decode != "fast":
        return 1
    return min(reduced_by(width, height, orientation, options) for orientation in (1, 6))


def _as_stored(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and the height that an upright image of this size has before it is rotated."""
    return size[::-1] if orientation >= 5 else size


def fitted(
    image: Image.Image | np.ndarray,
    box: Box,
    size: tuple[int, int],
    orientation: int,
    options: ImageOptions,
) -> tuple[np.ndarray, int, int]:
    """Return the part `box`, (left, top, right, bottom), of `image` upright, in the wanted size or its own shape; and
    the upright width and height of the full image, px.

    It is rotated after the resize: a rotated copy of a 24-megapixel image would take 96 MB. `image` is as stored, mode
    RGB or RGBA, perhaps reduced; or uint8 `[h, w, 1 or 3]`, from the fast decoder. `size` is width and height of the
    full image, as stored, and `orientation` that of its EXIF.
    """
    full = width_height(options.image_size)
    width, height = size
    inner = across, down = _as_stored(full, orientation)
    is_narrow = width * down < height * across  # narrower than the result
    if options.resize in OWN_SHAPES:
        # Not larger than an image that had to be reduced because of its number of pixels.
        there = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
        inner = checked_size(min(own_size(size, options.image_size, options.resize), there))
    elif (share := options.center_share) is not None:
        # The center of the full image with the shape of the result, in the coordinates of the reduced one.
        kept: tuple[float, float] = (width, width * down / across)
        if not is_narrow:
            kept = (height * across / down, height)
        kept = kept[0] * share, kept[1] * share
        scale_x, scale_y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
        left, top = (width - kept[0]) * 0.5 * scale_x, (height - kept[1]) * 0.5 * scale_y
        box = (left, top, left + kept[0] * scale_x, top + kept[1] * scale_y)
    elif options.resize == "pad":
        # Not ImageOps.pad, which gives the short side of a 1 x 5000 image 0 px: Pillow 12 raises an error.
        inner = (
            (max(1, round(width / height * down)), down)
            if is_narrow
            else (across, max(1, round(height / width * across)))
        )
    if isinstance(image, np.ndarray):
        is_same = options.resize in OWN_SHAPES and image.shape[:2] == (inner[1], inner[0])
        pixels = image if is_same else resize_pixels(image, inner, box)
        # Nearly all images: no detour through Pillow.
        is_rgb = pixels.shape[2] == 3 and options.channels != 4
        if orientation == 1 and is_rgb and (options.resize != "pad" or inner == full):
            return pixels, width, height
        resized = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    elif options.vector_code and image.mode == "RGB":
        resized = resize_image(image, inner, box)
    else:
        resized = image.resize(inner, Image.Resampling.BICUBIC, box)
    mode = "RGBA" if options.channels == 4 else "RGB"
    if resized.mode != mode:
        resized = resized.convert(mode)
    if (method := TRANSPOSE.get(orientation)) is not None:
        resized = resized.transpose(method)
    if orientation >= 5:
        width, height = height, width
    if options.resize == "pad" and resized.size != full:
        paper = Image.new(mode, full, (*options.background, 0)[: len(mode)])
        margins = (round((there - side) * 0.5) for there, side in zip(full, resized.size, strict=True))
        paper.paste(resized, tuple(margins))  # type: ignore[arg-type]
        resized = paper
    return np.asarray(resized), width, height
