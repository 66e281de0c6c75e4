"""The network that is trained for copies: a backbone, the generalised mean of its last map, and one linear layer.

What SSCD uses (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022, section 4): the linear
layer's output is the embedding itself, there is no layer behind it that would be thrown away.
"""

from __future__ import annotations

from typing import Any

import keras

from simimg.errors import UsageError
from simimg.models.heads import EMBEDDING, PROBABILITIES, embedding_layer
from simimg.models.pooling import GeneralizedMeanPooling2D


def copy_model(classifier: keras.Model, dim: int) -> keras.Model:
    """A classifier's backbone with an embedding of its own; it shares the backbone's weights.

    Args:
        classifier: of this package. If it averages its last map, that is pooled by the generalised mean instead.
        dim: length of the embedding.

    Returns:
        A model from [batch, image_size, image_size, 3] pixels 0..255 to float32 [batch, dim] of L2 norm 1. The layer
        "embedding" is what is normalised, so that `search_embedder` takes the model as it is.

    Raises:
        UsageError: `dim` is below 2.
        ModelError: the classifier has no layer "embedding".
    """
    if dim < 2:
        raise UsageError(f"an embedding should have at least 2 numbers. Received: dim={dim}")
    layer = embedding_layer(classifier)
    x: Any = layer.input
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        x = GeneralizedMeanPooling2D(name="generalized_mean")(x)
    # Glorot's uniform start, and no bias at first: what SSCD calls Xavier.
    x = keras.layers.Dense(dim, dtype="float32", name=EMBEDDING)(x)
    unit = keras.layers.UnitNormalization(dtype="float32", name="unit")(x)
    return keras.Model(classifier.input, unit, name=f"{classifier.name}_copies")


def fix_backbone(model: keras.Model) -> None:
    """Leaves only what is put on top of a backbone to be trained: the softmax, or the linear embedding."""
    top = PROBABILITIES if PROBABILITIES in {layer.name for layer in model.layers} else EMBEDDING
    for layer in model.layers:
        layer.trainable = layer.name == top
