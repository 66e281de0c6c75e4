"""Geometric augmentation: flips, rotation, crop and pasting of a batch as one bilinear resampling, in two versions.

`warp` is TensorFlow's ImageProjectiveTransformV3, which has kernels for CPUs and GPUs, but which XLA cannot compile
(TensorFlow 2.21). `warp_by_gather` consists of arithmetic and gathers, which XLA fuses. Both return the same pixels, up
to the rounding of float32.

Each function takes parameters with one entry per image, and images, uint8 or float32 `[batch, height, width, 3]`.
`border` says what the pixels outside an image are, one of `BORDERS`. `affine` is float64 `[batch, 6]`, where the pixels
come from in the image after flip, rotation and crop, see `simimg.augment.operations.affine`; None for no further move.
"""

from __future__ import annotations

import tensorflow as tf

from simimg.augment.parameters import Parameters


def warp(
    parameters: Parameters, images: tf.Tensor, border: str = "reflect", affine: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns `images` mirrored, cropped and rotated, float32."""
    height, width = images.shape[1], images.shape[2]
    with tf.device("CPU:0"):  # the kernel for GPUs reads it in the host's memory
        black = tf.constant(0.0)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),  # of uint8, it rounds the resampled values down, by half a level on average
        transforms=transforms(parameters, height, width, affine),
        output_shape=tf.constant([height, width]),
        interpolation="BILINEAR",
        fill_mode=border.upper(),
        fill_value=black,
    )
    return tf.ensure_shape(moved, images.shape)


def warp_by_gather(
    parameters: Parameters, images: tf.Tensor, border: str = "reflect", affine: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes the same as `warp` by operations that XLA compiles."""
    return resample(images, transforms(parameters, images.shape[1], images.shape[2], affine), border)


def resample(images: tf.Tensor, transforms: tf.Tensor, border: str = "reflect", fill_value: float = 0.0) -> tf.Tensor:
    """Returns images whose pixels come from where `transforms`, float32 `[batch, 8]`, say, float32.

    The transforms are affine, in the form that `transforms` describes; `images` may have any number of channels.
    """
    height, width, channels = images.shape[1:]
    from_x, from_y = _origins(transforms, height, width)
    left, top = tf.floor(from_x), tf.floor(from_y)
    right_share, bottom_share = (tf.cast(part, tf.float32)[..., None] for part in (from_x - left, from_y - top))
    rows = tf.reshape(images, [-1, height * width, channels])

    def pixels(column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        at_x, inside_x = _inside(column, width, border)
        at_y, inside_y = _inside(row, height, border)
        places = tf.reshape(at_y * width + at_x, [-1, height * width])
        found = tf.cast(tf.gather(rows, places, batch_dims=1), tf.float32)
        found = tf.reshape(found, [-1, height, width, channels])
        return tf.where((inside_x & inside_y)[..., None], found, fill_value) if border == "constant" else found

    upper = (1 - right_share) * pixels(left, top) + right_share * pixels(left + 1, top)
    lower = (1 - right_share) * pixels(left, top + 1) + right_share * pixels(left + 1, top + 1)
    return (1 - bottom_share) * upper + bottom_share * lower


def paste(parameters: Parameters, images: tf.Tensor, affine: tf.Tensor | None = None) -> tf.Tensor:
    """Returns images that were warped, with the ground drawn around those that are pasted, float32.

    The ground is a bilinear gradient between the colors of its corners. A pixel is ground if its middle is outside the
    example.
    """
    height, width = images.shape[1], images.shape[2]
    x, y = _grid(height, width)
    from_x, from_y = _origins(transforms(parameters, height, width, affine), height, width)
    outside = (from_x < -0.5) | (from_x > width - 0.5) | (from_y < -0.5) | (from_y > height - 0.5)
    corners = tf.cast(parameters.ground, tf.float64)[:, :, :, None, None]  # [batch, top and bottom, left and right, …]
    right, down = (x / max(width - 1, 1))[..., None], (y / max(height - 1, 1))[..., None]
    upper, lower = ((1 - right) * corners[:, row, 0] + right * corners[:, row, 1] for row in (0, 1))
    ground = tf.cast((1 - down) * upper + down * lower, tf.float32)
    there = (outside & parameters.pasted[:, None, None])[..., None]
    return tf.where(there, ground, tf.cast(images, tf.float32))


def _grid(height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns x, float64 `[1, 1, width]`, and y, `[1, height, 1]`, of an image's pixels."""
    return tf.range(width, dtype=tf.float64)[None, None, :], tf.range(height, dtype=tf.float64)[None, :, None]


def _origins(transforms: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the x and the y that each output pixel comes from, float64 `[batch, height, width]` each.

    XLA may compute them twice, for the pixel to the left and for its share, and round differently. In float32, the
    middle of an image of 13 x 29 px was then its neighbor. In float64, these sums of float32 have next to no rounding.
    """
    parts = tf.unstack(tf.cast(transforms[:, :6], tf.float64), axis=1)
    a0, a1, a2, b0, b1, b2 = (part[:, None, None] for part in parts)
    x, y = _grid(height, width)
    return a0 * x + a1 * y + a2, b0 * x + b1 * y + b2


def _inside(at: tf.Tensor, size: int, border: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the index in 0..size-1, int32, that replaces the integer `at`, and whether `at` is in that range."""
    index = tf.cast(at, tf.int32)
    inside = (index >= 0) & (index < size)
    if border == "reflect":
        index = tf.math.floormod(index, 2 * size)
        return tf.minimum(index, 2 * size - 1 - index), inside
    return tf.clip_by_value(index, 0, size - 1), inside


def transforms(parameters: Parameters, height: int, width: int, affine: tf.Tensor | None = None) -> tf.Tensor:
    """Returns each image's projective transform from output to input coordinates, float32 `[batch, 8]`.

    With the middle c = ((width - 1) / 2, (height - 1) / 2), an output pixel p comes from m + F S R A (p - c). A is the
    affine map of a policy's operations, R rotates by the angle, S scales by the crop's size, F negates x or y if the
    image is flipped, and m is the crop's middle.
    Rows are (a0, a1, a2, b0, b1, b2, 0, 0) with x' = a0 x + a1 y + a2 and y' = b0 x + b1 y + b2.
    """
    # float64 for the same reason as in `draw`: a difference of one bit can move a sample into another pixel.
    angle = tf.cast(parameters.angle, tf.float64)
    cos, sin = tf.cos(angle), tf.sin(angle)
    middle_x, middle_y, size_x, size_y = tf.unstack(tf.cast(parameters.crop, tf.float64), axis=1)
    scale_x = tf.where(parameters.flip[:, 0], -size_x, size_x)
    scale_y = tf.where(parameters.flip[:, 1], -size_y, size_y)
    a0, a1 = scale_x * cos, -scale_x * sin
    b0, b1 = scale_y * sin, scale_y * cos
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    a2, b2 = middle_x * width - 0.5, middle_y * height - 0.5
    if affine is not None:
        p0, p1, p2, q0, q1, q2 = tf.unstack(affine, axis=1)
        a2, b2 = a2 + a0 * p2 + a1 * q2, b2 + b0 * p2 + b1 * q2
        a0, a1, b0, b1 = a0 * p0 + a1 * q0, a0 * p1 + a1 * q1, b0 * p0 + b1 * q0, b0 * p1 + b1 * q1
    a2 = a2 - a0 * center_x - a1 * center_y
    b2 = b2 - b0 * center_x - b1 * center_y
    zero = tf.zeros_like(a0)
    return tf.cast(tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1), tf.float32)
