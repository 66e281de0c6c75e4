"""Many tensors as one vector, and the moving average of a model's weights, which is one.

A vector takes a handful of operations per step, and as many tensors take several hundred, which are launched one by
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.training.checkpoints import State
from simimg.training.train_config import TrainConfig

# The decay is smaller in the first steps, as in tf.train.ExponentialMovingAverage(num_updates=...).
_EMA_START = 10.0


class WeightAverage:
    """The moving average of a model's weights, in one vector per replica."""

    def __init__(self, config: TrainConfig, strategy: tf.distribute.Strategy, state: State) -> None:
        """Starts with the average that `state` has."""
        assert state.average is not None
        pairs = zip(state.average.variables, state.model.variables, strict=True)
        self._pairs = [(mine.value, theirs.value) for mine, theirs in pairs if mine.dtype == "float32"]
        self._strategy, self._decay = strategy, config.ema
        start = np.concatenate([mine.numpy().ravel() for mine, _ in self._pairs])
        with strategy.scope():
            self._vector = tf.Variable(start, trainable=False, name="average")

    def follow(self, num_steps: Any) -> None:
        """Moves the average towards the weights, on a replica; `num_steps` is their number with the last one."""
        steps = tf.cast(tf.convert_to_tensor(num_steps), tf.float32)
        decay = tf.minimum(self._decay, (1 + steps) / (_EMA_START + steps))
        weights = joined([theirs for _, theirs in self._pairs])
        self._vector.assign(decay * self._vector + (1 - decay) * weights)

    @tf.function(autograph=False)
    def publish(self) -> None:
        """Writes the average into its model, on all replicas."""
        self._strategy.run(self._publish)

    def _publish(self) -> None:
        mine = [mine for mine, _ in self._pairs]
        for variable, value in zip(mine, split(self._vector, mine), strict=True):
            variable.assign(value)


def joined(tensors: Sequence[Any]) -> tf.Tensor:
    """Returns the values of float32 tensors or variables as one vector."""
    flat = tf.constant([-1])
    return tf.concat([tensor if len(tensor.shape) == 1 else tf.reshape(tensor, flat) for tensor in tensors], 0)


def split(vector: tf.Tensor, like: Sequence[Any]) -> list[tf.Tensor]:
    """Returns tensors of the shapes of `like` from the vector that `joined` makes of them."""
    parts = tf.split(vector, [one.shape.num_elements() for one in like])
    shapes = {tuple(one.shape): None for one in like if len(one.shape) != 1}
    known = {shape: tf.constant(shape, tf.int32) for shape in shapes}  # many weights have the same shape
    shaped = zip(parts, like, strict=True)
    return [part if len(one.shape) == 1 else tf.reshape(part, known[tuple(one.shape)]) for part, one in shaped]
