"""The operations of RandAugment and AugMix, each image with its own: tables of values, two filters, and an affine map.

An image goes through its operations in their order, within three groups that follow each other:

1. autocontrast, equalize, solarize, posterize, contrast and brightness replace each of a channel's 256 values by
   another. So all of an image's become one table per channel. What they need to know of the image is in its histogram,
   and a table changes a histogram like an image. Values are rounded to integers after each, as uint8 are elsewhere.
2. color and sharpness, on these values.
3. rotate, shear and translate become one affine map, which `simimg.augment.geometry` composes with the image's flip,
   rotation and crop, so that each pixel is resampled once.

The operations are those of Pillow and of the published code (Cubuk et al., "AutoAugment", CVPR 2019, table 6; shearing
about the image's upper left corner). Two of one kind, color or sharpness, multiply their factors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import NamedTuple

import tensorflow as tf

Compiler = Callable[[Callable[..., tf.Tensor]], Callable[..., tf.Tensor]]

# The order of Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019.
IDENTITY, AUTOCONTRAST, EQUALIZE, ROTATE, SOLARIZE, COLOR, POSTERIZE = range(7)
CONTRAST, BRIGHTNESS, SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y = range(7, 14)
KINDS = range(14)

_IN_TABLES = {AUTOCONTRAST, EQUALIZE, SOLARIZE, POSTERIZE, CONTRAST, BRIGHTNESS}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_SMOOTH_MIDDLE, _SMOOTH_SUM = 5, 13  # Pillow's SMOOTH: a pixel five times and its eight neighbors once


class Operations(NamedTuple):
    """The operations of each image of a batch, in their order."""

    kind: tf.Tensor  # int64 `[batch, number]`, one of `KINDS`
    # float32 `[batch, number]`: the angle in radians, counterclockwise; the least value that is inverted; a factor,
    # 1 for no change; the number of bits that are kept; a shear in px per px, or a shift in shares of the image's side.
    argument: tf.Tensor


def operator(
    kinds: Collection[int] = KINDS, compiled: Compiler = lambda function: function
) -> Callable[[Operations, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function of (operations, counts, images) to the images after the operations of the first two groups.

    Its result is float32 `[batch, height, width, 3]`, 0..255. `counts` are those of `histogram`, and images are uint8
    `[batch, height, width, 3]`.

    Args:
        kinds: those that can occur; the others cost nothing.
        compiled: compiles a function. XLA would compute a table's entry again for each pixel that needs it, and a pixel
            for each neighbor, so there are several functions, between which the results are in memory.
    """
    looked_up = compiled(lambda operations, table, images: _looked_up(operations, table, images, COLOR in kinds))
    sharpened = compiled(_sharpened)
    steps = [compiled(functools.partial(_step, kinds, is_first=is_first)) for is_first in (True, False)]

    def operate(operations: Operations, counts: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        table = tf.tile(tf.range(256, dtype=tf.float32)[None, None], [_length(images), 3, 1])
        for number in range(operations.kind.shape[1]):
            one = Operations(operations.kind[:, number], operations.argument[:, number])
            table = steps[number > 0](one, table, counts)
        pixels = looked_up(operations, table, images)
        return sharpened(operations, pixels) if SHARPNESS in kinds else pixels

    return operate


def histogram(images: tf.Tensor, index: tf.DType = tf.int64) -> tf.Tensor:
    """Returns how often each value occurs in each channel, float32 `[batch, 3, 256]`, of uint8 images.

    The places of the values are of the type `index`. With int64, GPUs add in their own memory; with int32, XLA takes
    three quarters of the time on a CPU.
    """
    places = _places(images, index)
    # Sums of whole numbers are exact in any order, up to 2**24 pixels.
    counts = tf.math.unsorted_segment_sum(tf.ones_like(places, tf.float32), places, _length(images) * 3 * 256)
    return tf.reshape(counts, [-1, 3, 256])


def affine(operations: Operations, height: int, width: int) -> tf.Tensor:
    """Returns where each output pixel comes from, float64 `[batch, 6]`: x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2.

    Coordinates are in px from the image's middle, and rows are (a0, a1, a2, b0, b1, b2).
    """
    kind, argument = operations.kind, tf.cast(operations.argument, tf.float64)
    one, zero = tf.ones_like(argument[:, 0]), tf.zeros_like(argument[:, 0])
    whole = [one, zero, zero, zero, one, zero]
    for number in range(kind.shape[1]):
        angle, shear_x, shear_y, shift_x, shift_y = (
            tf.where(kind[:, number] == which, argument[:, number], zero)
            for which in (ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y)
        )
        cos, sin = tf.cos(angle), tf.sin(angle)
        # At most one of them is not the identity, so they can be added up.
        a0, a1, a2 = cos, shear_x - sin, shear_x * (height / 2) + shift_x * width
        b0, b1, b2 = sin + shear_y, cos, shear_y * (width / 2) + shift_y * height
        p0, p1, p2, q0, q1, q2 = whole
        whole = [
            p0 * a0 + p1 * b0, p0 * a1 + p1 * b1, p0 * a2 + p1 * b2 + p2,
            q0 * a0 + q1 * b0, q0 * a1 + q1 * b1, q0 * a2 + q1 * b2 + q2,
        ]  # fmt: skip
    return tf.stack(whole, axis=1)


def _length(batch: tf.Tensor) -> tf.Tensor | int:
    """Returns the number of rows. Keras traces layers for batches of any length."""
    return tf.shape(batch)[0] if batch.shape[0] is None else batch.shape[0]


def _places(images: tf.Tensor, index: tf.DType) -> tf.Tensor:
    """Returns the place of each value in tables of `[batch, 3, 256]`, of the type `index`."""
    first = tf.range(tf.cast(_length(images), index))[:, None, None, None] * (3 * 256)
    return tf.cast(images, index) + first + tf.range(3, dtype=index) * 256


def _step(
    kinds: Collection[int], operations: Operations, table: tf.Tensor, counts: tf.Tensor, *, is_first: bool
) -> tf.Tensor:
    """Returns tables after one more operation, `[batch]`, of each image: float32 `[batch, 3, 256]`, integers."""
    kind, argument = operations.kind[:, None, None], tf.cast(operations.argument, tf.float64)[:, None, None]
    # In float64, in which the sums are exact, and in which no device rounds to another integer.
    values, counts = tf.cast(table, tf.float64), tf.cast(counts, tf.float64)
    changed = values
    for one in sorted(_IN_TABLES & set(kinds)):
        changed = tf.where(kind == one, _replaced(one, argument, values, counts, is_first=is_first), changed)
    return tf.cast(tf.clip_by_value(tf.floor(changed + 0.5), 0.0, 255.0), tf.float32)


def _replaced(kind: int, argument: tf.Tensor, values: tf.Tensor, counts: tf.Tensor, *, is_first: bool) -> tf.Tensor:
    """Returns what an operation makes of `values`, each of which occurs `counts` times, float64 `[batch, 3, 256]`.

    The argument is float64 `[batch, 1, 1]`. Before the first operation, the values are 0..255 in their order.
    """
    if kind == AUTOCONTRAST:
        low = tf.reduce_min(tf.where(counts > 0, values, 255.0), axis=2, keepdims=True)
        high = tf.reduce_max(tf.where(counts > 0, values, 0.0), axis=2, keepdims=True)
        stretched = tf.floor((values - low) * 255 / tf.maximum(high - low, 1.0))
        return tf.where(high > low, stretched, values)
    if kind == EQUALIZE:
        return _equalized(values, counts, is_first=is_first)
    if kind == SOLARIZE:
        return tf.where(values >= argument, 255 - values, values)
    if kind == POSTERIZE:
        step = tf.pow(tf.constant(2.0, tf.float64), 8 - argument)
        return tf.floor(values / step) * step
    if kind == BRIGHTNESS:
        return argument * values
    assert kind == CONTRAST
    means = tf.reduce_sum(counts * values, axis=2) / tf.reduce_sum(counts, axis=2)
    red, green, blue = (share * means[:, channel] for channel, share in enumerate(_LUMA))
    mean = tf.floor(red + green + blue + 0.5)[:, None, None]
    return mean + argument * (values - mean)


def _equalized(values: tf.Tensor, counts: tf.Tensor, *, is_first: bool) -> tf.Tensor:
    """Returns the values that make a histogram flat, as Pillow's ImageOps.equalize."""
    batch, places = _length(values), tf.cast(values, tf.int64)
    places += tf.reshape(tf.range(batch * 3, dtype=tf.int64) * 256, [batch, 3, 1])
    if not is_first:
        counts = tf.reshape(tf.math.unsorted_segment_sum(counts, places, batch * 3 * 256), [batch, 3, 256])
    number = tf.range(256, dtype=tf.float64)
    last = tf.reduce_max(tf.where(counts > 0, number, -1.0), axis=2, keepdims=True)
    most = tf.reduce_sum(tf.where(number == last, counts, 0.0), axis=2, keepdims=True)
    step = tf.floor((tf.reduce_sum(counts, axis=2, keepdims=True) - most) / 255)
    below = tf.cumsum(counts, axis=2, exclusive=True)
    found = tf.floor((tf.floor(step / 2) + below) / tf.maximum(step, 1.0))
    found = tf.where(step > 0, tf.minimum(found, 255.0), number)
    return found if is_first else tf.gather(tf.reshape(found, [-1]), places)


def _factor(operations: Operations, kind: int) -> tf.Tensor:
    """Returns the product of each image's factors of a kind, float32 `[batch, 1, 1, 1]`."""
    factors = tf.where(operations.kind == kind, operations.argument, 1.0)
    return tf.reduce_prod(factors, axis=1)[:, None, None, None]


def _looked_up(operations: Operations, table: tf.Tensor, images: tf.Tensor, has_color: bool) -> tf.Tensor:
    """Returns what the tables have for each value, with the operations COLOR applied."""
    pixels = tf.gather(tf.reshape(table, [-1]), _places(images, tf.int64))
    if not has_color:
        return pixels
    factor = _factor(operations, COLOR)
    red, green, blue = (share * pixels[..., channel] for channel, share in enumerate(_LUMA))
    gray = (red + green + blue)[..., None]
    return tf.clip_by_value(factor * pixels + (1 - factor) * gray, 0.0, 255.0)


def _sharpened(operations: Operations, pixels: tf.Tensor) -> tf.Tensor:
    """Moves each pixel away from the mean with its neighbors; those at the image's edge stay, as Pillow's do."""
    height, width = pixels.shape[1], pixels.shape[2]
    if min(height, width) < 3:
        return pixels
    factor = _factor(operations, SHARPNESS)
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = pixels[:, 1:-1, 1:-1]
    smooth = (sums + (_SMOOTH_MIDDLE - 1) * inner) * (1 / _SMOOTH_SUM)
    change = tf.pad((factor - 1) * (inner - smooth), [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.clip_by_value(pixels + change, 0.0, 255.0)
