"""Stateless parameters of augmentations: what happens to an example is a function of (seed, epoch, id) and nothing else.

So an example is augmented alike on one replica or eight, by one thread or many, in a first run or a resumed one, and no
two replicas share an augmentation. The generator is SplitMix64: a counter goes through the finaliser of Stafford's
"Mix13" (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), which passes BigCrush; here
the counter is made of seed, epoch, id and the number of the draw. It is written in int64 arithmetic, which wraps around,
because that runs on every device and compiles under XLA.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from simimg.errors import UsageError

__all__ = ["AugmentConfig", "Parameters", "draw", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: steps of SplitMix64
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Which augmentations there are.

    Args:
        rotation_degrees: each example is turned by an angle drawn uniformly from -x to x degrees; 0 is none.
        horizontal_flip: each example is mirrored with probability 1/2.

    Raises:
        UsageError: the angle is not in 0..180.
    """

    rotation_degrees: float = 20.0
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        """Checks the angle."""
        if not 0 <= self.rotation_degrees <= 180:
            raise UsageError(f"--rotation_degrees={self.rotation_degrees}: should be 0..180.")

    @property
    def is_identity(self) -> bool:
        """Whether nothing is ever changed."""
        return self.rotation_degrees == 0 and not self.horizontal_flip


class Parameters(NamedTuple):
    """What happens to each example of a batch.

    angle: float32 [batch], radians, counter-clockwise as seen; flip: bool [batch], mirrored left to right.
    """

    angle: tf.Tensor
    flip: tf.Tensor


def draw(config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor) -> Parameters:
    """Returns the parameters of each example.

    Args:
        config: the augmentations.
        seed: any int64.
        epoch: int64 scalar.
        id: int64 `[batch]`.
    """
    numbers = uniform(seed, epoch, id, num_draws=2)
    limit = config.rotation_degrees * (3.141592653589793 / 180)
    flip = numbers[:, 1] < 0.5 if config.horizontal_flip else tf.zeros_like(id, tf.bool)
    return Parameters(angle=(2 * numbers[:, 0] - 1) * limit, flip=flip)


def uniform(seed: int, epoch: tf.Tensor, id: tf.Tensor, num_draws: int) -> tf.Tensor:
    """Returns float32 `[batch, num_draws]`, uniform in 0 <= x < 1, multiples of 2**-24.

    Args:
        seed: any int64.
        epoch: int64 scalar.
        id: int64 `[batch]`.
        num_draws: independent numbers an example.
    """
    run = _mix(tf.constant(_signed(seed & _MASK), tf.int64) + _signed(_GOLDEN))
    run = _mix(run + tf.cast(epoch, tf.int64) * _signed(_GOLDEN))
    example = _mix(run + id * _signed(_GOLDEN))
    steps = tf.constant([_signed(number * _GOLDEN & _MASK) for number in range(1, num_draws + 1)], tf.int64)
    bits = _mix(example[:, None] + steps[None, :])
    return tf.cast(_shift_right(bits, 40), tf.float32) * 2.0**-24


_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(x: tf.Tensor) -> tf.Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def _shift_right(x: tf.Tensor, bits: int) -> tf.Tensor:
    """Shifts as if `x` were unsigned: the arithmetic shift of int64, its copies of the sign masked away."""
    return tf.bitwise.right_shift(x, tf.constant(bits, tf.int64)) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
