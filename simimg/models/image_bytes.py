"""Image files to pixels inside a TensorFlow graph, so that a SavedModel takes the bytes of JPEGs as clients have them.

Each image is decoded, turned upright by its EXIF orientation, and resized as `simimg convert` resizes, by the same
filter (bicubic, a = -0.5, widened where it reduces). From the pixels of `--decode=exact`, these differ by what two JPEG
decoders round, by less than 1 of 255 in the mean. They differ more from `--decode=fast`, which reduces a JPEG while it
decodes. Colors stay as stored, without a conversion from other color spaces to sRGB.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tfrecords.format.image_size import CENTER_SHARE, ImageSize, image_shape, luma

_EXIF = b"Exif\0\0"
_SEARCHED_BYTES = 1 << 17  # the first segments of a JPEG, of at most 64 kB each
_ORIENTATION = 0x0112  # tag
_MOST_TAGS = 128  # cameras write about 12 into the first directory


def decoded_images(
    contents: tf.Tensor, *, image_size: ImageSize, resize: str, background: tuple[int, int, int], channels: int = 3
) -> tf.Tensor:
    """Returns images as a model takes them, uint8 `[n, height, width, channels]`.

    Args:
        contents: string `[n]`, the bytes of JPEG or PNG files, or of GIFs without animation.
        image_size: px, the side of squares, or width and height.
        resize: `stretch`, `crop` or `pad`, as in `simimg convert`, or `center`, of models of images in their shapes.
        background: RGB, beside a padded image.
        channels: 3, or 1 for gray levels, the luma.
    """

    def one(content: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")  # PNG and GIF, too
        colors = _resized(_upright(pixels, exif_orientation(content)), image_size, resize, background)
        if channels == 3:
            return colors
        return tf.cast(luma(tf.cast(colors, tf.int32), functools.partial(tf.constant, dtype=tf.int32)), tf.uint8)

    return tf.map_fn(one, contents, fn_output_signature=tf.TensorSpec(image_shape(image_size, channels), tf.uint8))


def exif_orientation(content: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of an image file, int32 scalar 1..8; 1 if it has none.

    EXIF is a TIFF header behind `Exif`, 0, 0 (CIPA DC-008, section 4.5): byte order, offset of a directory, and there
    a count and entries of 12 bytes with the tag first and a short value at byte 8.
    """
    start = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _SEARCHED_BYTES), tf.uint8), tf.int32)
    octets = tf.concat([start, tf.zeros([16], tf.int32)], 0)
    size = tf.size(octets)
    found = tf.reduce_all([octets[at : size - len(_EXIF) + at] == _EXIF[at] for at in range(len(_EXIF))], axis=0)
    tiff = tf.argmax(found, output_type=tf.int32) + len(_EXIF)
    little = _octet(octets, tiff) == ord("I")

    def short(at: tf.Tensor) -> tf.Tensor:
        first, second = _octet(octets, at), _octet(octets, at + 1)
        return tf.where(little, first + 256 * second, 256 * first + second)

    def long(at: tf.Tensor) -> tf.Tensor:
        one, other = short(at), short(at + 2)
        low, high = tf.where(little, one, other), tf.where(little, other, one)
        return low + 65536 * tf.minimum(high, 1)  # farther away is none within what is searched

    directory = tiff + long(tiff + 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(short(directory), _MOST_TAGS))
    there = short(entries) == _ORIENTATION
    value = tf.reduce_max(tf.where(there, short(entries + 8), 0))
    valid = tf.reduce_any(found) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, 1)


def _octet(octets: tf.Tensor, at: Any) -> tf.Tensor:
    return tf.gather(octets, tf.clip_by_value(at, 0, tf.size(octets) - 1))


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    pixels.set_shape([None, None, 3])
    for orientations, change in (
        ((5, 6, 7, 8), lambda image: tf.transpose(image, [1, 0, 2])),
        ((2, 3, 6, 7), lambda image: tf.reverse(image, [1])),
        ((3, 4, 7, 8), lambda image: tf.reverse(image, [0])),
    ):
        wanted = tf.reduce_any(orientation == tf.constant(orientations))
        pixels = tf.cond(wanted, lambda image=pixels, change=change: change(image), lambda image=pixels: image)
        pixels.set_shape([None, None, 3])
    return pixels


def _resized(pixels: tf.Tensor, image_size: ImageSize, resize: str, background: tuple[int, int, int]) -> tf.Tensor:
    sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
    height, width, _ = image_shape(image_size)
    full = inner = tf.constant([height, width], tf.float32)
    start = tf.zeros([2])  # of the image within the result, px
    scale = inner / sides
    if resize in ("crop", "center"):
        share = CENTER_SHARE if resize == "center" else 1.0
        scale = tf.repeat(tf.reduce_max(full / (share * sides)), 2)
        start = (full - scale * sides) / 2
    elif resize == "pad":
        inner = tf.maximum(1.0, tf.round(sides * tf.reduce_min(full / sides)))
        scale, start = inner / sides, tf.round((full - inner) / 2)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(pixels, tf.float32)[None],
        size=[height, width],
        scale=scale,
        translation=start,
        kernel_type="keyscubic",
        antialias=True,
    )[0]
    result = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    if resize == "pad":
        rows, columns = (tf.range(length, dtype=tf.float32) for length in (height, width))
        down = (rows >= start[0]) & (rows < start[0] + inner[0])
        across = (columns >= start[1]) & (columns < start[1] + inner[1])
        result = tf.where((down[:, None] & across[None])[..., None], result, tf.constant(background, tf.uint8))
    result.set_shape([height, width, 3])
    return result
