"""The order of a training on several datasets: which dataset each position of an epoch takes its example from.

Without weights, an epoch has every example of every dataset once. With weights, an epoch has as many positions as the
datasets have examples, and each dataset gets its share of them: a large one is not used up in an epoch, and a small
one begins again.

1. Each dataset delivers its examples in its own order: that of a training on it alone, epoch after epoch. So all of its
   examples come once before one of them comes again, whatever the epochs of the training.
2. The first P positions of an epoch have P times its share of each dataset, up to fewer examples than there are
   datasets, for any P that is a multiple of `_BLOCK`. Within such a block, the datasets alternate at random.
3. With weights, the positions that an epoch does not use come first in the next one, so that nothing is left out.
   Without weights, they are not used, as in a training on one dataset.

All of it is a function of (seed, epoch, position), which is computed for any position independently.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.permutation import Mixing, keys_of, permuted_by_epoch, shuffled

_BLOCK = 256  # positions; a batch of a usual size has nearly its share of each dataset
_PATTERN_SEED = 0x6D69787475726573  # makes the keys of the blocks others than those of the permutations
_MAX_BLOCKS_PER_EPOCH = 1 << 32
# Products of two numbers up to this fit into an int64.
_MAX_TOTAL = 1 << 31

# The bits of a place above it say in which pass over its dataset it is, so that an example that comes twice in an epoch
# is augmented in two ways.
PLACE_BITS = 40
_PASSES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Datasets that are trained on together.

    Attributes:
        counts: the number of examples of each dataset, 1 or more.
        weights: the relative number of positions of each dataset; () is the number of its examples.
        mixings: how far the examples of each dataset are mixed, as in `Order`; () is as a whole, for all.
        in_order: take the examples of each dataset as they are stored, and shuffle only the datasets.
    """

    counts: tuple[int, ...]
    weights: tuple[int, ...] = ()
    mixings: tuple[Mixing | None, ...] = ()
    in_order: bool = False

    @property
    def shares(self) -> tuple[Fraction, ...]:
        """The share of each dataset."""
        weights = self.weights or self.counts
        return tuple(Fraction(weight, sum(weights)) for weight in weights)

    def places(self, positions: tf.Tensor, epoch: tf.Tensor, span: int, seed: int) -> tf.Tensor:
        """Returns the examples at `positions` of an epoch: places in all datasets, one after the other, int64 `[n]`.

        With weights, the pass over the dataset is in the bits from `PLACE_BITS` on.

        Args:
            positions: int64 `[n]` in 0..span-1.
            epoch: int64 scalar.
            span: the positions that an epoch has.
            seed: any int.
        """
        blocks, which = tf.unique(positions // _BLOCK, out_idx=tf.int64)
        first = epoch * span + blocks * _BLOCK
        last = epoch * span + tf.minimum((blocks + 1) * _BLOCK, span)
        before = tf.stack(self._taken(first), axis=1)  # [num_blocks, num_datasets]
        ends = tf.cumsum(tf.stack(self._taken(last), axis=1) - before, axis=1)

        # The datasets of each block in random order, and how many examples each of them has given before each position.
        keys = keys_of(seed ^ _PATTERN_SEED, epoch * _MAX_BLOCKS_PER_EPOCH + blocks)[:, 0]
        most = tf.repeat(last - first - 1, _BLOCK)
        drawn = shuffled(
            tf.minimum(tf.tile(tf.range(_BLOCK, dtype=tf.int64), tf.shape(blocks)), most),
            tf.repeat(keys, _BLOCK, axis=0),
            most,
        )
        drawn = tf.reshape(drawn, [-1, _BLOCK, 1])
        is_of = (drawn < ends[:, None]) & (drawn >= tf.pad(ends[:, :-1], [[0, 0], [1, 0]])[:, None])
        given = before[:, None] + tf.cumsum(tf.cast(is_of, tf.int64), axis=1, exclusive=True)

        at = tf.stack([which, positions % _BLOCK], axis=1)
        chosen, numbers = tf.gather_nd(is_of, at), tf.gather_nd(given, at)  # [n, num_datasets]
        found = tf.zeros_like(positions)
        for dataset, start in enumerate(itertools.accumulate(self.counts[:-1], initial=0)):
            found = tf.where(chosen[:, dataset], start + self._place(dataset, numbers[:, dataset], seed), found)
        return found

    def _place(self, dataset: int, numbers: tf.Tensor, seed: int) -> tf.Tensor:
        """Returns where the examples lie that a dataset gives as its `numbers`-th ones, counted over the training."""
        count = self.counts[dataset]
        own_epoch, place = numbers // count, numbers % count
        if not self.in_order:
            mixing = self.mixings[dataset] if self.mixings else None
            place = permuted_by_epoch(place, count, seed, own_epoch, mixing)
        return place + tf.bitwise.left_shift(own_epoch % _PASSES, PLACE_BITS) if self.weights else place

    def _taken(self, positions: tf.Tensor) -> list[tf.Tensor]:
        """Returns how many examples of each dataset come before `positions`, which count over the whole training.

        The first dataset gets its share of the positions, rounded down, the second one its share of the rest, and so
        on. So none of these numbers falls when `positions` rises, and they add up.
        """
        weights = [weight // math.gcd(*(self.weights or self.counts)) for weight in self.weights or self.counts]
        taken, left, total = [], positions, sum(weights)
        for weight in weights[:-1]:
            taken.append(left // total * weight + left % total * weight // total)
            left, total = left - taken[-1], total - weight
        return [*taken, left]


def parse_weights(weights: str | Sequence[float], num_datasets: int) -> tuple[int, ...]:
    """Returns the weights of datasets as whole numbers: of "0.75,0.25", or of numbers, the tuple (3, 1).

    Raises:
        UsageError: there are more or fewer weights than datasets, or one is not above 0.
    """
    texts = weights.split(",") if isinstance(weights, str) else [str(weight) for weight in weights]
    shown = ",".join(texts)
    if len(texts) != num_datasets:
        raise UsageError(
            f"--dataset_weights={shown} has {len(texts)} {'number' if len(texts) == 1 else 'numbers'} for "
            f"{num_datasets} {'dataset' if num_datasets == 1 else 'datasets'}. Give one number per --dataset_dir, in "
            "the same order."
        )
    try:
        parts = [Fraction(text.strip()) for text in texts]
    except (ValueError, ZeroDivisionError):
        parts = [Fraction(0)]
    whole = [int(part * math.lcm(*(part.denominator for part in parts))) for part in parts]
    whole = [number // (math.gcd(*whole) or 1) for number in whole]
    if min(whole) <= 0 or sum(whole) >= _MAX_TOTAL:
        raise UsageError(f"--dataset_weights={shown}: should be numbers above 0, such as 3,1 or 0.75,0.25.")
    return tuple(whole)


def looks_like_weights(text: str) -> bool:
    """Returns whether `text` is a list of two numbers or more."""
    parts = text.split(",")
    return len(parts) > 1 and all(part.strip().replace(".", "", 1).isdigit() for part in parts)


def dataset_weights_in(given: dict[str, Any]) -> dict[str, Any]:
    """Returns options in which `weights`, if they are numbers, such as "3,1", are those of the datasets.

    Raises UsageError if there are other weights of the datasets, too.
    """
    weights = given.get("weights", "")
    if not looks_like_weights(weights):
        return given
    if given.get("dataset_weights", weights) != weights:
        raise UsageError(
            f"--weights={weights} and --dataset_weights={given['dataset_weights']} both weigh the datasets. Leave one "
            "of them out."
        )
    return {name: value for name, value in given.items() if name != "weights"} | {"dataset_weights": weights}
