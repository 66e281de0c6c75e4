"""Where the iterations over a dataset are: which step comes next, kept in a resource of TensorFlow's.

tf.data gives no access to its iterators, and Keras makes some that it never uses. So the pipeline itself keeps the
position, by operations inside of it that find the resource by its name:

1. An iteration starts at `begin`, which it reads with its first batch.
2. Each batch that leaves the pipeline sets `next`, the position after it.
3. The last batch of an iteration sets `begin` to the position after it as well. An iteration that is given up changes
   `begin` in no way, so the next one repeats it.
4. `set` changes both, and begins a new generation. Iterations that started before it change those of their own
   generation, which nobody reads any more.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import tensorflow as tf

from simimg.input.sampler import Position

_NAMES = itertools.count()


class StepTag(NamedTuple):
    """What the pipeline knows of a batch besides its examples, int64 scalars."""

    epoch: tf.Tensor
    step: tf.Tensor
    last_epoch: tf.Tensor  # of the iteration
    generation: tf.Tensor  # the number of calls of `set` before the iteration
    is_last_replica: tf.Tensor  # 1 if no other replica's part of the step follows, otherwise 0
    num_examples: tf.Tensor  # rows that are no padding


_GENERATION = -1  # the key of the number of the present generation; `begin` of generation g is at 2 g, `next` after it


class IterationState:
    """The state of one dataset: a table in the resource manager of the first CPU device.

    Each value is read or written at once, so the threads of the pipeline and those of the program need no lock.
    """

    def __init__(self, start: Position, steps_per_epoch: int) -> None:
        self._name = f"simimg_iteration_{next(_NAMES)}"
        self._steps_per_epoch = steps_per_epoch
        self._start_generation(0, start)

    @property
    def begin(self) -> Position:
        """The position at which the next iteration starts."""
        return Position(*self._read(2 * self.generation).numpy().tolist())

    @property
    def next(self) -> Position:
        """The position after the last batch that left the pipeline."""
        return Position(*self._read(2 * self.generation + 1).numpy().tolist())

    @property
    def generation(self) -> int:
        """The number of calls of `set`."""
        return int(self._read(_GENERATION)[0])

    def set(self, position: Position) -> None:
        """Has the next iteration start at `position`."""
        self._start_generation(self.generation + 1, position)

    def start(self) -> tf.Tensor:
        """Returns (epoch, step, generation) of an iteration that starts, int64 `[3]`; called in the pipeline."""
        generation = self._read(_GENERATION)[:1]
        return tf.concat([self._read(2 * generation[0]), generation], axis=0)

    def commit(self, tag: StepTag) -> None:
        """Notes that a batch leaves the pipeline; called in the pipeline, which is sequential there."""
        ends_epoch = tag.step + 1 == self._steps_per_epoch
        after = tf.where(ends_epoch, tf.stack([tag.epoch + 1, 0]), tf.stack([tag.epoch, tag.step + 1]))

        def write() -> bool:
            self._write(2 * tag.generation + 1, after)
            return True

        def write_begin() -> bool:
            self._write(2 * tag.generation, after)
            return True

        is_last = tag.is_last_replica == 1
        tf.cond(is_last & ends_epoch & (tag.epoch == tag.last_epoch), write_begin, lambda: False)
        tf.cond(is_last, write, lambda: False)

    def _start_generation(self, generation: int, position: Position) -> None:
        with tf.init_scope():
            for key in (2 * generation, 2 * generation + 1):
                self._write(key, [position.epoch, position.step])
            self._write(_GENERATION, [generation, 0])

    def _table(self) -> tf.Tensor:
        # By name, not captured: a dataset that captures a resource cannot be copied to another device.
        with tf.device("CPU:0"):
            return tf.raw_ops.MutableHashTableOfTensorsV2(
                key_dtype=tf.int64, value_dtype=tf.int64, value_shape=[2], shared_name=self._name
            )

    def _read(self, key: tf.Tensor | int) -> tf.Tensor:
        keys, default = tf.cast(key, tf.int64)[None], tf.zeros([2], tf.int64)
        found = tf.raw_ops.LookupTableFindV2(table_handle=self._table(), keys=keys, default_value=default)
        return tf.ensure_shape(found, [1, 2])[0]

    def _write(self, key: tf.Tensor | int, value: tf.Tensor | list[int]) -> None:
        keys, values = tf.cast(key, tf.int64)[None], tf.cast(value, tf.int64)[None]
        tf.raw_ops.LookupTableInsertV2(table_handle=self._table(), keys=keys, values=values)
