"""Predictions of a classifier for a split, and its figures there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simimg.input import Reader, eval_batches, reading

_BATCH_SIZE = 64  # per device
_Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Figures of a classifier on a split.

    `accuracy` is the share of images whose most probable class is correct, and `accuracy_ci95` its 95 % interval.
    `mean_per_class` is the mean of the accuracies per class; a class without images has None. `confusion[i][j]` is the
    number of images of class i that were classified as class j. `binary_accuracy` is the share of all outputs on the
    correct side of 0.5, which Keras calls accuracy under a binary loss. With n classes, outputs of 0 give 1 - 1/n.
    """

    num_examples: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    mean_per_class: float
    per_class: dict[str, float | None]
    binary_accuracy: float
    confusion: list[list[int]]


def predict(
    forward: Callable[[tf.Tensor], tf.Tensor],
    reader: Reader,
    *,
    num_devices: int = 1,
    progress: Callable[[int], None] = lambda num_examples: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a model's output for each example of a split, in the order of its shards.

    These are probabilities, float32 `[num_examples, num_classes]`, labels as in a Batch, and ids, int64
    `[num_examples]`.
    `forward` computes probabilities from pixels, see `simimg.models.compiled`; it divides a batch among `num_devices`.
    Each device gets the batches that one device would get, and computes the same. `progress` is called with the number
    of examples since its last call.
    """
    parts = []
    for batch in reading(reader.split, eval_batches(reader, num_devices * min(_BATCH_SIZE, reader.split.num_examples))):
        real = batch.id.numpy() >= 0
        parts.append((forward(batch.image).numpy()[real], batch.label.numpy()[real], batch.id.numpy()[real]))
        progress(int(real.sum()))
    probabilities, labels, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return probabilities, labels, ids


def classify(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Classification:
    """Computes the figures of predictions: probabilities `[num_examples, num_classes]` and labels `[num_examples]`.

    There is at least one example. `class_names` has the names of the classes by label.
    """
    num_classes = len(class_names)
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts, hits = confusion.sum(axis=1), confusion.diagonal()
    per_class = {
        name: float(hit / count) if count else None for name, hit, count in zip(class_names, hits, counts, strict=True)
    }
    targets = np.eye(num_classes, dtype=bool)[labels]
    return Classification(
        num_examples=len(labels),
        accuracy=float((predicted == labels).mean()),
        accuracy_ci95=wilson_interval(int((predicted == labels).sum()), len(labels)),
        mean_per_class=float(np.mean([value for value in per_class.values() if value is not None])),
        per_class=per_class,
        binary_accuracy=float(((probabilities > 0.5) == targets).mean()),
        confusion=confusion.tolist(),
    )


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson, JASA 22, 1927), which stays valid near 0 and 1."""
    share = num_successes / num_trials
    square = _Z_95**2 / num_trials
    middle = (share + square / 2) / (1 + square)
    half = _Z_95 / (1 + square) * math.sqrt(share * (1 - share) / num_trials + square / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)
