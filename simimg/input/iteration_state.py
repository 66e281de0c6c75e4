"""Where the iterations over a dataset are: which step comes next, kept in a resource of TensorFlow's.

tf.data gives no access to its iterators, and Keras makes some that it never uses. So the pipeline itself keeps the
position, by operations inside of it that find the resource by its name:

1. An iteration starts at `begin`, which it reads with its first batch.
2. Each batch that leaves the pipeline sets `next`, the position after it.
3. The last batch of an iteration sets `begin` to the position after it as well. An iteration that is given up changes
   `begin` in no way, so the next one repeats it.
4. `set` changes both. Iterations that started before it change nothing any more.
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


class IterationState:
    """The state of one dataset; a name in the resource manager of the first CPU device."""

    def __init__(self, start: Position, steps_per_epoch: int) -> None:
        self._name = f"simimg_iteration_{next(_NAMES)}"
        self._steps_per_epoch = steps_per_epoch
        with tf.init_scope():
            self._write(tf.constant([start.epoch, start.step, start.epoch, start.step, 0], tf.int64))

    @property
    def begin(self) -> Position:
        """The position at which the next iteration starts."""
        return Position(*self._read().numpy()[:2].tolist())

    @property
    def next(self) -> Position:
        """The position after the last batch that left the pipeline."""
        return Position(*self._read().numpy()[2:4].tolist())

    @next.setter
    def next(self, position: Position) -> None:
        begin, generation = self.begin, self._read()[4]
        self._write(tf.stack([begin.epoch, begin.step, position.epoch, position.step, generation]))

    @property
    def generation(self) -> int:
        """The number of calls of `set`."""
        return int(self._read()[4])

    def set(self, position: Position) -> None:
        """Has the next iteration start at `position`."""
        self._write(tf.stack([position.epoch, position.step, position.epoch, position.step, self._read()[4] + 1]))

    def start(self) -> tf.Tensor:
        """Returns (epoch, step, generation) of an iteration that starts, int64 `[3]`; called in the pipeline."""
        state = self._read()
        return tf.stack([state[0], state[1], state[4]])

    def commit(self, tag: StepTag) -> None:
        """Notes that a batch leaves the pipeline; called in the pipeline, which is sequential there."""
        state = self._read()
        ends_epoch = tf.cast(tag.step + 1 == self._steps_per_epoch, tf.int64)
        after = [tag.epoch + ends_epoch, (tag.step + 1) * (1 - ends_epoch)]
        begin = tf.where((ends_epoch == 1) & (tag.epoch == tag.last_epoch), tf.stack(after), state[:2])
        counts = (tag.is_last_replica == 1) & (tag.generation == state[4])
        self._write(tf.where(counts, tf.concat([begin, after, state[4:]], axis=0), state))

    def _handle(self) -> tf.Tensor:
        # By name, not captured: a dataset that captures a resource cannot be copied to another device.
        with tf.device("CPU:0"):
            return tf.raw_ops.VarHandleOp(dtype=tf.int64, shape=[5], shared_name=self._name)

    def _read(self) -> tf.Tensor:
        return tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=self._handle(), dtype=tf.int64), [5])

    def _write(self, state: tf.Tensor) -> None:
        tf.raw_ops.AssignVariableOp(resource=self._handle(), value=tf.cast(state, tf.int64))
