"""Losses and figures: sums over the examples of a training step, figures of the measured splits, and class weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from simimg.evaluation import accuracies, multi_label_figures, predict, regression_figures, search_copies
from simimg.input import Reader
from simimg.models.heads import TARGETS
from simimg.models.model_folder import Objective
from simimg.training.train_config import TrainConfig

_ALIKE = 0.9  # mean norm: 0.08 for a trained Lite0 on a thousand images, 1 if all embeddings are the same
_NO_GAP = 0.01  # between cosines


def example_losses(kind: str, labels: tf.Tensor, probabilities: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns each example's cross-entropy, float32 `[batch]`.

    Args:
        kind: `categorical`: -log p of the class; `binary`: the mean over the outputs of their binary cross-entropies,
            which the tutorial minimizes.
        labels: int32 `[batch]`.
        probabilities: float32 `[batch, num_classes]`.
        label_smoothing: the share of the target spread over all classes (Szegedy et al., CVPR 2016, section 7).
    """
    targets = tf.one_hot(labels, probabilities.shape[1])
    loss = keras.losses.binary_crossentropy if kind == "binary" else keras.losses.categorical_crossentropy
    return loss(targets, probabilities, label_smoothing=label_smoothing)


def multi_label_losses(labels: tf.Tensor, probabilities: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Returns each example's mean binary cross-entropy over the classes, float32 `[batch]`.

    `labels` are float32 `[batch, num_classes]`, 0 or 1; `label_smoothing` is the share of the target that is 0.5.
    """
    return keras.losses.binary_crossentropy(labels, probabilities, label_smoothing=label_smoothing)


def regression_losses(targets: tf.Tensor, values: tf.Tensor, deviations: tf.Tensor) -> tf.Tensor:
    """Returns each example's mean squared error over the targets, float32 `[batch]`.

    Errors are in units of the targets' standard deviations, float32 `[num_targets]`, so that targets of different units
    count alike.
    """
    return tf.reduce_mean(tf.square((values - targets) / deviations), axis=1)


def deviations_of(model: keras.Model) -> tf.Tensor:
    """Returns the standard deviations that a network for numbers multiplies with, float32 `[num_targets]`."""
    return tf.constant(model.get_layer(TARGETS).scale, tf.float32)


def are_correct(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each example whose most probable class is its label, else 0: float32 `[batch]`."""
    # As int64: TensorFlow compares int32 on the host, which would wait for the GPU in each step.
    predicted = tf.argmax(probabilities, axis=1)
    return tf.cast(predicted == tf.cast(labels, tf.int64), tf.float32)


@dataclasses.dataclass
class EpochMetrics:
    """Sums over the examples of the epoch so far; `others` has the further figures of an objective, by key."""

    loss_sum: float = 0.0
    num_correct: float = 0.0
    num_examples: int = 0
    others: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean loss per example."""
        return self.loss_sum / max(self.num_examples, 1)

    @property
    def score(self) -> float:
        """Share of the examples that were correct in their step: the most probable class, or the nearest view; of the
        outputs that were, if images have several labels; or the mean absolute error.
        """
        return self.num_correct / max(self.num_examples, 1)

    def line(self, objective: Objective) -> dict[str, float]:
        """Returns the means per example, by the keys of a history."""
        others = {name: value / max(self.num_examples, 1) for name, value in self.others.items()}
        return {"loss": self.loss, objective.step_score: self.score, **others}


def figures_of(
    config: TrainConfig,
    forward: Callable[[tf.Tensor], tf.Tensor],
    reader: Reader,
    num_devices: int = 1,
    deviations: tf.Tensor | None = None,
) -> dict[str, float]:
    """Measures a split: mean loss, and accuracy and binary accuracy of a classifier, or mean average precision, or
    errors, or the figures of a copy search.

    `forward` is a function from pixels to probabilities, or to unit vectors, which divides a batch among `num_devices`.
    The loss has no label smoothing. `deviations` are those of `regression_losses`.
    """
    if config.objective == "similarity":
        seed, temperature = config.seed, config.temperature
        search = search_copies(
            forward, reader, config.augmentation, seed=seed, temperature=temperature, num_devices=num_devices
        )
        keys = ("loss", "recall", *config.objective_info.others)
        return {name: getattr(search.figures, name) for name in keys}
    probabilities, labels, _ = predict(forward, reader, num_devices=num_devices)
    names = reader.split.class_names
    if config.objective == "multilabel":
        precision = multi_label_figures(probabilities, labels, names)
        losses = multi_label_losses(tf.constant(labels, tf.float32), tf.constant(probabilities), 0.0)
        return {
            "loss": float(tf.reduce_mean(losses)),
            "mean_average_precision": precision.mean_average_precision,
            "binary_accuracy": precision.binary_accuracy,
        }
    if config.objective == "regression":
        assert deviations is not None
        errors = regression_figures(probabilities, labels, names)
        losses = regression_losses(tf.constant(labels), tf.constant(probabilities), deviations)
        return {
            "loss": float(tf.reduce_mean(losses)),
            "mean_absolute_error": errors.mean_absolute_error,
            "root_mean_squared_error": errors.root_mean_squared_error,
        }
    accuracy, binary_accuracy = accuracies(probabilities, labels)
    losses = example_losses(config.loss, tf.constant(labels), tf.constant(probabilities), 0.0)
    return {"loss": float(tf.reduce_mean(losses)), "accuracy": accuracy, "binary_accuracy": binary_accuracy}


def collapse(line: dict[str, float]) -> str:
    """Returns a warning if an epoch's entry of the history shows that all embeddings become the same, else "".

    Figures of a measured split are preferred, because they are from the end of the epoch, while those of the training
    are means over the epoch.
    """
    prefix = next((p for p in ("validation_", "test_", "") if f"{p}mean_norm" in line), None)
    if prefix is None:
        return ""
    norm, copy, nearest = (line[f"{prefix}{key}"] for key in ("mean_norm", "copy_similarity", "nearest_similarity"))
    if norm <= _ALIKE and copy - nearest >= _NO_GAP:
        return ""
    return (
        f"embeddings are collapsing: a copy's similarity to its original is {copy:.3f}, to the nearest other image "
        f"{nearest:.3f}, and the mean embedding has the length {norm:.3f} (1: all are the same). If this continues, "
        "try a larger --entropy_weight, a smaller --learning_rate, or milder augmentation."
    )


def balanced(counts: np.ndarray) -> tf.Tensor:
    """Returns the weight of an example of each class that gives all classes equal weight, float32 `[num_classes]`.

    `counts` are the examples per class, or how often they come, `[num_classes]`. Classes without examples have the
    weight 0. The mean over all examples is 1, so learning rates stay valid.
    """
    there = counts > 0
    weights = np.where(there, counts.sum() / (there.sum() * np.where(there, counts, 1)), 0.0)
    return tf.constant(weights, tf.float32)
