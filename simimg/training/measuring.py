"""Figures of a split that is not trained on, and the weights of uneven classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simimg.evaluation.classify import classify, predict
from simimg.input import Reader
from simimg.training.metrics import example_losses

__all__ = ["balanced", "figures_of"]


def figures_of(loss: str, forward: Callable[[tf.Tensor], tf.Tensor], reader: Reader) -> dict[str, float]:
    """Returns mean loss, accuracy and binary accuracy of a model on a split.

    Args:
        loss: categorical or binary, without label smoothing.
        forward: pixels to probabilities.
        reader: of the split.
    """
    probabilities, labels, _ = predict(forward, reader)
    figures = classify(probabilities, labels, reader.split.class_names)
    losses = example_losses(loss, tf.constant(labels), tf.constant(probabilities), 0.0)
    return {
        "loss": float(tf.reduce_mean(losses)),
        "accuracy": figures.accuracy,
        "binary_accuracy": figures.binary_accuracy,
    }


def balanced(counts: np.ndarray) -> tf.Tensor:
    """Returns what an example of each class counts for all classes to count alike, float32 `[num_classes]`.

    Classes without examples count nothing; over all examples the mean is 1, so a learning rate means what it did.

    Args:
        counts: int64 `[num_classes]`, examples of each class.
    """
    there = counts > 0
    weights = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)
    return tf.constant(weights, tf.float32)
