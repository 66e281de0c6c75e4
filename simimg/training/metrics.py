"""The losses and counts of a training step, as sums over examples, so that replicas and batches add up."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from simimg.training.objectives import Objective

__all__ = ["EpochMetrics", "example_losses", "num_correct"]


def example_losses(kind: str, labels: tf.Tensor, probabilities: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns each example's cross-entropy, float32 `[batch]`.

    Args:
        kind: `categorical`: -log p of the class; `binary`: the mean over the outputs of each one's own cross-entropy,
            which is what the tutorial minimises.
        labels: int32 `[batch]`.
        probabilities: float32 `[batch, num_classes]`.
        label_smoothing: the share of the target spread over all classes (Szegedy et al., CVPR 2016, section 7).
    """
    targets = tf.one_hot(labels, probabilities.shape[1])
    if kind == "binary":
        return keras.losses.binary_crossentropy(targets, probabilities, label_smoothing=label_smoothing)
    return keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=label_smoothing)


def num_correct(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Returns how many examples' most probable class is their label, float32 scalar."""
    predicted = tf.argmax(probabilities, axis=1, output_type=labels.dtype)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.float32))


@dataclasses.dataclass
class EpochMetrics:
    """Sums over the examples of the epoch so far; `others` are an objective's own, by their keys."""

    loss_sum: float = 0.0
    num_correct: float = 0.0
    num_examples: int = 0
    others: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean loss an example."""
        return self.loss_sum / max(self.num_examples, 1)

    @property
    def score(self) -> float:
        """Share of the examples that were right at the time: the class most probable, or the view nearest."""
        return self.num_correct / max(self.num_examples, 1)

    def line(self, objective: Objective) -> dict[str, float]:
        """Returns the means an example, by the keys of a history."""
        others = {name: value / max(self.num_examples, 1) for name, value in self.others.items()}
        return {"loss": self.loss, objective.score: self.score, **others}
