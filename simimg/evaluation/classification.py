"""Predictions of a classifier for a split or for image files, and its figures on a split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.image_files import BATCH_SIZE, load_files
from simimg.input import Reader, eval_batches, reading
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.format.quarantine import Refusal

_BATCH_SIZE = 64
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
    progress: Callable[[int], None] = lambda num_examples: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a model's output for each example of a split, in the order of its shards.

    These are probabilities, float32 `[num_examples, num_classes]`, and labels, int32, and ids, int64 `[num_examples]`.
    `forward` computes probabilities from pixels, see `simimg.models.compiled`. `progress` is called with the number of
    examples since its last call.
    """
    parts = []
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples))):
        real = batch.id.numpy() >= 0
        parts.append((forward(batch.image).numpy()[real], batch.label.numpy()[real], batch.id.numpy()[real]))
        progress(int(real.sum()))
    probabilities, labels, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return probabilities, labels, ids


@dataclasses.dataclass(frozen=True)
class PredictedFiles:
    """Probabilities, float32 `[num_files, num_classes]`; the files in the same order; and the rejected files."""

    probabilities: np.ndarray
    paths: tuple[str, ...]
    refused: tuple[tuple[str, Refusal], ...]


def predict_files(
    forward: Callable[[tf.Tensor], tf.Tensor],
    paths: Sequence[str],
    options: ImageOptions,
    *,
    num_classes: int,
    progress: Callable[[int], None] = lambda num_files: None,
) -> PredictedFiles:
    """Returns a model's output for image files.

    `forward` computes probabilities from uint8 pixels, see `simimg.models.compiled`; `options` are those of the images
    that the model was trained on. `progress` is called with the number of files since its last call.
    """
    done: list[str] = []
    refused: list[tuple[str, Refusal]] = []
    parts: list[np.ndarray] = []

    def decoded() -> Iterator[tuple[str, Any]]:
        for path, loaded in load_files(paths, options):
            if isinstance(loaded, Refusal):
                refused.append((path, loaded))
                progress(1)
            else:
                yield path, loaded.pixels

    images = decoded()
    while batch := list(islice(images, BATCH_SIZE)):
        # Batches of one size, so that the model is compiled once.
        filled = np.zeros((BATCH_SIZE, options.image_size, options.image_size, 3), np.uint8)
        filled[: len(batch)] = [pixels for _, pixels in batch]
        parts.append(forward(tf.constant(filled)).numpy()[: len(batch)])
        done += [path for path, _ in batch]
        progress(len(batch))
    probabilities = np.concatenate(parts) if parts else np.zeros((0, num_classes), np.float32)
    return PredictedFiles(probabilities, tuple(done), tuple(refused))


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
