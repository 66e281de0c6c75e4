"""How well a classifier does on photos it has not seen: predictions over a split, and the figures made of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from simimg.input import Reader, eval_batches, reading

__all__ = ["VIEWS", "Classification", "classify", "compiled", "predict", "views_of", "wilson_interval"]

VIEWS = ("one", "mirrored", "cropped")
"""What an answer is the mean of: the picture; it and its mirror image; both, and five crops of both."""

_CROP = 7 / 8  # of each side, at the corners and in the middle (Krizhevsky et al., NIPS 2012, section 4.1: 224 of 256)

_BATCH_SIZE = 64
_Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Figures of a classifier on a split.

    `accuracy` is the share of photos whose most probable class is right, `accuracy_ci95` its 95 % interval,
    `mean_per_class` the mean of the classes' own accuracies; a class without photos has None. `confusion[i][j]` counts
    photos of class i taken for class j. `binary_accuracy` is the share of all outputs that are on the right side of
    0.5, which Keras calls accuracy under a binary loss: with n classes, answering nothing gives 1 - 1/n.
    """

    num_examples: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    mean_per_class: float
    per_class: dict[str, float | None]
    binary_accuracy: float
    confusion: list[list[int]]


def compiled(model: keras.Model, *, views: str = "one") -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns `model` as a compiled function from uint8 pixels to its answers, float32, in inference mode.

    Compiling takes a second or more, so whoever predicts more than once keeps the function.

    Args:
        model: pixels 0..255 to probabilities.
        views: one of `VIEWS`.
    """

    def forward(images: tf.Tensor) -> tf.Tensor:
        answers = [model(view, training=False) for view in views_of(tf.cast(images, tf.float32), views)]
        return tf.add_n(answers) / len(answers)

    return tf.function(forward)


def views_of(pixels: tf.Tensor, views: str) -> Iterator[tf.Tensor]:
    """Yields what an answer is the mean of: the pictures, each mirrored, and five crops of 7/8 of each side of both.

    Args:
        pixels: float32 `[batch, size, size, 3]`; so is each of what is yielded: 1, 2 or 12.
        views: one of `VIEWS`.
    """
    yield pixels
    if views == "one":
        return
    yield tf.reverse(pixels, [2])
    if views == "mirrored":
        return
    first, size = tf.range(tf.shape(pixels)[0]), tf.shape(pixels)[1:3]
    left = 1 - _CROP
    for top, side in ((0.0, 0.0), (0.0, left), (left, 0.0), (left, left), (left / 2, left / 2)):
        box = tf.constant([[top, side, top + _CROP, side + _CROP]])  # the picture being from 0 to 1
        crop = tf.image.crop_and_resize(pixels, tf.repeat(box, tf.shape(first)[0], axis=0), first, size)
        crop.set_shape(pixels.shape)
        yield crop
        yield tf.reverse(crop, [2])


def predict(
    forward: Callable[[tf.Tensor], tf.Tensor],
    reader: Reader,
    *,
    progress: Callable[[int], None] = lambda num_examples: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a model's answer to each example of a split, in the order of its shards.

    Args:
        forward: pixels to probabilities, see `compiled`.
        reader: of the split.
        progress: called with the number of examples since the last call.

    Returns:
        Probabilities float32 `[num_examples, num_classes]`, labels int32 and ids int64 `[num_examples]`.
    """
    parts = []
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples))):
        real = batch.id.numpy() >= 0
        parts.append((forward(batch.image).numpy()[real], batch.label.numpy()[real], batch.id.numpy()[real]))
        progress(int(real.sum()))
    probabilities, labels, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return probabilities, labels, ids


def classify(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Classification:
    """Returns the figures of predictions.

    Args:
        probabilities: `[num_examples, num_classes]`.
        labels: `[num_examples]`, at least one.
        class_names: by label.
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
    """Returns the 95 % interval of a proportion (Wilson, JASA 22, 1927), which stays sensible near 0 and 1."""
    share = num_successes / num_trials
    square = _Z_95**2 / num_trials
    middle = (share + square / 2) / (1 + square)
    half = _Z_95 / (1 + square) * math.sqrt(share * (1 - share) / num_trials + square / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)
