"""The first stage of fine-tuning: a pretrained network is left alone, and the softmax on top of it fitted.

A softmax that starts at random sends gradients through the network that have nothing to do with what it knows, and
spoil it (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022).
So each photo is seen once by the network as it came, with its mirror image and, if answers will be the mean over crops,
in those, and the softmax becomes the logistic regression on what it saw.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf

from simimg.evaluation.classification import views_of
from simimg.input import PADDING_ID, Reader, eval_batches, reading
from simimg.models import PROBABILITIES

__all__ = ["Fitted", "fit_softmax", "probe"]

_BATCH_SIZE = 32
_MOST_FEATURES = 40_000  # they take 200 MB; more of them change the regression little
_L2 = 1e-5
"""A weight beside the mean loss of features of length 1: scikit-learn's C = 100 for a thousand examples. In
cross-validation on training photos of docs/evaluation.md, C = 1, 10, 100, 1,000 and 10,000 gave the ones left out a
loss of 0.208, 0.086, 0.057, 0.057 and 0.077."""

_MOST_STEPS = 300


class Fitted(NamedTuple):
    """What fitting a softmax gave: the mean loss of what it was fitted to, the share that is right, and its number."""

    loss: float
    accuracy: float
    num_views: int


def probe(model: keras.Model, reader: Reader, *, views: str = "mirrored", label_smoothing: float = 0.0) -> Fitted:
    """Fits the softmax of `model` to the examples of `reader`.

    Args:
        model: with a layer "probabilities", a Dense on features; its other layers stay as they are.
        reader: of the training split.
        views: in which each example is seen, one of `simimg.evaluation.classification.VIEWS`; its mirror image always
            is.
        label_smoothing: see `fit_softmax`.
    """
    softmax = model.get_layer(PROBABILITIES)
    features_of = keras.Model(model.input, softmax.input)
    forward = tf.function(lambda images: features_of(images, training=False), reduce_retracing=True)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    num_features = 0
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples))):
        there = batch.id.numpy() != PADDING_ID
        for view in views_of(tf.cast(batch.image, tf.float32), "mirrored" if views == "one" else views):
            features.append(forward(view).numpy()[there])
            labels.append(batch.label.numpy()[there])
            num_features += int(there.sum())
        if num_features >= _MOST_FEATURES:
            break
    x, y = np.concatenate(features), np.concatenate(labels)
    kernel, bias = fit_softmax(x, y, len(reader.split.class_names), label_smoothing)
    softmax.kernel.assign(kernel)
    softmax.bias.assign(bias)
    logits = x @ kernel + bias
    losses = scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return Fitted(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), num_features)


def fit_softmax(
    features: np.ndarray, labels: np.ndarray, num_classes: int, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel `[dim, num_classes]` and bias `[num_classes]` of a logistic regression with a little decay.

    The loss is convex; L-BFGS goes down it with all examples at once. It is smoothed as the training's that follows:
    a softmax that is surer than that wants would first of all have the network blur its features.

    Args:
        features: float32 `[num_examples, dim]`, of any length.
        labels: int32 `[num_examples]`.
        num_classes: more than any label.
        label_smoothing: the share of each label that is dealt out evenly among all classes.
    """
    num_examples, dim = features.shape
    length = float(np.sqrt(np.square(features).sum(axis=1).mean())) or 1.0
    x = features / length
    y = (1 - label_smoothing) * np.eye(num_classes, dtype=np.float32)[labels] + label_smoothing / num_classes
    y = y.astype(np.float32)

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = _split(weights.astype(np.float32), num_classes)
        logits = x @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(sums[:, 0]) - (logits * y).sum(axis=1)
        towards = (exponentials / sums - y) / num_examples
        loss = losses.mean(dtype=np.float64) + _L2 / 2 * np.square(kernel).sum(dtype=np.float64)
        gradient = np.concatenate([(x.T @ towards + _L2 * kernel).ravel(), towards.sum(axis=0)])
        return float(loss), gradient.astype(np.float64)

    start = np.zeros((dim + 1) * num_classes)
    found = scipy.optimize.minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS, "gtol": 1e-6}
    )
    kernel, bias = _split(found.x.astype(np.float32), num_classes)
    return kernel / length, bias


def _split(weights: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    return weights[:-num_classes].reshape(-1, num_classes), weights[-num_classes:]
