"""Random parameters of augmentations, drawn without state: they depend only on (seed, epoch, id).

If a training uses several views of an example per step, the number of the view is a fourth argument. So an example is
augmented in the same way on one replica or eight, by one thread or many, in a first run or a resumed one, and examples
on different replicas get different augmentations. The generator is SplitMix64: a counter goes through the finalizer of
Stafford's "Mix13" (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), which passes
BigCrush. The counter is made of seed, epoch, id and the number of the draw, with 64 draws per view. The code uses int64
arithmetic with wraparound, which runs on every device and gives the same numbers under XLA.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import tensorflow as tf

from simimg.augment.formulation import FORMULATIONS
from simimg.errors import UsageError

# Pixels outside an image a b c d: its mirror image (c b a | a b c d | d c b), its edge (a a a | a b c d | d d d), or
# black.
BORDERS = ("reflect", "nearest", "constant")

_RANGES = {
    **dict.fromkeys(("colour_jitter", "grayscale", "cutout", "quarter_turns", "paste", "bars"), (0, 1)),
    "rotation_degrees": (0, 180),
    "blur": (0, 16),
    "erase": (0, 1),
    "noise": (0, 128),
    "augmix": (0, 10),
    **dict.fromkeys(("mixup", "cutmix"), (0, 8)),
    "min_jpeg_quality": (1, 100),
}
_MAX_ASPECT = 4 / 3
_LEAST_PASTED = 0.4  # of each side of the larger image
_BARS = (0.05, 0.2)  # height of each bar in shares of the image's height
_MOST_OPERATIONS = 8  # of RandAugment
_DRAWS_PER_VIEW = 64
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: steps of SplitMix64
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The augmentations and their strengths; x is the value of an option.

    Raises:
        UsageError: a number is out of its range.
    """

    rotation_degrees: float = 20.0  # each example is rotated by an angle drawn uniformly from -x to x degrees; 0 is off
    horizontal_flip: bool = True  # each example is mirrored left to right with probability 1/2
    # Each example is cropped to a part and enlarged again. The part's share of the area is drawn uniformly from x to 1,
    # and its aspect ratio log-uniformly from 3/4 to 4/3 (Szegedy et al., "Going deeper with convolutions", CVPR 2015,
    # section 6); 1 is off.
    crop_min_area: float = 1.0
    # Brightness, contrast and saturation are each multiplied by a factor drawn uniformly from 1 - x to 1 + x; 0 is off.
    colour_jitter: float = 0.0
    vertical_flip: bool = False  # each example is mirrored top to bottom with probability 1/2
    grayscale: float = 0.0  # the probability that an example becomes grayscale
    # Each example is blurred by a Gaussian whose standard deviation is drawn uniformly from 0 to x px; 0 is off.
    blur: float = 0.0
    # Each example is quantized as by JPEG, at a quality drawn uniformly from x to 100; 100 is off.
    min_jpeg_quality: float = 100.0
    # A rectangle anywhere in each example becomes gray. Its sides are drawn uniformly from 0 to x of the image's
    # (DeVries, Taylor, "Improved regularization of CNNs with cutout", 2017); 0 is off.
    cutout: float = 0.0
    # The probability that an example is rotated by 90, 180 or 270 degrees, besides `rotation_degrees`.
    quarter_turns: float = 0.0
    # The probability that an example is pasted into a larger image instead of being cropped. It takes 0.4 to 1 of each
    # side, and a color gradient fills the rest.
    paste: float = 0.0
    # The probability that an example is covered by bars at the top and the bottom, each of 5 to 20 % of its height, in
    # black, white or gray.
    bars: float = 0.0
    border: str = "reflect"  # the pixels outside an image that is moved; see `BORDERS`
    # RandAugment's number of operations N and magnitude M as "N,M", see `simimg.augment.policies`.
    rand_augment: str = "off"
    augmix: float = 0.0  # AugMix's severity, see `simimg.augment.policies`; 0 is off
    three_augment: bool = False  # each example becomes gray, is solarized or is blurred, see `simimg.augment.policies`
    # Gaussian noise is added to each example. Its standard deviation is drawn uniformly from 0 to x, of 255; 0 is off.
    noise: float = 0.0
    erase: float = 0.0  # the probability that random pixels fill a rectangle, see `simimg.augment.random_pixels`
    # The parameter of the Beta distribution of the share of an example that is mixed with its partner, or that keeps
    # its pixels while others are replaced by the partner's, see `simimg.augment.mixing`; 0 is off.
    mixup: float = 0.0
    cutmix: float = 0.0
    augment_with: str = "auto"  # what computes it; the pixels are the same up to rounding; see `FORMULATIONS`

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"--{name}={getattr(self, name)}: should be {least}..{most}.")
        if not 0 < self.crop_min_area <= 1:
            raise UsageError(f"--crop_min_area={self.crop_min_area}: should be above 0, and 1 or less.")
        numbers = self.rand_augment_numbers
        if numbers and not (1 <= numbers[0] <= _MOST_OPERATIONS and 0 <= numbers[1] <= 30):
            raise UsageError(
                f"--rand_augment={self.rand_augment}: should be N,M with 1..{_MOST_OPERATIONS} operations per image "
                "and a magnitude of 0..30, such as 2,9, or off."
            )
        if numbers and self.augmix:
            raise UsageError(f"--augmix={self.augmix} and --rand_augment={self.rand_augment}: use one of them.")
        if self.border not in BORDERS:
            raise UsageError(f"--border={self.border}: should be one of {', '.join(BORDERS)}.")
        if self.augment_with not in FORMULATIONS:
            raise UsageError(f"--augment_with={self.augment_with}: should be one of {', '.join(FORMULATIONS)}.")

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> AugmentConfig:
        """Returns the augmentations among the options of a run, such as those in its config.json.

        A run that is older than an augmentation does not have its option, and gets the default, which is off.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: options[name] for name in names if name in options})

    @property
    def moves_pixels(self) -> bool:
        """Whether any augmentation moves pixels: flips, rotations, crops or pasting."""
        turns = self.rotation_degrees or self.quarter_turns
        flips, policy = self.horizontal_flip or self.vertical_flip, self.rand_augment != "off" or self.augmix
        return bool(turns or flips or self.crop_min_area < 1 or self.paste or policy)

    @property
    def rand_augment_numbers(self) -> tuple[int, int] | None:
        """RandAugment's number of operations and magnitude; None if it is off, and (0, 0) if they are no numbers."""
        if self.rand_augment == "off":
            return None
        try:
            count, magnitude = map(int, self.rand_augment.split(","))
        except ValueError:
            return 0, 0
        return count, magnitude

    @property
    def mixes(self) -> bool:
        """Whether an example is mixed with another of its batch, and its label too."""
        return bool(self.mixup or self.cutmix)


class Parameters(NamedTuple):
    """The parameters of each example of a batch."""

    angle: tf.Tensor  # float32 `[batch]`, radians, counterclockwise, quarter turns included
    flip: tf.Tensor  # bool `[batch, 2]`, mirrored left to right, and top to bottom
    # float32 `[batch, 4]`, the part that is kept: its middle (x, y) and its size (width, height), in shares of the
    # image's. The whole image is (0.5, 0.5, 1, 1); the size is above 1 for a pasted image.
    crop: tf.Tensor
    color: tf.Tensor  # float32 `[batch, 3]`, the factors of brightness, contrast and saturation
    sigma: tf.Tensor  # float32 `[batch]`, standard deviation of the blur in px
    quality: tf.Tensor  # float32 `[batch]`, quality of JPEG, 1..100
    cutout: tf.Tensor  # float32 `[batch, 4]`, the rectangle that becomes gray, like `crop`
    pasted: tf.Tensor  # bool `[batch]`, whether it is pasted into a larger image
    ground: tf.Tensor  # float32 `[batch, 2, 2, 3]`, the larger image's colors in its corners, 0..255, top left first
    bars: tf.Tensor  # float32 `[batch, 2]`, a bar's height in shares of the image's, 0 for none; its gray, 0..255


def draw(config: AugmentConfig, seed: int, epoch: tf.Tensor, id: tf.Tensor, view: tf.Tensor | int = 0) -> Parameters:
    """Draws the parameters of each example. What is off costs few operations, because each replica has its own.

    Args:
        config: the augmentations.
        seed: any int64.
        epoch: int64 scalar.
        id: int64 `[batch]`.
        view: int64 `[batch]` or scalar, from 0; the views of an example are independent of each other.
    """
    # In float64 and then rounded. A device computes exp or cos of eight numbers at once differently than of the few
    # that remain, so in float32 an example's parameters would depend on its place in the batch.
    numbers = tf.cast(uniform(seed, epoch, id, num_draws=36, view=view), tf.float64)
    off = tf.zeros_like(id, tf.float64)
    flips = tf.constant([config.horizontal_flip, config.vertical_flip])
    angle = (2 * numbers[:, 0] - 1) * (config.rotation_degrees * (math.pi / 180))
    if config.quarter_turns:
        turn = numbers[:, 16] * (3 / config.quarter_turns)  # below 3 with the probability `quarter_turns`
        angle += tf.where(turn < 3, tf.floor(turn) + 1, 0.0) * (math.pi / 2)
    color = 1 + (2 * numbers[:, 6:9] - 1) * config.colour_jitter
    if config.grayscale:
        saturation = tf.where(numbers[:, 10:11] < config.grayscale, tf.zeros([], tf.float64), color[:, 2:])
        color = tf.concat([color[:, :2], saturation], axis=1)
    crop, pasted, ground = _crops(config, numbers[:, 2:6]), off > 0, tf.stack([off] * 12, axis=1)
    if config.paste:
        pasted, ground = numbers[:, 17] < config.paste, numbers[:, 21:33] * 255
        crop = tf.where(pasted[:, None], _frames(numbers[:, 18:21]), crop)
    cutout = tf.stack([off] * 4, axis=1)
    if config.cutout:
        cutout = tf.concat([numbers[:, 13:15], tf.tile(numbers[:, 12:13] * config.cutout, [1, 2])], axis=1)
    thickness, gray = off, off
    if config.bars:
        thickness = _BARS[0] + (_BARS[1] - _BARS[0]) * numbers[:, 34]
        thickness = tf.where(numbers[:, 33] < config.bars, thickness, 0.0)
        gray = tf.clip_by_value(3 * numbers[:, 35] - 1, 0.0, 1.0) * 255  # one third black, one third white
    parameters = Parameters(
        angle=angle,
        flip=(tf.stack([numbers[:, 1], numbers[:, 9]], axis=1) < 0.5) & flips,
        crop=crop,
        color=color,
        sigma=numbers[:, 11] * config.blur if config.blur else off,
        quality=config.min_jpeg_quality
        + (numbers[:, 15] * (100 - config.min_jpeg_quality) if config.min_jpeg_quality < 100 else off),
        cutout=cutout,
        pasted=pasted,
        ground=tf.reshape(ground, [-1, 2, 2, 3]),
        bars=tf.stack([thickness, gray], axis=1),
    )
    return Parameters(*(part if part.dtype == tf.bool else tf.cast(part, tf.float32) for part in parameters))


def uniform(seed: int, epoch: tf.Tensor, id: tf.Tensor, num_draws: int, view: tf.Tensor | int = 0) -> tf.Tensor:
    """Returns `num_draws` independent numbers per example, at most 64: float32 `[batch, num_draws]`, uniform in
    0 <= x < 1, multiples of 2**-24; for the other arguments see `draw`.
    """
    example = _examples(seed, epoch, id)
    steps = tf.constant([_signed(number * _GOLDEN & _MASK) for number in range(1, num_draws + 1)], tf.int64)
    start = tf.reshape(tf.cast(view, tf.int64), [-1, 1]) * _signed(_DRAWS_PER_VIEW * _GOLDEN & _MASK)
    bits = _mix(example[:, None] + start + steps[None, :])
    return tf.cast(_shift_right(bits, 40), tf.float32) * 2.0**-24


def random_bits(seed: int, epoch: tf.Tensor, id: tf.Tensor, num_draws: int, view: tf.Tensor | int = 0) -> tf.Tensor:
    """Returns any number of independent numbers per example, int64 `[batch, num_draws]`, all 64 bits of which are
    random; for the other arguments see `draw`.
    """
    start = _mix(_examples(seed, epoch, id) + (tf.cast(view, tf.int64) + 1) * _signed(_GOLDEN))
    return _mix(start[:, None] + tf.range(1, num_draws + 1, dtype=tf.int64) * _signed(_GOLDEN))


def _examples(seed: int, epoch: tf.Tensor, id: tf.Tensor) -> tf.Tensor:
    """Returns the generator's state for each example, int64 `[batch]`."""
    run = _mix(tf.constant(_signed(seed & _MASK), tf.int64) + _signed(_GOLDEN))
    run = _mix(run + tf.cast(epoch, tf.int64) * _signed(_GOLDEN))
    return _mix(run + id * _signed(_GOLDEN))


def _crops(config: AugmentConfig, numbers: tf.Tensor) -> tf.Tensor:
    area = config.crop_min_area + (1 - config.crop_min_area) * numbers[:, 0]
    stretch = tf.exp((numbers[:, 1] - 0.5) * math.log(_MAX_ASPECT)) if config.crop_min_area < 1 else tf.ones_like(area)
    # A part cannot be wider or higher than the image.
    size = tf.minimum(tf.sqrt(area)[:, None] * tf.stack([stretch, 1 / stretch], axis=1), 1.0)
    middle = size / 2 + numbers[:, 2:] * (1 - size)
    return tf.concat([middle, size], axis=1)


def _frames(numbers: tf.Tensor) -> tf.Tensor:
    """Returns the larger images that examples are pasted into, as crops larger than the example."""
    share = _LEAST_PASTED + (1 - _LEAST_PASTED) * numbers[:, :1]
    size = tf.tile(1 / share, [1, 2])
    middle = 1 - size / 2 + numbers[:, 1:] * (size - 1)
    return tf.concat([middle, size], axis=1)


_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(x: tf.Tensor) -> tf.Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def _shift_right(x: tf.Tensor, bits: int) -> tf.Tensor:
    """Shifts as if `x` were unsigned: the arithmetic shift of int64, with the copies of the sign bit masked."""
    return tf.bitwise.right_shift(x, tf.constant(bits, tf.int64)) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
