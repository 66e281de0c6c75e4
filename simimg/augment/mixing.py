"""Mixup and CutMix: each image of a batch is mixed with its partner, and so are their labels.

Partners are neighbors in the batch: the first and the second image, the third and the fourth. An epoch is shuffled, so
they are random pairs, drawn anew for each epoch. A replica has an even number of consecutive images of the global
batch, hence both images of each pair: replicas need not exchange pixels, and one replica or eight see the same. What is
drawn depends on (seed, epoch, id), and each image of a pair has its own.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simimg.augment.degradations import in_rectangles
from simimg.augment.parameters import AugmentConfig, uniform

_STREAM = 0x4D69784375742121
_STEPS = 1024  # of the distribution of shares
_INTEGRATION_STEPS = 20_000


def mix(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, pixels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mixed pixels of the same shape, and the share that an image's own label has, float32 `[batch]`.

    Mixup (Zhang et al., ICLR 2018) takes the mean of both images, weighted with a share of a Beta distribution with
    both parameters `config.mixup`. CutMix (Yun et al., ICCV 2019) draws a share from that of `config.cutmix`, and
    replaces a rectangle with this part of the area missing, anywhere in the image, by the same part of the partner; the
    label's share is what the image keeps. If both are on, each image gets one of them with probability 1/2, as in timm.

    Args:
        config: the augmentations.
        seed: any int64.
        epoch: int64 scalar.
        id: int64 `[batch]`, an even number; a negative id is no example, and is not mixed.
        pixels: float32 `[batch, height, width, 3]`.
    """
    height, width = pixels.shape[1], pixels.shape[2]
    numbers = tf.cast(uniform(seed ^ _STREAM, epoch, id, num_draws=4), tf.float64)
    is_pair = (id >= 0) & (partners(id) >= 0)
    is_cut = numbers[:, 1] < (0.5 if config.mixup and config.cutmix else float(bool(config.cutmix)))
    share = tf.ones_like(numbers[:, 0])
    if config.mixup:
        share = tf.where(is_pair, _shares(config.mixup, numbers[:, 0]), share)
    share = tf.cast(share, tf.float32)
    weight = share[:, None, None]
    if config.cutmix:
        side = tf.where(is_pair, tf.sqrt(1 - _shares(config.cutmix, numbers[:, 0])), 0.0)[:, None]
        box = tf.cast(tf.concat([numbers[:, 2:], side, side], axis=1), tf.float32)
        kept = 1 - tf.cast(in_rectangles(box, height, width), tf.float32)
        share = tf.where(is_cut, tf.reduce_mean(kept, axis=[1, 2]), share)
        weight = tf.where(is_cut[:, None, None], kept, weight)
    weight = weight[..., None]
    return weight * pixels + (1 - weight) * partners(pixels), share


def partners(values: tf.Tensor) -> tf.Tensor:
    """Returns the partners' `values`, `[batch, …]`, of an even number: each row and the next one change places."""
    rows = np.arange(values.shape[0], dtype=np.int64)
    return tf.gather(values, rows ^ 1)


def _shares(alpha: float, number: tf.Tensor) -> tf.Tensor:
    """Returns shares with a Beta(alpha, alpha) distribution, float64, from uniform numbers of 0 <= x < 1.

    The distribution is exact at 1,024 quantiles, and uniform between two of them.
    """
    at = number * _STEPS
    step = tf.floor(at)
    quantiles = tf.constant(beta_quantiles(alpha, _STEPS), tf.float64)
    place = tf.cast(step, tf.int64)
    low, high = tf.gather(quantiles, place), tf.gather(quantiles, place + 1)
    return low + (at - step) * (high - low)


def beta_quantiles(alpha: float, num_steps: int) -> np.ndarray:
    """Returns the quantiles 0, 1 / num_steps, …, 1 of the distribution Beta(alpha, alpha), float64.

    The density of the lower half is integrated over t, with x = t^e / 2. For alpha below 1, e = 1 / alpha removes the
    pole of the density at x = 0. The upper half is its mirror image.
    """
    exponent = max(1 / alpha, 1.0)
    t = np.linspace(0.0, 1.0, _INTEGRATION_STEPS + 1)
    density = t ** (exponent * alpha - 1) * (1 - 0.5 * t**exponent) ** (alpha - 1)
    cumulated = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    wanted = np.linspace(0.0, 1.0, num_steps + 1)
    lower = 0.5 * np.interp(np.minimum(wanted, 1 - wanted), cumulated / cumulated[-1] / 2, t) ** exponent
    return np.where(wanted <= 0.5, lower, 1 - lower)
