"""Oriented gradients as a layer: what a network that starts from few pictures need not learn first."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

_FLAT = 0.02
"""Added to what gradients are divided by, of square roots of intensity 0..1, so that flat regions stay near 0."""


@keras.saving.register_keras_serializable(package="simimg")
class OrientedGradients(keras.layers.Layer):
    """Where edges are and which way they go, and the colours beside them, with nothing to train.

    Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), differentiable and of any picture size. Square
    roots of the intensities; central differences, of the channel whose gradient is longest; each shared out among
    directions over the full circle by relu(cos(angle between))^(directions / 2), a smooth bin about as wide as
    their distance; averaged over windows of twice the cell, so that neighbours overlap by half. Once divided by the
    energy of the 3 x 3 cells around, once by that of the picture, for edges that stand out of their surroundings and
    for those that stand out at all. With them go the logarithm of the cell's energy, and the mean and standard
    deviation of each channel.

    Input [batch, h, w, 3] pixels 0..255. Output float32 [batch, ceil(h / cell), ceil(w / cell),
    2 * num_directions + 7]; computed in float32 under mixed precision too.

    Args:
        cell: distance of the windows in pixels.
        num_directions: of edges, over the full circle: dark to bright is not bright to dark.
        **kwargs: what every Keras layer takes.
    """

    def __init__(self, cell: int = 4, num_directions: int = 16, **kwargs: Any) -> None:
        """Keep the arguments, which the class describes."""
        super().__init__(**{"dtype": "float32", **kwargs})
        self.cell = cell
        self.num_directions = num_directions

    def call(self, inputs: Any) -> Any:
        """Return the maps, of the class's docstring."""
        x = tf.sqrt(tf.clip_by_value(tf.cast(inputs, tf.float32), 0, 255) / 255)
        across, down = _differences(x)
        length = tf.sqrt(across * across + down * down + 1e-8)
        angles = tf.range(self.num_directions, dtype=tf.float32) * (2 * math.pi / self.num_directions)
        cosines = (across * tf.cos(angles) + down * tf.sin(angles)) / length
        edges = self._pooled(length * tf.nn.relu(cosines) ** (self.num_directions / 2))
        energy = tf.norm(edges, axis=-1, keepdims=True)
        around = tf.nn.avg_pool2d(energy, 3, 1, "SAME")
        overall = tf.reduce_mean(energy, [1, 2], keepdims=True)
        mean = self._pooled(x)
        deviation = tf.sqrt(tf.nn.relu(self._pooled(x * x) - mean * mean) + 1e-4)
        parts = [edges / (around + _FLAT), edges / (overall + _FLAT), tf.math.log(energy + 0.01)]
        return tf.concat([*parts, 2 * mean - 1, 4 * deviation], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for `.keras` files."""
        return {**super().get_config(), "cell": self.cell, "num_directions": self.num_directions}

    def _pooled(self, maps: Any) -> Any:
        return tf.nn.avg_pool2d(maps, 2 * self.cell, self.cell, "SAME")


def _differences(x: Any) -> tuple[Any, Any]:
    """Central differences across and down, [batch, h, w, 1] each, of the channel whose gradient is longest."""
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    longest = tf.one_hot(tf.argmax(across * across + down * down, axis=-1), x.shape[-1])
    return tf.reduce_sum(across * longest, -1, keepdims=True), tf.reduce_sum(down * longest, -1, keepdims=True)
