"""The two ends that the models share, and the embedder: pixels in, probabilities or unit vectors out."""

from __future__ import annotations

from typing import Any

import keras

from simimg.errors import ModelError, UsageError
from simimg.models.pooling import GeneralizedMeanPooling2D

EMBEDDING = "embedding"
"""Name of the layer whose output is a model's embedding, before it is normalised."""

PROBABILITIES = "probabilities"
"""Name of a classifier's output layer."""


_LENGTH = 16.0
"""About that of EfficientNet-Lite's features as they are, so that learning rates mean what they did."""


def embedder(model: keras.Model) -> keras.Model:
    """The part of a model that similarity search runs: pixels to unit vectors. It shares the model's weights.

    Args:
        model: a model with a layer named "embedding" whose output is [batch, dim].

    Returns:
        A model from [batch, image_size, image_size, 3] pixels 0..255 (uint8 or float, as the model takes
        them) to float32 [batch, dim] of L2 norm 1: the inner product of two rows is their cosine similarity.
        An embedding that is all zero stays zero, and is similar to nothing. Runs without dropout and with
        fixed statistics.

    Raises:
        ModelError: the model has no such layer.
    """
    embedding = embedding_layer(model).output
    if len(embedding.shape) != 2:
        raise ModelError(f"the layer {EMBEDDING!r} should give [batch, dim]. Received: {tuple(embedding.shape)}")
    return _normalized(model, embedding)


def search_embedder(model: keras.Model) -> keras.Model:
    """What similarity search indexes: as `embedder`, but a network that averages its last map is pooled anew.

    The average forgets what is small; the generalised mean of the same map finds 1.3 points more edited copies. A
    network whose embedding is no average of a map, as one that was trained for search, is taken as it is.

    Raises:
        ModelError: the model has no layer named "embedding".
    """
    layer = embedding_layer(model)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return _normalized(model, GeneralizedMeanPooling2D(name="generalized_mean")(layer.input))
    return embedder(model)


def embedding_layer(model: keras.Model) -> Any:
    """The layer "embedding" of a model.

    Raises:
        ModelError: it has none.
    """
    names = [layer.name for layer in model.layers]
    if EMBEDDING not in names:
        raise ModelError(
            f"a model for similarity search needs a layer named {EMBEDDING!r}. "
            f"Received: the model {model.name!r} with the layers {', '.join(names[-5:])} (the last ones)"
        )
    return model.get_layer(EMBEDDING)


def _normalized(model: keras.Model, embedding: Any) -> keras.Model:
    unit = keras.layers.UnitNormalization(dtype="float32", name="unit_embedding")(embedding)
    return keras.Model(model.input, unit, name=f"{model.name}_embedder")


def image_input(image_size: int, *, smallest: int) -> Any:
    """A model's input: float32 [batch, image_size, image_size, 3]; Keras casts what it is given, uint8 too.

    Raises:
        UsageError: `image_size` is below the `smallest` that the model's strides and pools leave a pixel of.
    """
    if image_size < smallest:
        raise UsageError(f"image_size should be at least {smallest} for this model. Received: image_size={image_size}")
    return keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")


def scaled(pixels: Any, *, middle: float, reach: float) -> Any:
    """(pixels - middle) / reach, in float32 under mixed precision too: augmented pixels are fractions."""
    return keras.layers.Rescaling(1 / reach, -middle / reach, dtype="float32", name="scaled_pixels")(pixels)


def unit(features: Any, *, prefix: str = "") -> Any:
    """[batch, dim] features brought to one length, float32: what is then learned of them is a matter of direction only.

    Logistic regression on features of EfficientNet-Lite is right more often so: photos differ in contrast and in how
    much of them is the thing, which changes the length and not the class.
    """
    x = keras.layers.UnitNormalization(dtype="float32", name=f"{prefix}unit")(features)
    return keras.layers.Rescaling(_LENGTH, dtype="float32", name=f"{prefix}unit_scaled")(x)


def probabilities(features: Any, num_classes: int) -> Any:
    """Softmax over the classes: float32 [batch, num_classes], in float32 under mixed precision too.

    Under bfloat16 a probability near 1 has steps of 1/256, too coarse for a loss; Keras's mixed precision
    guide asks for a float32 softmax for that reason.

    Raises:
        UsageError: fewer than two classes.
    """
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes. Received: num_classes={num_classes}")
    return keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name=PROBABILITIES)(features)
