"""Figures of models whose images have several labels, or numbers as labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelFigures:
    """Figures of a model that gives each image a probability per class.

    `per_class` has the average precision of each class, None if no image has it, and `mean_average_precision` is their
    mean. `num_images` counts the images of each class. `binary_accuracy` is the share of all outputs on the correct
    side of 0.5.
    """

    num_examples: int
    mean_average_precision: float
    per_class: dict[str, float | None]
    num_images: dict[str, int]
    binary_accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionFigures:
    """Figures of a model that gives each image one or more numbers, in the units of the targets.

    `mean_absolute_error` and `root_mean_squared_error` are over all targets, and `per_target` has the mean absolute
    error of each. `guess_error` is the mean absolute error of answering the median of the split for each target.
    """

    num_examples: int
    mean_absolute_error: float
    root_mean_squared_error: float
    guess_error: float
    per_target: dict[str, float]


def multi_label_figures(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> MultiLabelFigures:
    """Computes the figures of predictions.

    Args:
        probabilities: float32 `[num_examples, num_classes]`.
        labels: uint8 of the same shape, 1 for each class of an image.
        class_names: by column.
    """
    per_class = {
        name: average_precision(probabilities[:, column], labels[:, column] > 0)
        for column, name in enumerate(class_names)
    }
    known = [value for value in per_class.values() if value is not None]
    return MultiLabelFigures(
        num_examples=len(labels),
        mean_average_precision=float(np.mean(known)) if known else 0.0,
        per_class=per_class,
        num_images=dict(zip(class_names, labels.sum(axis=0, dtype=np.int64).tolist(), strict=True)),
        binary_accuracy=float(((probabilities > 0.5) == (labels > 0)).mean()),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """The curve of a ranking: recall and precision, float64 `[n]` each, at the thresholds where the recall rises."""

    recall: np.ndarray
    precision: np.ndarray

    @property
    def average_precision(self) -> float:
        """The sum over all thresholds of the precision there, times the rise of the recall.

        This is the definition of Zhu, "Recall, Precision and Average Precision" (2004), and of scikit-learn.
        """
        return float((self.precision * np.diff(self.recall, prepend=0)).sum())


def precision_recall(scores: np.ndarray, wanted: np.ndarray) -> PrecisionRecall:
    """Returns the curve of a ranking by `scores`, float `[n]`, of which some are `wanted`, bool `[n]`, at least one.

    Examples with equal scores are found together.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(wanted[order])
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of equal scores
    last = last[np.diff(found[last], prepend=0) > 0]  # with many classes, most thresholds find nothing more
    return PrecisionRecall(recall=found[last] / int(wanted.sum()), precision=found[last] / (last + 1))


def average_precision(scores: np.ndarray, wanted: np.ndarray) -> float | None:
    """Returns the average precision of a ranking, see `precision_recall`; None if nothing is wanted."""
    return precision_recall(scores, wanted).average_precision if wanted.any() else None


def regression_figures(values: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> RegressionFigures:
    """Computes the figures of predictions: values and targets, float32 `[num_examples, num_targets]`."""
    errors = values.astype(np.float64) - targets
    guesses = np.abs(targets - np.median(targets, axis=0))
    return RegressionFigures(
        num_examples=len(targets),
        mean_absolute_error=float(np.abs(errors).mean()),
        root_mean_squared_error=float(np.sqrt((errors**2).mean())),
        guess_error=float(guesses.mean()),
        per_target=dict(zip(names, np.abs(errors).mean(axis=0).tolist(), strict=True)),
    )
