"""The order of the examples in a training: which examples belong to which batch.

1. The order of epoch e is a permutation of the examples that depends only on (seed, e), and on the mixing if the
   examples are not mixed as a whole.
2. With the global batch size B, step s of an epoch takes places s * B .. (s + 1) * B - 1 of the permutation. Replica r
   of R takes the r-th of R equal parts of them. The fewer than B examples left at the end of an epoch are not used.
3. So the batches from a position (epoch, step) on depend neither on how the position was reached nor on the number of
   threads or replicas.

Each place of a permutation is computed independently. No list of all examples is made, and the first batch of two
billion examples arrives as fast as that of two hundred.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simimg.errors import UsageError


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """The next step to train: `step` of `epoch`, both counted from 0."""

    epoch: int = 0
    step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """How far examples that do not fit into memory are mixed: within windows of blocks.

    A block is `block` examples that are adjacent on disk. Blocks are drawn at random, and the examples of
    `blocks_per_window` successive blocks are mixed. So an epoch reads each byte once, one window at a time. Each epoch
    starts counting at a different example, so the block boundaries move.
    """

    block: int
    blocks_per_window: int

    @classmethod
    def of_bytes(cls, record_bytes: float) -> Mixing:
        """Returns the mixing for records of this length, which depends on nothing else, such as the machine."""
        block = max(1, round(_BLOCK_BYTES / record_bytes))
        return cls(block=block, blocks_per_window=max(1, round(_WINDOW_BYTES / (record_bytes * block))))


# A disk delivers blocks of this size as fast as one long file. A window fits into the memory of any training machine.
_BLOCK_BYTES = 1 << 19
_WINDOW_BYTES = 1 << 30

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
        """Returns the places in the split at `positions` of an epoch's permutation, both int64 `[n]`."""
        if self.mixing is None:
            return permuted(positions, self.num_examples, self.seed, epoch)
        return _mixed(positions, self.num_examples, self.mixing, _run(self.seed, epoch))


def permuted(places: tf.Tensor, count: tf.Tensor | int, seed: tf.Tensor | int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the items at `places` in the permutation of `count` items for (seed, epoch), int64 like `places`.

    tf.random.experimental.index_shuffle encrypts a place with a key, so no list of all places is needed. Its cipher
    needs keys that look random: with (seed, epoch) as the key, the permutations of successive epochs are so similar
    that an example keeps coming to the same few places. So the key is drawn from (seed, epoch) by Philox.
    """
    (key,) = tf.unstack(_keys(_run(seed, epoch), 1))
    return tf.random.experimental.index_shuffle(places, key, tf.cast(count - 1, tf.int64))


def _mixed(positions: tf.Tensor, count: int, mixing: Mixing, run: tf.Tensor) -> tf.Tensor:
    block = min(mixing.block, count)
    num_blocks = count // block  # full blocks; the remaining examples belong to the last window
    window = block * mixing.blocks_per_window
    num_windows = max(1, num_blocks // mixing.blocks_per_window)
    keys = _keys(run, num_windows + 2)

    number = tf.minimum(positions // window, num_windows - 1)
    first = number * window
    length = tf.where(number == num_windows - 1, count - first, window)
    drawn = first + _shuffled(positions - first, tf.gather(keys, number + 2), length - 1)

    there = tf.minimum(drawn // block, num_blocks - 1)
    chosen = _shuffled(there, keys[:1], tf.constant(num_blocks - 1, tf.int64)) * block + drawn % block
    place = tf.where(drawn < num_blocks * block, chosen, drawn)
    return (place + keys[1, 0] % count) % count


def _shuffled(places: tf.Tensor, keys: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    # As tf.random.experimental.index_shuffle does for a single key; for one key per place, 2.21 pads the wrong axis.
    keys = tf.broadcast_to(tf.pad(keys, [[0, 0], [0, 1]]), [tf.size(places), 3])
    last = tf.broadcast_to(last, tf.shape(places))
    return tf.raw_ops.RandomIndexShuffle(index=places, seed=keys, max_index=last, rounds=4)


def _run(seed: tf.Tensor | int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _keys(run: tf.Tensor, count: int) -> tf.Tensor:
    """Returns int64 `[count, 2]`, uniform over all int64, from `run`, int64 `[2]`."""
    return tf.random.stateless_uniform([count, 2], run, None, None, tf.int64, alg="philox")
