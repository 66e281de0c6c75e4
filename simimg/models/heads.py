"""Layers that the models share: their input and output, embedders for search, and the network for finding copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from simimg.errors import ModelError, UsageError
from tfrecords.format.image_size import ImageSize, Rectangle, image_shape

EMBEDDING = "embedding"
"""Name of the layer whose output is a model's embedding, before it is normalized."""

PROBABILITIES = "probabilities"
"""Name of a classifier's output layer."""

TARGETS = "targets"
"""Name of the output layer of a network for numbers."""

_LENGTH = 16.0
"""About the length of EfficientNet-Lite's features, so that learning rates found for them stay valid."""

MIN_POOLED = 1e-6  # the cube root has an infinite slope at zero


def enlarged_to(image_size: ImageSize, resolution: int) -> ImageSize:
    """Images of `image_size` enlarged until their longer side has `resolution` px; not reduced if it is longer."""
    if isinstance(image_size, int):
        return max(image_size, resolution)
    longer = max(*image_size, resolution)
    return Rectangle(*(round(side * longer / max(image_size)) for side in image_size))


def image_input(image_size: ImageSize, *, smallest: int, channels: int = 3) -> Any:
    """A model's input: float32 [batch, height, width, channels], of squares or of another width than height. Keras
    casts other types, such as uint8.

    Raises:
        UsageError: `image_size` is below `smallest`, for which the model's strides and pools leave one pixel.
    """
    if min(image_shape(image_size)[:2]) < smallest:
        raise UsageError(f"image_size should be at least {smallest} for this model. Received: image_size={image_size}")
    return keras.Input(image_shape(image_size, channels), dtype="float32", name="pixels")


def accept_sizes(network: keras.Model, sizes: Sequence[int], option: str) -> None:
    """Lets a network be called with square images of other sides than that of its input, `sizes` in px.

    Raises:
        UsageError: it can be called with its own size only; names `option`.
    """
    _forget_sizes(network)
    for size in sorted(set(sizes)):
        try:
            network(keras.ops.zeros((1, *image_shape(size, network.input_shape[-1]))))
        except Exception as error:  # of Keras or of an operation, depending on the layer
            raise UsageError(
                f"{option}: {network.name} takes images of {network.input_shape[1]} px, but not of {size} px. Choose a "
                "network that averages its last map, such as small or ResNet50."
            ) from error


def _forget_sizes(network: keras.Model) -> None:
    network.input_spec = None  # which would refuse other sizes
    for layer in network.layers:
        inner = layer.layer if isinstance(layer, keras.layers.Wrapper) else layer
        if isinstance(inner, keras.Model):
            _forget_sizes(inner)


def colored(pixels: Any) -> Any:
    """Gray pixels in three equal channels, for networks whose weights are for RGB; others as they are."""
    return pixels if pixels.shape[-1] == 3 else keras.layers.Concatenate(name="colored")([pixels] * 3)


def scaled(pixels: Any, *, middle: float, reach: float) -> Any:
    """(pixels - middle) / reach, in float32 under mixed precision too, because augmented pixels are fractions."""
    return keras.layers.Rescaling(1 / reach, -middle / reach, dtype="float32", name="scaled_pixels")(pixels)


def unit(features: Any, *, prefix: str = "") -> Any:
    """[batch, dim] features scaled to one length, float32, so that only their direction matters.

    Logistic regression on features of EfficientNet-Lite is more accurate this way. Photos differ in contrast and in how
    much of them the subject fills, which changes the length of the features but not the class.
    """
    x = keras.layers.UnitNormalization(dtype="float32", name=f"{prefix}unit")(features)
    return keras.layers.Rescaling(_LENGTH, dtype="float32", name=f"{prefix}unit_scaled")(x)


def probabilities(features: Any, num_classes: int) -> Any:
    """Softmax over the classes: float32 [batch, num_classes], in float32 under mixed precision too.

    Under bfloat16 a probability near 1 has steps of 1/256, too coarse for a loss. Keras's mixed precision guide asks
    for a float32 softmax for that reason.

    Raises:
        UsageError: there are fewer than two classes.
    """
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes. Received: num_classes={num_classes}")
    return keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name=PROBABILITIES)(features)


def embedder(model: keras.Model) -> keras.Model:
    """The part of a model that similarity search runs: pixels to unit vectors. It shares the model's weights.

    Its output is float32 [batch, dim] of L2 norm 1, so the inner product of two rows is their cosine similarity. An
    embedding of zeros stays zero, and its similarity to everything is 0. Runs without dropout and with fixed
    statistics.

    Raises:
        ModelError: the model has no layer "embedding" whose output is [batch, dim].
    """
    embedding = _embedding_layer(model).output
    if len(embedding.shape) != 2:
        raise ModelError(f"the layer {EMBEDDING!r} should give [batch, dim]. Received: {tuple(embedding.shape)}")
    return _normalized(model, embedding)


def search_embedder(model: keras.Model) -> keras.Model:
    """The embedder that similarity search indexes with: `embedder`, with average pooling replaced; raises as that.

    If the model averages its last map, the generalized mean of the map is used instead. The average loses small
    objects, and the generalized mean finds 1.3 points more edited copies. A model whose embedding is not an average,
    such as one trained for search, is not changed.
    """
    layer = _embedding_layer(model)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return _normalized(model, GeneralizedMeanPooling2D(name="generalized_mean")(layer.input))
    return embedder(model)


def copy_model(classifier: keras.Model, dim: int) -> keras.Model:
    """A classifier's backbone with a new embedding, to be trained to find copies; it shares the backbone's weights.

    The head is SSCD's (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022, section 4):
    the generalized mean of the last map, and one linear layer. The output of that layer is the embedding; there is no
    further layer to discard after the training.

    If the classifier averages its last map, the generalized mean replaces that. The output is float32 [batch, dim] of
    L2 norm 1. The layer "embedding" gives the vectors before they are normalized, so `search_embedder` does not change
    the model.

    Raises:
        UsageError: `dim` is below 2.
        ModelError: the classifier has no layer "embedding".
    """
    if dim < 2:
        raise UsageError(f"an embedding should have at least 2 numbers. Received: dim={dim}")
    layer = _embedding_layer(classifier)
    x: Any = layer.input
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        x = GeneralizedMeanPooling2D(name="generalized_mean")(x)
    # Keras's default start: Glorot uniform, which SSCD calls Xavier, and bias 0.
    x = keras.layers.Dense(dim, dtype="float32", name=EMBEDDING)(x)
    unit = keras.layers.UnitNormalization(dtype="float32", name="unit")(x)
    return keras.Model(classifier.input, unit, name=f"{classifier.name}_copies")


def output_model(classifier: keras.Model, outputs: Any) -> keras.Model:
    """A classifier with another output than its softmax; it shares the other weights.

    Args:
        classifier: the network.
        outputs: a function from the features to the new output, such as `independent` or `numbers`.
    """
    return keras.Model(classifier.input, outputs(classifier.get_layer(PROBABILITIES).input), name=classifier.name)


def independent(num_classes: int) -> Any:
    """A function to a sigmoid per class: float32 [batch, num_classes], for images of several classes."""
    return keras.layers.Dense(num_classes, activation="sigmoid", dtype="float32", name=PROBABILITIES)


def numbers(means: Sequence[float], deviations: Sequence[float]) -> Any:
    """A function to numbers, float32 [batch, num_targets], that have these means and standard deviations in training.

    The network's own output has the mean 0 and the deviation 1, so that learning rates do not depend on the unit.
    """

    def outputs(features: Any) -> Any:
        # Named as the softmax, so that a run can start from one with another output.
        x = keras.layers.Dense(len(means), dtype="float32", name=PROBABILITIES)(features)
        return keras.layers.Rescaling(list(deviations), list(means), dtype="float32", name=TARGETS)(x)

    return outputs


def fix_backbone(model: keras.Model) -> None:
    """Freezes all layers except the head: the softmax, or the linear embedding."""
    top = PROBABILITIES if PROBABILITIES in {layer.name for layer in model.layers} else EMBEDDING
    for layer in model.layers:
        layer.trainable = layer.name == top


@keras.saving.register_keras_serializable(package="simimg")
class GeneralizedMeanPooling2D(keras.layers.Layer):
    """`mean(x ** p) ** (1 / p)` over width and height (Radenović et al., "Fine-tuning CNN Image Retrieval", PAMI 2019).

    p = 1 is the average, and a large p is nearly the maximum. 3 is the value that the authors' training arrives at and
    that copy detectors use. It gives small objects weight, which matters when the other image is a crop. Input float
    `[batch, h, w, channels]`, with negative values taken as zero; output `[batch, channels]`, float32 under mixed
    precision too. `power` is p.
    """

    def __init__(self, power: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.power = power

    def call(self, inputs: Any) -> Any:
        """Pools."""
        raised = keras.ops.maximum(inputs, MIN_POOLED) ** self.power
        return keras.ops.mean(raised, axis=(1, 2)) ** (1 / self.power)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, for `.keras` files."""
        return {**super().get_config(), "power": self.power}


def _embedding_layer(model: keras.Model) -> Any:
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
