"""Applies drawn parameters to a batch, purely, on whatever device it is: one transform of places, one of colours."""

from __future__ import annotations

import tensorflow as tf

from simimg.augment.draw import AugmentConfig, Parameters, draw

__all__ = ["augment", "move", "recolour", "transforms"]

# The brightness of a colour, ITU-R BT.601, and the grey that contrast turns about.
_LUMA = (0.299, 0.587, 0.114)
_MIDDLE_GREY = 127.5


def augment(config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Returns `images` augmented by parameters drawn from (seed, epoch, id), float32, 0..255, of the same shape.

    Args:
        config: the augmentations.
        seed: any int64.
        epoch: int64 scalar.
        id: int64 `[batch]`.
        images: uint8 `[batch, height, width, 3]`.
    """
    parameters = draw(config, seed, epoch, id)
    if not config.moves_nothing:
        images = move(parameters, images)
    pixels = tf.cast(images, tf.float32)
    return recolour(parameters, pixels) if config.colour_jitter else pixels


def move(parameters: Parameters, images: tf.Tensor) -> tf.Tensor:
    """Returns `images` mirrored, cropped and turned, in one bilinear resampling.

    What comes in over the border is the picture mirrored at its edge. uint8 is kept, which moves a quarter of the bytes
    that float32 would; values are rounded down by the resampling, by at most one level.

    Args:
        parameters: one entry an image.
        images: uint8 or float32 `[batch, height, width, channels]`.
    """
    height, width = images.shape[1], images.shape[2]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms(parameters, height, width),
        output_shape=tf.constant([height, width]),
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    return tf.ensure_shape(moved, images.shape)


def recolour(parameters: Parameters, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels` with their saturation, contrast and brightness multiplied, clipped to 0..255.

    In this order, and as one 3 x 3 matrix and one offset an image: a saturation of s moves each colour to s times its
    distance from its own grey, a contrast of c each value to c times its distance from 127.5, a brightness of b
    multiplies all.

    Args:
        parameters: one entry an image.
        pixels: float32 `[batch, height, width, 3]`.
    """
    colour = tf.cast(parameters.colour, tf.float64)
    brightness, contrast, saturation = (colour[:, i, None, None] for i in range(3))
    grey = tf.tile(tf.constant(_LUMA, tf.float64)[None, :, None], [1, 1, 3])  # [1, 3 in, 3 out]
    matrix = brightness * contrast * (saturation * tf.eye(3, dtype=tf.float64)[None] + (1 - saturation) * grey)
    offset = (brightness * (1 - contrast) * _MIDDLE_GREY)[:, :, None]
    recoloured = tf.einsum("bhwi,bio->bhwo", pixels, tf.cast(matrix, tf.float32)) + tf.cast(offset, tf.float32)
    return tf.clip_by_value(recoloured, 0.0, 255.0)


def transforms(parameters: Parameters, height: int, width: int) -> tf.Tensor:
    """Returns float32 `[batch, 8]`: for each image the projective transform from output to input coordinates.

    With the middle c = ((width - 1) / 2, (height - 1) / 2), an output pixel p comes from m + F S R (p - c): R turns by
    the angle, S scales by the crop's size, F negates x where the image is flipped, and m is the crop's middle. Rows
    are (a0, a1, a2, b0, b1, b2, 0, 0), x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2, as the operation has them.
    """
    # float64 for the same reason as in `draw`: a bit more or less moves a sample over the edge of a pixel.
    angle = tf.cast(parameters.angle, tf.float64)
    cos, sin = tf.cos(angle), tf.sin(angle)
    middle_x, middle_y, size_x, size_y = tf.unstack(tf.cast(parameters.crop, tf.float64), axis=1)
    scale_x = tf.where(parameters.flip, -size_x, size_x)
    a0, a1 = scale_x * cos, -scale_x * sin
    b0, b1 = size_y * sin, size_y * cos
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    a2 = middle_x * width - 0.5 - a0 * center_x - a1 * center_y
    b2 = middle_y * height - 0.5 - b0 * center_x - b1 * center_y
    zero = tf.zeros_like(a0)
    return tf.cast(tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1), tf.float32)
