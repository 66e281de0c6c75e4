"""Degrades images as copies often are: blur, JPEG quantization, and occlusion by a rectangle (cutout) or by bars.

Each function takes parameters with one entry per image, and pixels, float32 `[batch, height, width, 3]`, 0..255.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simimg.augment.parameters import Parameters

_MIDDLE_GRAY = 127.5
_BLOCK = 8  # of JPEG, in px

# The quantization tables of the JPEG standard, ITU-T T.81, annex K. `_tables` scales them by quality as in the
# Independent JPEG Group's jcparam.c.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# RGB to Y, Cb - 128, Cr - 128: JFIF 1.02, section 7. Columns are the outputs.
_TO_YCC = (
    (0.299, -0.168736, 0.5),
    (0.587, -0.331264, -0.418688),
    (0.114, 0.5, -0.081312),
)
_FROM_YCC = (
    (1.0, 1.0, 1.0),
    (0.0, -0.344136, 1.772),
    (1.402, -0.714136, 0.0),
)


def blur(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` blurred by a Gaussian of each image's own width, mirrored at the border.

    Along each axis, the blur is a product with a matrix. This is fast on devices with matrix units, and exact, because
    the Gaussian is not truncated. A sigma of 0 changes nothing.
    """
    height, width = pixels.shape[1], pixels.shape[2]
    down = tf.einsum("bij,bjwc->biwc", _gaussian(parameters.sigma, height), pixels)
    return tf.einsum("bvw,biwc->bivc", _gaussian(parameters.sigma, width), down)


def quantize(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` as decoded from a JPEG file of each image's own quality, without chroma subsampling."""
    height, width = pixels.shape[1], pixels.shape[2]
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    # Indices are int64, because a GPU's int32 constants are in the host's memory and would be copied in each step.
    down, across = (tf.range(count * _BLOCK, dtype=tf.int64) for count in (rows, columns))
    padded = tf.gather(pixels, tf.minimum(down, height - 1), axis=1)
    padded = tf.gather(padded, tf.minimum(across, width - 1), axis=2)
    colors = _mapped(padded, _TO_YCC) - tf.constant([128.0, 0.0, 0.0])
    blocks = tf.reshape(colors, [-1, rows, _BLOCK, columns, _BLOCK, 3])
    cosines = tf.constant(_cosines())
    waves = tf.einsum("ui,vj,bricjk->brucvk", cosines, cosines, blocks)
    steps = _tables(parameters.quality)[:, None, :, None, :, :]
    blocks = tf.einsum("ui,vj,brucvk->bricjk", cosines, cosines, tf.round(waves / steps) * steps)
    colors = tf.reshape(blocks, [-1, rows * _BLOCK, columns * _BLOCK, 3]) + tf.constant([128.0, 0.0, 0.0])
    return tf.clip_by_value(_mapped(colors[:, :height, :width], _FROM_YCC), 0.0, 255.0)


def cut_out(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` with the pixels gray whose middle is in the image's own rectangle."""
    inside = in_rectangles(parameters.cutout, pixels.shape[1], pixels.shape[2])
    return tf.where(inside[..., None], _MIDDLE_GRAY, pixels)


def in_rectangles(rectangles: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns whether the middle of each pixel is in its image's rectangle, bool `[batch, height, width]`.

    Rectangles are float32 `[batch, 4]`: the middle (x, y) and the size (width, height), in shares of the image's. They
    may extend outside.
    """
    x = (tf.range(width, dtype=tf.float32)[None] + 0.5) / width
    y = (tf.range(height, dtype=tf.float32)[None] + 0.5) / height
    middle_x, middle_y, size_x, size_y = (part[:, None] for part in tf.unstack(rectangles, axis=1))
    in_x, in_y = tf.abs(x - middle_x) < size_x / 2, tf.abs(y - middle_y) < size_y / 2
    return in_y[:, :, None] & in_x[:, None, :]


def cover(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` with each image's own bars at the top and bottom, over the rows whose middle is in a bar."""
    height = pixels.shape[1]
    y = (tf.range(height, dtype=tf.float32)[None] + 0.5) / height
    thickness, gray = (part[:, None] for part in tf.unstack(parameters.bars, axis=1))
    covered = (y < thickness) | (y > 1 - thickness)
    return tf.where(covered[:, :, None, None], gray[:, :, None, None], pixels)


def _gaussian(sigma: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the blur along an axis as matrices, float32 `[batch, size, size]`, mirrored at both ends."""
    # In float64 and then rounded, because the order in which a device sums depends on the size of the batch.
    to = tf.range(size, dtype=tf.float64)[:, None]
    at = tf.range(size, dtype=tf.float64)[None, :]
    # With a sigma this small, the weight of the nearest neighbor is 0.
    twice_variance = 2 * tf.maximum(tf.cast(sigma, tf.float64), 1e-3)[:, None, None] ** 2
    distances = (to - at, to + at + 1, 2 * size - 1 - to - at)
    weights = tf.add_n([tf.exp(-tf.square(distance)[None] / twice_variance) for distance in distances])
    return tf.cast(weights / tf.reduce_sum(weights, axis=2, keepdims=True), tf.float32)


def _mapped(colors: tf.Tensor, matrix: tuple[tuple[float, float, float], ...]) -> tf.Tensor:
    """Returns each color times `matrix`, without a matrix product, whose rounding depends on the batch."""
    first, second, third = (colors[..., i, None] * tf.constant(matrix[i]) for i in range(3))
    return first + second + third


def _tables(quality: tf.Tensor) -> tf.Tensor:
    """Returns the quantization tables of Y, Cb and Cr for each quality, float32 `[batch, 8, 8, 3]`."""
    scale = tf.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None]
    base = tf.constant([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], tf.float32)
    scaled = tf.floor((tf.transpose(base, [1, 2, 0])[None] * scale + 50) / 100)
    return tf.clip_by_value(scaled, 1.0, 255.0)


def _cosines() -> list[list[float]]:
    """Returns the orthonormal DCT-II of eight values, one row per frequency."""
    scales = [math.sqrt((1 if u == 0 else 2) / _BLOCK) for u in range(_BLOCK)]
    middles = [(2 * i + 1) * math.pi / (2 * _BLOCK) for i in range(_BLOCK)]
    return [[scale * math.cos(u * middle) for middle in middles] for u, scale in enumerate(scales)]
