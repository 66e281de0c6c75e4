"""Predictions of a classifier for a split, and its figures there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.evaluation.calibration import Calibration, calibration, fit_temperature, scaled
from simimg.evaluation.label_figures import PrecisionRecall, precision_recall
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

    `top5_accuracy` is the share of images whose class is among the five most probable ones; None with five classes or
    fewer. `f1_per_class` is the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); None for a class that
    no image has and that was never predicted. `macro_f1` is the mean of the others.

    `calibration` compares the probabilities with the accuracy. `temperature` is the one that was fitted on the split
    validation, and `scaled_calibration` is the calibration with it; both are None without such a split, on that split
    itself, and where `fit_temperature` finds none. `curves` has the curve of precision and recall of each class that
    has images; it is empty unless details were asked for.
    """

    num_examples: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    mean_per_class: float
    per_class: dict[str, float | None]
    binary_accuracy: float
    confusion: list[list[int]]
    top5_accuracy: float | None
    macro_f1: float
    f1_per_class: dict[str, float | None]
    calibration: Calibration
    temperature: float | None = None
    scaled_calibration: Calibration | None = None
    curves: Mapping[str, PrecisionRecall] = dataclasses.field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as values for JSON, without the points of the curves."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("calibration", "scaled_calibration", "curves"):
            del values[name]
        scaled_error = self.scaled_calibration.error if self.scaled_calibration else None
        return {
            **values,
            "average_precision": {
                name: self.curves[name].average_precision if name in self.curves else None for name in self.per_class
            },
            "calibration_error": self.calibration.error,
            "scaled_calibration_error": scaled_error,
            "reliability": [dataclasses.asdict(found) for found in self.calibration.bins],
        }


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


def accuracies(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Computes the accuracy and the binary accuracy, see `Classification`, of what `classify` takes."""
    targets = np.eye(probabilities.shape[1], dtype=bool)[labels]
    return float((probabilities.argmax(axis=1) == labels).mean()), float(((probabilities > 0.5) == targets).mean())


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
    predicted_counts = confusion.sum(axis=0)
    f1_per_class = {
        name: float(2 * hit / (count + other)) if count + other else None
        for name, hit, count, other in zip(class_names, hits, counts, predicted_counts, strict=True)
    }
    accuracy, binary_accuracy = accuracies(probabilities, labels)
    return Classification(
        num_examples=len(labels),
        accuracy=accuracy,
        accuracy_ci95=wilson_interval(int((predicted == labels).sum()), len(labels)),
        mean_per_class=float(np.mean([value for value in per_class.values() if value is not None])),
        per_class=per_class,
        binary_accuracy=binary_accuracy,
        confusion=confusion.tolist(),
        top5_accuracy=_top_accuracy(probabilities, labels, 5) if num_classes > 5 else None,
        macro_f1=float(np.mean([value for value in f1_per_class.values() if value is not None])),
        f1_per_class=f1_per_class,
        calibration=calibration(probabilities, labels),
    )


def with_details(
    figures: Classification,
    probabilities: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
) -> Classification:
    """Returns the figures with the curves per class, and with the temperature that fits other images.

    Args:
        figures: those of `classify` for the same predictions.
        probabilities: `[num_examples, num_classes]`.
        labels: `[num_examples]`.
        validation: probabilities and labels of the split validation; None without one.
    """
    temperature = fit_temperature(*validation) if validation else None
    curves = {
        name: precision_recall(probabilities[:, label], labels == label)
        for label, name in enumerate(figures.per_class)
        if figures.per_class[name] is not None
    }
    return dataclasses.replace(
        figures,
        temperature=temperature,
        scaled_calibration=calibration(scaled(probabilities, temperature), labels) if temperature else None,
        curves=curves,
    )


def _top_accuracy(probabilities: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Returns the share of labels among the `count` most probable; of equal ones, the first is the more probable."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    ranks = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return float((ranks < count).mean())


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson, JASA 22, 1927), which stays valid near 0 and 1."""
    share = num_successes / num_trials
    square = _Z_95**2 / num_trials
    middle = (share + square / 2) / (1 + square)
    half = _Z_95 / (1 + square) * math.sqrt(share * (1 - share) / num_trials + square / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)
