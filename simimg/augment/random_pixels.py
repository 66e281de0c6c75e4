"""Random pixels of an image, drawn from (seed, epoch, id) and the pixel's place: Gaussian noise, and random erasing.

A pixel has 64 random bits: the lowest 24 are a color, and the next 36 are noise in three channels. Pixels are float32
`[batch, height, width, 3]`, 0..255.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import tensorflow as tf

from simimg.augment.degradations import in_rectangles
from simimg.augment.parameters import AugmentConfig, random_bits, uniform

_STREAM, _PIXEL_STREAM = 0x4572617365212121, 0x506978656C732121
# Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, with the range of areas of timm and DeiT.
_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)
_NOISE_BITS = 12
# Normal values of equal probability, since a device's logarithm or cosine would depend on an image's place in the
# batch. The largest is 3.7 standard deviations.
_NORMAL = [statistics.NormalDist().inv_cdf((number + 0.5) / 2**_NOISE_BITS) for number in range(2**_NOISE_BITS)]


class PixelNoise(NamedTuple):
    """The random pixels of each image of a batch."""

    deviation: tf.Tensor  # float32 `[batch]`, the standard deviation of the noise, of 255
    erased: tf.Tensor  # float32 `[batch, 4]`, the middle (x, y) and size of a rectangle, in shares; size 0 for none
    bits: tf.Tensor  # int64 `[batch, height, width]`


def draw_pixels(
    config: AugmentConfig,
    seed: int,
    epoch: tf.Tensor,
    id: tf.Tensor,
    view: tf.Tensor | int,
    height: int,
    width: int,
) -> PixelNoise:
    """Draws the random pixels of images of a size; for the other arguments see `simimg.augment.parameters.draw`.

    Noise has a standard deviation that is uniform in 0..`config.noise`. With the probability `config.erase`, an image
    has a rectangle of an area that is uniform in 2 % to a third, and an aspect ratio that is log-uniform in 0.3..1/0.3.
    """
    numbers = tf.cast(uniform(seed ^ _STREAM, epoch, id, num_draws=6, view=view), tf.float64)
    area = _AREAS[0] + (_AREAS[1] - _AREAS[0]) * numbers[:, 1]
    root = tf.exp((numbers[:, 2] - 0.5) * math.log(_ASPECTS[1] / _ASPECTS[0]) / 2)  # the square root of the ratio
    side, ratio = tf.sqrt(area), math.sqrt(height / width)
    sizes = tf.minimum(tf.stack([side * root * ratio, side / (root * ratio)], axis=1), 1.0)
    middles = sizes / 2 + numbers[:, 3:5] * (1 - sizes)
    sizes = tf.where(numbers[:, :1] < config.erase, sizes, tf.zeros_like(sizes))
    bits = random_bits(seed ^ _PIXEL_STREAM, epoch, id, height * width, view)
    return PixelNoise(
        tf.cast(numbers[:, 5] * config.noise, tf.float32),
        tf.cast(tf.concat([middles, sizes], axis=1), tf.float32),
        tf.reshape(bits, [-1, height, width]),
    )


def add_noise(drawn: PixelNoise, pixels: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Returns `pixels` with Gaussian noise, independent for each value, clipped to 0..255.

    With `channels=1`, the three of a pixel get the same noise, so gray stays gray.
    """
    normal = tf.gather(tf.constant(_NORMAL, tf.float32), _fields(drawn.bits, 24, _NOISE_BITS, channels))
    return tf.clip_by_value(pixels + drawn.deviation[:, None, None, None] * normal, 0.0, 255.0)


def erase(drawn: PixelNoise, pixels: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Returns `pixels` with random ones where a pixel's middle is in the image's rectangle, each value of 0..255.

    With `channels=1`, they are gray.
    """
    inside = in_rectangles(drawn.erased, pixels.shape[1], pixels.shape[2])
    return tf.where(inside[..., None], tf.cast(_fields(drawn.bits, 0, 8, channels), tf.float32), pixels)


def _fields(bits: tf.Tensor, first: int, width: int, channels: int) -> tf.Tensor:
    """Returns unsigned numbers of `width` bits, from bit `first`, int64 `[batch, height, width, channels]`."""
    shifts = tf.constant([first + width * channel for channel in range(channels)], tf.int64)
    return tf.bitwise.right_shift(bits[..., None], shifts) & ((1 << width) - 1)
