"""Oriented gradients as a fixed layer, for networks that are trained on too few images to learn such features."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

FLAT = 0.02
"""Added to the divisor of gradients, so that flat regions stay near 0; for square roots of intensities 0..1."""


@keras.saving.register_keras_serializable(package="simimg")
class OrientedGradients(keras.layers.Layer):
    """The positions and directions of edges, and the colors around them, with no weights to train.

    Differentiable histograms of oriented gradients (Dalal and Triggs, CVPR 2005) for any image size, computed as
    follows. Take the square roots of the intensities, and central differences of the channel with the longest gradient.
    Distribute each gradient among directions over the full circle by relu(cos(angle between))^(directions / 2), a
    smooth bin about as wide as the distance of two directions. Average over windows of twice the cell, so that
    neighbors overlap by half. Divide once by the energy of the surrounding 3 x 3 cells, for edges that stand out
    locally, and once by the energy of the whole image, for edges that stand out globally. The output also has the
    logarithm of the cell's energy, and the mean and standard deviation of each channel.

    Input [batch, h, w, 3] pixels 0..255. Output float32 [batch, ceil(h / cell), ceil(w / cell),
    2 * num_directions + 7]; computed in float32 under mixed precision too.

    Args:
        cell: distance of the windows in pixels.
        num_directions: directions over the full circle, so dark-to-bright and bright-to-dark edges differ.
    """

    def __init__(self, cell: int = 4, num_directions: int = 16, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.cell = cell
        self.num_directions = num_directions

    def call(self, inputs: Any) -> Any:
        """Returns the maps that the class describes."""
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
        parts = [edges / (around + FLAT), edges / (overall + FLAT), tf.math.log(energy + 0.01)]
        return tf.concat([*parts, 2 * mean - 1, 4 * deviation], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, for `.keras` files."""
        return {**super().get_config(), "cell": self.cell, "num_directions": self.num_directions}

    def _pooled(self, maps: Any) -> Any:
        return tf.nn.avg_pool2d(maps, 2 * self.cell, self.cell, "SAME")


def _differences(x: Any) -> tuple[Any, Any]:
    """Central differences in x and y, [batch, h, w, 1] each, of the channel with the longest gradient."""
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    longest = tf.one_hot(tf.argmax(across * across + down * down, axis=-1), x.shape[-1])
    return tf.reduce_sum(across * longest, -1, keepdims=True), tf.reduce_sum(down * longest, -1, keepdims=True)
