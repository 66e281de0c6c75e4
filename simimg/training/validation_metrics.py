"""Figures of a split that is not trained on, and the weights of uneven classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simimg.evaluation.classification import classify, predict
from simimg.evaluation.copy_recall import search_copies
from simimg.input import Reader
from simimg.training.metrics import example_losses
from simimg.training.train_config import TrainConfig

__all__ = ["balanced", "collapse", "figures_of"]

_ALIKE = 0.9  # mean norm: 0.08 of a trained Lite0 on a thousand photos, 1 where all embeddings are the same
_NO_GAP = 0.01  # of cosines


def figures_of(config: TrainConfig, forward: Callable[[tf.Tensor], tf.Tensor], reader: Reader) -> dict[str, float]:
    """Returns mean loss, accuracy and binary accuracy of a classifier on a split, or how well copies are found in it.

    Args:
        config: of the run. The loss is measured without label smoothing.
        forward: pixels to probabilities, or to unit vectors.
        reader: of the split.
    """
    if config.objective == "similarity":
        search = search_copies(
            forward, reader, config.augment_config(), seed=config.seed, temperature=config.temperature
        )
        names = ("loss", "recall", "copy_similarity", "nearest_similarity", "mean_norm")
        return {name: getattr(search.figures, name) for name in names}
    probabilities, labels, _ = predict(forward, reader)
    figures = classify(probabilities, labels, reader.split.class_names)
    losses = example_losses(config.loss, tf.constant(labels), tf.constant(probabilities), 0.0)
    return {
        "loss": float(tf.reduce_mean(losses)),
        "accuracy": figures.accuracy,
        "binary_accuracy": figures.binary_accuracy,
    }


def collapse(line: dict[str, float]) -> str:
    """Returns a sentence if the figures of an epoch say that all embeddings become the same, else nothing.

    Args:
        line: of the history. The figures of a split that is not trained on are believed first: they are of the epoch's
            end, those of the training of its whole length.
    """
    prefix = next((p for p in ("validation_", "test_", "") if f"{p}mean_norm" in line), None)
    if prefix is None:
        return ""
    norm, copy, nearest = (line[f"{prefix}{key}"] for key in ("mean_norm", "copy_similarity", "nearest_similarity"))
    if norm <= _ALIKE and copy - nearest >= _NO_GAP:
        return ""
    return (
        f"embeddings are collapsing: a copy's similarity to its original is {copy:.3f}, to the nearest other photo "
        f"{nearest:.3f}, and the mean embedding has the length {norm:.3f} (1: all are the same). If it stays so, try a "
        "larger --entropy_weight, a smaller --learning_rate, or milder augmentation."
    )


def balanced(counts: np.ndarray) -> tf.Tensor:
    """Returns what an example of each class counts for all classes to count alike, float32 `[num_classes]`.

    Classes without examples count nothing; over all examples the mean is 1, so a learning rate means what it did.

    Args:
        counts: int64 `[num_classes]`, examples of each class.
    """
    there = counts > 0
    weights = np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)
    return tf.constant(weights, tf.float32)
