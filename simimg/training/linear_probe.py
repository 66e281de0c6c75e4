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
import scipy.special
import tensorflow as tf

from simimg.input import PADDING_ID, Reader, eval_batches, reading
from simimg.models.heads import PROBABILITIES
from simimg.models.saved_model import num_devices, outputs_of, views_of
from simimg.softmax_regression import fit_softmax

_BATCH_SIZE = 32  # per device
_MOST_FEATURES = 40_000  # 200 MB; more features change the regression little


class Fitted(NamedTuple):
    """Figures of a fit on the views it was fitted to: mean loss, accuracy, and the number of views."""

    loss: float
    accuracy: float
    num_views: int


def probe(
    model: keras.Model,
    reader: Reader,
    *,
    views: str = "mirrored",
    label_smoothing: float = 0.0,
    strategy: tf.distribute.Strategy | None = None,
) -> Fitted:
    """Fits the layer "probabilities" of `model`, a Dense on features, to the examples of `reader`.

    `views` are the views of each example, one of `simimg.models.VIEWS`; the mirror image is always among them. All
    devices of this process compute features if the model was built in the scope of the `strategy`. Each of them gets
    the batches that one device would get, so the result is the same.
    """
    softmax, forward = model.get_layer(PROBABILITIES), features_of(model, strategy)
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    num_features, size = 0, min(_BATCH_SIZE, reader.split.num_examples)
    count = num_devices(strategy) if strategy is not None else 1
    for batch in reading(reader.split, eval_batches(reader, count * size)):
        there = batch.id.numpy() != PADDING_ID
        shown = views_of(tf.cast(batch.image, tf.float32), "mirrored" if views == "one" else views)
        outputs = [forward(view).numpy() for view in shown]
        for first in range(0, count * size, size):  # in the order of one device
            if num_features >= _MOST_FEATURES:
                break
            rows = first + np.flatnonzero(there[first : first + size])
            features += [output[rows] for output in outputs]
            labels += [batch.label.numpy()[rows]] * len(outputs)
            num_features += len(rows) * len(outputs)
        if num_features >= _MOST_FEATURES:
            break
    x, y = np.concatenate(features), np.concatenate(labels)
    kernel, bias = fit_softmax(x, y, len(reader.split.class_names), label_smoothing)
    softmax.kernel.assign(kernel)
    softmax.bias.assign(bias)
    logits = x @ kernel + bias
    losses = scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return Fitted(float(losses.mean()), float((logits.argmax(axis=1) == y).mean()), num_features)


def features_of(model: keras.Model, strategy: tf.distribute.Strategy | None = None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the input of the layer "probabilities" as a compiled function of pixels, float32, in inference mode.

    For the `strategy`, see `simimg.models.saved_model.compiled`.
    """
    return outputs_of(keras.Model(model.input, model.get_layer(PROBABILITIES).input), strategy)
