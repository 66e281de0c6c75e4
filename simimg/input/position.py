"""Where in the training a batch stands, and which examples it holds: the contract of order.

1. The order of epoch e is a permutation of the examples that depends on (seed, e) alone.
2. Step s of an epoch takes places s * B .. (s + 1) * B - 1 of the permutation, B being the global batch size; replica r
   of R takes the r-th R-th of them. What is left at the end of an epoch, fewer than B examples, is not trained on.
3. So the batches from a position (epoch, step) on do not depend on how they are reached, nor on threads or replicas.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simimg.errors import UsageError

__all__ = ["Order", "Position", "permuted"]


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """The next step to be trained: `step` of `epoch`, both from 0."""

    epoch: int = 0
    step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Which examples each replica of this process gets, from a position to the end of the training.

    Args:
        num_examples: examples in the split.
        global_batch_size: examples a step, over all replicas of all processes.
        num_epochs: of the whole training.
        seed: any int; another one gives other permutations.
        start: the first step to deliver.
        num_replicas: all replicas, of all processes.
        first_replica: the first replica of this process.
        num_local_replicas: replicas of this process; by default all.

    Raises:
        UsageError: the batch cannot be divided among the replicas, or is larger than the split.
    """

    num_examples: int
    global_batch_size: int
    num_epochs: int
    seed: int
    start: Position = Position()
    num_replicas: int = 1
    first_replica: int = 0
    num_local_replicas: int = 0

    def __post_init__(self) -> None:
        """Checks that there is a batch to deliver."""
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
        """Whole batches in an epoch."""
        return self.num_examples // self.global_batch_size

    @property
    def per_replica_batch_size(self) -> int:
        """Examples a step and replica."""
        return self.global_batch_size // self.num_replicas

    @property
    def local_replicas(self) -> int:
        """Replicas of this process."""
        return self.num_local_replicas or self.num_replicas

    def indices(self) -> tf.data.Dataset:
        """Returns a data set of int64 `[per_replica_batch_size]`: places in the split, in the order of the contract.

        Element s * L + l is what this process's l-th replica of L takes at step s, counted from `start`. Nothing is
        held in memory: each place of a permutation is computed by itself.
        """
        steps, batch = self.steps_per_epoch, self.per_replica_batch_size
        first = self.start.epoch * steps + self.start.step
        total = self.num_epochs * steps

        def places(element: tf.Tensor) -> tf.Tensor:
            step, replica = element // self.local_replicas, element % self.local_replicas + self.first_replica
            start = step % steps * self.global_batch_size + replica * batch
            return permuted(start + tf.range(batch, dtype=tf.int64), self.num_examples, self.seed, step // steps)

        return tf.data.Dataset.range(first * self.local_replicas, total * self.local_replicas).map(
            places, num_parallel_calls=2, deterministic=True
        )


def permuted(places: tf.Tensor, count: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns which of `count` things stand at `places` in the permutation of (seed, epoch), int64 like `places`.

    tf.random.experimental.index_shuffle enciphers a place with a key, so no list of all places is needed. Its cipher
    wants keys that look random: with the bare (seed, epoch), permutations of successive epochs are so alike that an
    example comes to the same few places again and again. Hence the key is drawn from them by Philox.
    """
    run = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    key = tf.random.stateless_uniform([2], run, None, None, tf.int64, alg="philox")
    return tf.random.experimental.index_shuffle(places, key, tf.constant(count - 1, tf.int64))
