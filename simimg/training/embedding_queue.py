"""The embeddings of past steps, first in, first out: part of a run's state, so a run that goes on has the same ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from simimg.input import PADDING_ID

__all__ = ["EmbeddingQueue"]


@dataclasses.dataclass(frozen=True)
class EmbeddingQueue:
    """The newest embeddings, float32 `[size, dim]`, and the ids of their pictures, int64 `[size]`; padding at first."""

    embeddings: Any
    ids: Any

    @classmethod
    def empty(cls, size: int, dim: int) -> EmbeddingQueue:
        """Returns one of `size`, to be made in the scope of the strategy that trains."""
        # Every replica pushes the same, so any of them may say what it becomes.
        common = {"trainable": False, "aggregation": "only_first_replica"}
        return cls(
            keras.Variable(tf.zeros([size, dim]), dtype="float32", name="past_embeddings", **common),
            keras.Variable(
                tf.fill([size], tf.constant(PADDING_ID, tf.int64)), dtype="int64", name="past_ids", **common
            ),
        )

    @property
    def variables(self) -> list[Any]:
        """Both."""
        return [self.embeddings, self.ids]

    def push(self, embeddings: tf.Tensor, ids: tf.Tensor) -> None:
        """Puts a step's in front, and lets as many of the oldest go."""
        for variable, new in ((self.embeddings, embeddings), (self.ids, ids)):
            both = tf.concat([new, tf.convert_to_tensor(variable)], axis=0)
            variable.assign(both[: variable.shape[0]])
