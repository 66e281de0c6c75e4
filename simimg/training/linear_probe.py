"""Linear probe, the first stage of fine-tuning: fits the softmax on the features of an unchanged pretrained network.

A randomly initialized softmax sends gradients through the network that are unrelated to its features and distort them
(Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022). So the
network first computes the features of each image and its mirror image, and of their crops if predictions will be
averaged over crops. The softmax becomes the logistic regression on these features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf

from simimg.input import PADDING_ID, Reader, eval_batches, reading
from simimg.models.heads import PROBABILITIES
from simimg.models.saved_model import views_of

_BATCH_SIZE = 32
_MOST_FEATURES = 40_000  # 200 MB; more features change the regression little
_L2 = 1e-5
"""Weight of the L2 penalty relative to the mean loss, for features of length 1. It equals scikit-learn's C = 100 for a
thousand examples. In cross-validation on the training images of docs/evaluation.md, the validation loss for C = 1, 10,
100, 1,000 and 10,000 was 0.208, 0.086, 0.057, 0.057 and 0.077."""

_MOST_STEPS = 300


class Fitted(NamedTuple):
    """Figures of a fit on the views it was fitted to: mean loss, accuracy, and the number of views."""

    loss: float
    accuracy: float
    num_views: int


def probe(model: keras.Model, reader: Reader, *, views: str = "mirrored", label_smoothing: float = 0.0) -> Fitted:
    """Fits the layer "probabilities" of `model`, a Dense on features, to the examples of `reader`.

    `views` are the views of each example, one of `simimg.models.VIEWS`; the mirror image is always among them.
    """
    softmax, forward = model.get_layer(PROBABILITIES), features_of(model)
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


def features_of(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the input of the layer "probabilities" as a compiled function of pixels, float32, in inference mode."""
    network = keras.Model(model.input, model.get_layer(PROBABILITIES).input)
    forward: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda images: network(images, training=False), reduce_retracing=True
    )
    return forward


def fit_softmax(
    features: np.ndarray, labels: np.ndarray, num_classes: int, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel `[dim, num_classes]` and bias `[num_classes]` of a logistic regression with a small L2 penalty.

    L-BFGS minimizes the convex loss with all examples at once. The labels are smoothed as in the training that follows.
    Otherwise the softmax would be more confident than that loss allows, and the training would start by blurring the
    network's features.

    Args:
        features: float32 `[num_examples, dim]`, of any length.
        labels: int32 `[num_examples]`, below `num_classes`.
        num_classes: number of classes.
        label_smoothing: the share of each label that is spread evenly over all classes.
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
