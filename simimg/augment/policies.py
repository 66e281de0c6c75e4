"""RandAugment, AugMix and 3-Augment: which operations each image gets, drawn from (seed, epoch, id).

The draws are of a stream of their own, so that the other augmentations are the same with and without a policy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from simimg.augment import operations as ops
from simimg.augment.operations import Operations
from simimg.augment.parameters import AugmentConfig, Parameters, uniform

AUGMIX_KINDS = (
    *(ops.AUTOCONTRAST, ops.EQUALIZE, ops.POSTERIZE, ops.ROTATE, ops.SOLARIZE),
    *(ops.SHEAR_X, ops.SHEAR_Y, ops.TRANSLATE_X, ops.TRANSLATE_Y),
)
"""Those of AugMix, which leaves out the corruptions that it was tested on."""

NUM_CHAINS = 3
_MOST_OPERATIONS = 3  # in a chain
_TOP = 30  # the magnitude of the strongest operations in the published code and in torchvision
_STREAM, _CHAIN_STREAM, _THREE_STREAM = 0x52416E6441756721, 0x4175674D69782021, 0x332D417567212121


class Mixture(NamedTuple):
    """AugMix: the shares that an image and its changed versions have in the result."""

    kind: tf.Tensor  # int64 `[batch, NUM_CHAINS, number]`, as in `Operations`
    argument: tf.Tensor  # float32 `[batch, NUM_CHAINS, number]`, as in `Operations`
    shares: tf.Tensor  # float32 `[batch, 1 + NUM_CHAINS]`, the unchanged image first; they add up to 1


def rand_augment(
    config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor | int = 0
) -> Operations:
    """Draws RandAugment's operations (Cubuk et al., 2019): N of 14 with equal probability, all of magnitude M.

    The strengths are torchvision's, of which M is one of 31. An operation that has two directions takes either with
    probability 1/2. For the arguments see `simimg.augment.parameters.draw`.
    """
    assert config.rand_augment_numbers is not None
    count, magnitude = config.rand_augment_numbers
    numbers = tf.cast(uniform(seed ^ _STREAM, epoch, id, num_draws=2 * count, view=view), tf.float64)
    kind = tf.cast(tf.floor(numbers[:, :count] * len(ops.KINDS)), tf.int64)
    return Operations(kind, tf.cast(_strength(kind, magnitude / _TOP, numbers[:, count:] < 0.5), tf.float32))


def _strength(kind: tf.Tensor, level: float, is_negative: tf.Tensor) -> tf.Tensor:
    """Returns the argument of each operation at a level of 0..1, float64 of the shape of `kind`."""
    factors = (ops.COLOR, ops.CONTRAST, ops.BRIGHTNESS, ops.SHARPNESS)
    strengths = {
        ops.ROTATE: math.radians(30 * level),
        ops.SOLARIZE: 255 * (1 - level),
        ops.POSTERIZE: 8.0 - round(4 * level),
        **dict.fromkeys(factors, 0.9 * level),
        **dict.fromkeys((ops.SHEAR_X, ops.SHEAR_Y), 0.3 * level),
        **dict.fromkeys((ops.TRANSLATE_X, ops.TRANSLATE_Y), 150 / 331 * level),
    }
    both_ways = [kind not in (ops.SOLARIZE, ops.POSTERIZE) for kind in ops.KINDS]
    found = tf.gather(tf.constant([strengths.get(kind, 0.0) for kind in ops.KINDS], tf.float64), kind)
    found = tf.where(is_negative & tf.gather(tf.constant(both_ways), kind), -found, found)
    return found + tf.gather(tf.constant([float(kind in factors) for kind in ops.KINDS], tf.float64), kind)


def augmix(config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor | int = 0) -> Mixture:
    """Draws AugMix's chains and shares (Hendrycks et al., "AugMix", ICLR 2020, algorithm 1).

    There are three chains of one to three operations. Their shares are uniform among all that add up to 1, and that of
    the unchanged image is uniform in 0..1: Dirichlet and Beta distributions of parameter 1. Each operation has its own
    strength, uniform up to `config.augmix` of 10, as in the authors' code.
    """
    size = NUM_CHAINS * _MOST_OPERATIONS
    numbers = tf.cast(uniform(seed ^ _CHAIN_STREAM, epoch, id, 3 * size + 2 * NUM_CHAINS + 1, view), tf.float64)
    which, levels, signs, depths, weights, rest = tf.split(numbers, [size, size, size, NUM_CHAINS, NUM_CHAINS, 1], 1)
    kind = tf.gather(tf.constant(AUGMIX_KINDS, tf.int64), tf.cast(tf.floor(which * len(AUGMIX_KINDS)), tf.int64))
    level = (0.1 + (config.augmix - 0.1) * levels) / 10
    sign = tf.where(signs < 0.5, tf.constant(-1.0, tf.float64), 1.0)
    argument = tf.zeros_like(level)
    for kinds, strength in (
        ((ops.POSTERIZE,), 4 - tf.floor(level * 4)),
        ((ops.SOLARIZE,), 256 - tf.floor(level * 256)),
        ((ops.ROTATE,), sign * level * math.radians(30)),
        ((ops.SHEAR_X, ops.SHEAR_Y), sign * level * 0.3),
        ((ops.TRANSLATE_X, ops.TRANSLATE_Y), sign * level / 3),
    ):
        for one in kinds:
            argument = tf.where(kind == one, strength, argument)
    is_there = tf.range(_MOST_OPERATIONS, dtype=tf.float64) < 1 + tf.floor(depths * _MOST_OPERATIONS)[..., None]
    kind = tf.where(is_there, tf.reshape(kind, [-1, NUM_CHAINS, _MOST_OPERATIONS]), ops.IDENTITY)
    argument = tf.reshape(argument, [-1, NUM_CHAINS, _MOST_OPERATIONS])
    exponential = -tf.math.log(1 - weights)  # normalized, these are uniform among all that add up to 1
    first, second, third = tf.unstack(exponential, axis=1)
    shares = exponential / (first + second + third + 1e-300)[:, None]
    shares = tf.concat([1 - rest, rest * shares], axis=1)
    return Mixture(kind, tf.cast(argument, tf.float32), tf.cast(shares, tf.float32))


def three_augment(
    parameters: Parameters, seed: int, epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor | int = 0
) -> tuple[Parameters, tf.Tensor]:
    """Returns the parameters with those of 3-Augment (Touvron et al., "DeiT III", ECCV 2022, section 3.2), and which
    images are solarized, bool `[batch]`.

    With equal probability, an image becomes gray, is solarized at 128, or is blurred by a Gaussian whose standard
    deviation is uniform in 0.1..2 px, as in the authors' code. For the arguments see `simimg.augment.parameters.draw`.
    """
    numbers = tf.cast(uniform(seed ^ _THREE_STREAM, epoch, id, num_draws=2, view=view), tf.float64)
    which = tf.floor(numbers[:, 0] * 3)
    saturation = tf.where(which == 0, 0.0, parameters.color[:, 2])
    sigma = tf.where(which == 2, tf.cast(0.1 + 1.9 * numbers[:, 1], tf.float32), parameters.sigma)
    color = tf.concat([parameters.color[:, :2], saturation[:, None]], axis=1)
    return parameters._replace(color=color, sigma=sigma), which == 1


def invert_bright(solarized: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Returns `pixels`, float32, with the values of 128 and more inverted in images that are `solarized`."""
    return tf.where(solarized[:, None, None, None] & (pixels >= 128.0), 255.0 - pixels, pixels)
