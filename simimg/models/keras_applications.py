"""Keras's own networks (`keras.applications`), by name, as classifiers with this package's interface."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simimg.errors import ModelError, UsageError
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.models.heads import EMBEDDING, colored, image_input, probabilities, unit
from simimg.models.stochastic_depth import with_stochastic_depth
from tfrecords.format.image_size import ImageSize, image_shape

APPLICATIONS = tuple(name for name in dir(keras.applications) if name[0].isupper())
"""Names such as "EfficientNetV2B0": all networks of the installed Keras."""


def application(
    name: str,
    image_size: ImageSize,
    num_classes: int,
    *,
    weights: str | Path | None,
    resolution: ImageSize | None = None,
    fixed: bool,
    stochastic_depth: float = 0.0,
    channels: int = 3,
) -> keras.Model:
    """One of Keras's networks with a new softmax over unit features, for fine-tuning.

    If `fixed`, the network keeps its batch statistics and has no dropout, as in Keras's guide "Transfer learning &
    fine-tuning". Otherwise its batch statistics are those of the batch over all replicas, and its dropout belongs to
    the example, so a run on several replicas equals a run on one. Keras's own layers would have statistics per replica,
    of which those of the first are saved, and the same dropout on every replica.

    `weights` is "imagenet", which Keras downloads; a `.weights.h5` or `.h5` file of the network without its top; or
    None for random weights. The input is enlarged to `resolution` px, if it is given. `stochastic_depth` is the rate of
    `with_stochastic_depth`.

    Raises:
        UsageError: the network cannot take images of this size, or has no blocks to leave out.
        ModelError: the weights cannot be downloaded, or are those of another network.
    """
    if stochastic_depth and fixed:
        raise UsageError(
            f"--stochastic_depth={stochastic_depth:g}: {name} is tuned in inference mode, which leaves nothing out. "
            "Train it from random weights, --weights=none."
        )
    size = resolution or image_size
    pixels = image_input(image_size, smallest=1, channels=channels)
    x = colored(pixels)
    if size != image_size:
        x = keras.layers.Resizing(*image_shape(size)[:2], "bilinear", dtype="float32", name="enlarged")(x)
    x = _preprocessed(name, x)
    base = _base(name, size, weights)
    if stochastic_depth:
        base = with_stochastic_depth(base, stochastic_depth)
    x = Fixed(base, name="fixed")(x) if fixed else for_replicas(base, first_stream=2)(x)
    x = keras.layers.Identity(name=EMBEDDING)(x)
    x = ExampleDropout(0.2, stream=1, name="dropout")(unit(x))
    return keras.Model(pixels, probabilities(x, num_classes), name=name.lower())


@keras.saving.register_keras_serializable(package="simimg", name="_Fixed")  # the name in files of earlier versions
class Fixed(keras.layers.Wrapper):
    """Runs a network in inference mode, in training too. `base(x, training=False)` is not enough, because Keras 3.15
    passes the mode of the outer model to every inner layer.
    """

    def call(self, inputs: Any) -> Any:
        """Returns the network's output in inference mode."""
        return self.layer(inputs, training=False)


def for_replicas(network: keras.Model, *, first_stream: int) -> keras.Model:
    """Returns a copy of a network with the same weights, which computes on several replicas what it does on one.

    Its batch normalization is synchronized, and its dropout is drawn by example. `first_stream` and the numbers after
    it are the streams of the dropout, see `ExampleDropout`.
    """
    streams = itertools.count(first_stream)

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return SynchronizedBatchNormalization.from_config(config)
        if isinstance(layer, keras.layers.Dropout):
            return ExampleDropout.from_config({**config, "stream": next(streams)})
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=copied, recursive=True)
    originals = dict(_named_layers(network))
    for name, layer in _named_layers(copy):
        if not isinstance(layer, keras.layers.Dropout | keras.layers.InputLayer):  # a seed; an input has a new name
            layer.set_weights(originals[name].get_weights())
    finalize_states(copy)
    return copy


def finalize_states(network: keras.layers.Layer) -> None:
    """Makes the `Normalization` layers in a network compute with the weights that they have got.

    They compute with constants, which Keras derives from the weights when it loads a file, but not in `set_weights`.
    """
    if isinstance(network, keras.layers.Normalization):
        network.finalize_state()
    inner = [network.layer] if isinstance(network, keras.layers.Wrapper) else getattr(network, "layers", [])
    for layer in inner:
        finalize_states(layer)


def _named_layers(network: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields all layers, those of inner models, too, with names that are unique; cloning can change their order."""
    for layer in network.layers:
        name = f"{prefix}/{layer.name}"
        if isinstance(layer, keras.Model):
            yield from _named_layers(layer, name)
        else:
            yield name, layer


def _base(name: str, size: ImageSize, weights: str | Path | None) -> keras.Model:
    build = getattr(keras.applications, name)
    shape = image_shape(size)
    downloaded = weights == "imagenet"
    try:
        base = build(include_top=False, weights=weights if downloaded else None, input_shape=shape, pooling="avg")
    except ValueError as error:
        raise UsageError(f"{name} cannot take images of {size} px: {error}") from None
    except Exception as error:  # a download can raise many types
        if not downloaded:
            raise
        raise ModelError(
            f"{name}'s ImageNet weights cannot be downloaded: {error}. Give a file of the weights without the top as "
            "--weights=PATH, or start from random weights with --weights=none."
        ) from None
    if weights is not None and not downloaded:
        try:
            with warnings.catch_warnings():  # Keras 3.15 warns about its own lists of layers, which have no weights
                warnings.filterwarnings("ignore", "Skipping nested container at '_operations_by_depth/", UserWarning)
                base.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{weights} does not have the weights of {name} without its top: {error}") from None
    return base


def _preprocessed(name: str, x: Any) -> Any:
    """The network's own `preprocess_input` as a layer, so that it is saved with the model.

    It is a matrix over the channels and a shift. Both are computed from its results for black, red, green and blue.
    """
    preprocess = inspect.getmodule(getattr(keras.applications, name)).preprocess_input  # type: ignore[union-attr]
    black = preprocess(np.zeros((1, 1, 1, 3), np.float32))[0, 0, 0]
    colors = preprocess(np.eye(3, dtype=np.float32)[None, None] * 255)[0, 0]
    layer = keras.layers.Conv2D(3, 1, dtype="float32", trainable=False, name="preprocessed")
    x = layer(x)
    layer.set_weights([((colors - black) / 255)[None, None], black])
    return x
