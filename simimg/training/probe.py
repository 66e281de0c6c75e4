"""The first stage of fine-tuning: a pretrained network is left alone, and the softmax on top of it fitted.

A softmax that starts at random sends gradients through the network that have nothing to do with what it knows, and
spoil it (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022).
So each photo, and its mirror image, is seen once by the network as it came, and the softmax becomes the logistic
regression on what it saw.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from simimg.input import PADDING_ID, Reader, eval_batches, reading
from simimg.models import PROBABILITIES

__all__ = ["fit_softmax", "probe"]

_BATCH_SIZE = 32
_MOST_EXAMPLES = 20_000  # their features take 200 MB; more of them change the regression little
_L2 = 1e-4  # a weight, beside the mean loss of features of length 1: scikit-learn's C = 10 for a thousand examples
_NUM_STEPS, _RATE = 600, 0.2


def probe(model: keras.Model, reader: Reader) -> float:
    """Fits the softmax of `model` to the examples of `reader`, and returns the share of them that it gets right.

    Args:
        model: with a layer "probabilities", a Dense on features; its other layers stay as they are.
        reader: of the training split.
    """
    softmax = model.get_layer(PROBABILITIES)
    features_of = keras.Model(model.input, softmax.input)
    forward = tf.function(lambda images: features_of(images, training=False), reduce_retracing=True)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    num_examples = 0
    for batch in reading(reader.split, eval_batches(reader, min(_BATCH_SIZE, reader.split.num_examples))):
        there = batch.id.numpy() != PADDING_ID
        pixels = tf.cast(batch.image, tf.float32)
        for view in (pixels, tf.reverse(pixels, [2])):
            features.append(forward(view).numpy()[there])
            labels.append(batch.label.numpy()[there])
        num_examples += int(there.sum())
        if num_examples >= _MOST_EXAMPLES:
            break
    x, y = np.concatenate(features), np.concatenate(labels)
    kernel, bias = fit_softmax(x, y, len(reader.split.class_names))
    softmax.kernel.assign(kernel)
    softmax.bias.assign(bias)
    return float(((x @ kernel + bias).argmax(axis=1) == y).mean())


def fit_softmax(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel `[dim, num_classes]` and bias `[num_classes]` of a logistic regression with a little decay.

    The loss is convex, so all examples at once and Adam come to its one minimum from anywhere.

    Args:
        features: float32 `[num_examples, dim]`, of any length.
        labels: int32 `[num_examples]`.
        num_classes: more than any label.
    """
    length = float(np.sqrt(np.square(features).sum(axis=1).mean())) or 1.0
    x, y = tf.constant(features / length), tf.one_hot(labels, num_classes)
    weights = [tf.Variable(tf.zeros([features.shape[1], num_classes])), tf.Variable(tf.zeros([num_classes]))]
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, _NUM_STEPS))
    kernel, bias = weights

    @tf.function
    def fit() -> None:
        for _ in tf.range(_NUM_STEPS):
            with tf.GradientTape() as tape:
                losses = tf.nn.softmax_cross_entropy_with_logits(y, tf.matmul(x, kernel) + bias)
                loss = tf.reduce_mean(losses) + _L2 / 2 * tf.reduce_sum(tf.square(kernel))
            optimizer.apply(tape.gradient(loss, weights), weights)

    optimizer.build(weights)
    fit()
    return kernel.numpy() / length, bias.numpy()
