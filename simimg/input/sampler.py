"""The order of the examples in a training: which examples belong to which batch.

1. The order of epoch e is a permutation of the examples that depends only on (seed, e), and on the mixing if the
   examples are not mixed as a whole.
2. With the global batch size B, step s of an epoch takes places s * B .. (s + 1) * B - 1 of the permutation. Replica r
   of R takes the r-th of R equal parts of them. The fewer than B examples left at the end of an epoch are not used.
3. So the batches from a position (epoch, step) on depend neither on how the position was reached nor on the number of
   threads or replicas.

Each place of a permutation is computed independently. No list of all examples is made, and the first batch of two
billion examples arrives as fast as that of two hundred. `simimg.input.mixture` has the order of several datasets.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.mixture import Mixture
from simimg.input.permutation import Mixing, permuted, permuted_in_windows


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """The next step to train: `step` of `epoch`, both counted from 0."""

    epoch: int = 0
    step: int = 0


_PLACES_PER_CALL = 1 << 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """The examples that each replica of this process gets, from a position to the end of the training.

    Raises:
        UsageError: the batch cannot be divided among the replicas, or is larger than the split.
    """

    num_examples: int  # in the split
    global_batch_size: int  # examples per step, over all replicas of all processes
    num_epochs: int  # of the whole training
    seed: int  # any int; it selects the permutations
    # The first step to deliver. Its numbers, and `num_epochs`, may be int64 scalars inside a tf.data function.
    start: Position = Position()
    num_replicas: int = 1  # of all processes
    first_replica: int = 0  # of this process
    num_local_replicas: int = 0  # of this process; 0 is all
    mixing: Mixing | None = None  # how far examples are mixed; None: as a whole, all permutations equally likely
    mixture: Mixture | None = None  # of several datasets, of which `num_examples` is the sum; `mixing` is then unused

    def __post_init__(self) -> None:
        if self.global_batch_size % self.num_replicas:
            raise UsageError(
                f"--global_batch_size={self.global_batch_size} cannot be divided among {self.num_replicas} replicas. "
                f"Choose a multiple of {self.num_replicas}."
            )
        if not self.steps_per_epoch:
            raise UsageError(
                f"--global_batch_size={self.global_batch_size} is more than the {self.num_examples} training examples. "
                "Choose a smaller one."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch."""
        return self.num_examples // self.global_batch_size

    @property
    def per_replica_batch_size(self) -> int:
        """Examples per step and replica."""
        return self.global_batch_size // self.num_replicas

    @property
    def local_replicas(self) -> int:
        """Number of replicas of this process."""
        return self.num_local_replicas or self.num_replicas

    def indices(self) -> tf.data.Dataset:
        """Returns a dataset of places in the split, int64 `[per_replica_batch_size]`, in the order of the contract.

        With L local replicas, element s * L + l belongs to local replica l at step s, counted from `start`.
        """
        steps, local = self.steps_per_epoch, self.local_replicas

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            first = tf.where(epoch == self.start.epoch, tf.cast(self.start.step, tf.int64), 0)
            # Many batches at once, because a call costs as much as a thousand places.
            batches_per_call = max(1, _PLACES_PER_CALL // self.per_replica_batch_size)
            return (
                tf.data.Dataset.range(first * local, steps * local)
                .batch(batches_per_call)
                .map(lambda elements: self.places_in_epoch(elements, epoch))
            )

        return tf.data.Dataset.range(self.start.epoch, self.num_epochs).flat_map(of_epoch).prefetch(1).unbatch()

    def step_number(self, position: Position) -> int:
        """Returns the number of steps of the whole training before `position`."""
        return position.epoch * self.steps_per_epoch + position.step

    @property
    def elements(self) -> range:
        """Numbers of the elements of `indices` from `start` to the end, counted over all epochs."""
        first = self.step_number(self.start) * self.local_replicas
        return range(first, self.num_epochs * self.steps_per_epoch * self.local_replicas)

    def places(self, element: tf.Tensor) -> tf.Tensor:
        """Returns the element of `indices` with a number from `elements`, an int64 scalar."""
        elements_per_epoch = self.steps_per_epoch * self.local_replicas
        (places,) = tf.unstack(
            self.places_in_epoch(element[None] % elements_per_epoch, element // elements_per_epoch), 1
        )
        return places

    def places_in_epoch(self, elements: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Returns places, int64 `[n, per_replica_batch_size]`, for numbers of elements within an epoch, int64 `[n]`."""
        batch, local = self.per_replica_batch_size, self.local_replicas
        step, replica = elements // local, elements % local + self.first_replica
        starts = step * self.global_batch_size + replica * batch
        positions = starts[:, None] + tf.range(batch, dtype=tf.int64)
        return tf.reshape(self.at(tf.reshape(positions, [-1]), epoch), [-1, batch])

    def at(self, positions: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Returns the places in the split at `positions` of an epoch's permutation, both int64 `[n]`.

        Those of a mixture are as `Mixture.places` returns them.
        """
        if self.mixture is not None:
            used = self.steps_per_epoch * self.global_batch_size
            span = used if self.mixture.weights else self.num_examples
            return self.mixture.places(positions, epoch, span, self.seed)
        if self.mixing is None:
            return permuted(positions, self.num_examples, self.seed, epoch)
        return permuted_in_windows(positions, self.num_examples, self.mixing, self.seed, epoch)
