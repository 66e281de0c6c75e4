"""Networks with Keras's own layers and operations only, so that a saved model loads where simimg is not installed.

Layers that serve the training become the stock layers that compute the same in inference, to rounding (1e-5 of the
output in float32):

    ExampleDropout                  Dropout
    SynchronizedBatchNormalization  BatchNormalization
    FrozenNormConv2D                ZeroPadding2D if it pads by itself, Conv2D or DepthwiseConv2D, BatchNormalization
    OrientedGradients               fixed convolutions, pools and operations
    GeneralizedMeanPooling2D        operations
    a network with fixed statistics the network, with `trainable` off

The BatchNormalization of a FrozenNormConv2D has `trainable` off, with which Keras keeps the statistics in training,
too. All weights are kept, so `copy_weights` can put them back into a network that is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import MIN_POOLED, GeneralizedMeanPooling2D
from simimg.models.keras_applications import Fixed, finalize_states
from simimg.models.oriented_gradients import FLAT, OrientedGradients

Pairs = list[tuple[Any, Any]]
"""Variables of a network, each with that of the stock network."""


def with_stock_layers(model: keras.Model, *, for_converters: bool = False) -> keras.Model:
    """Returns a copy of a network, with the same weights, that has Keras's own layers only.

    Layers that are neither ours nor Keras's stay as they are, and so does a model that is no graph of layers.

    Args:
        model: the network, functional or sequential.
        for_converters: whether layers that converters to other formats cannot write become others, whose weights have
            other shapes. These are of Keras 3.15: the mean and the deviation of a `Normalization` become inputs of an
            ONNX file, so it becomes a `Rescaling`; a `Conv2D` with groups is a call that is compiled by XLA, so it
            becomes a `DepthwiseConv2D` or one `Conv2D` per group; and GELU has the operation Erfc, which ONNX lacks.
    """
    return _stock(model, for_converters)[0]


def copy_weights(model: keras.Model, layers: Mapping[str, keras.layers.Layer]) -> None:
    """Copies the weights of stock layers into `model`, to whose stock copy their names belong.

    Layers of the copy that are not among `layers` keep their weights.
    """
    copy, pairs = _stock(model, False)
    for name, layer in layers_with_weights(copy):
        if name in layers:
            layer.set_weights(layers[name].get_weights())
    for original, variable in pairs:
        original.assign(variable)
    finalize_states(model)


def layers_with_weights(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Returns the layers that have weights, those of inner networks, too, by their names."""
    found: list[tuple[str, keras.layers.Layer]] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += layers_with_weights(layer)
        elif layer.weights and not isinstance(layer, keras.layers.Dropout):
            found.append((layer.name, layer))
    return found


def _stock(model: keras.Model, for_converters: bool) -> tuple[keras.Model, Pairs]:
    """Returns the copy, and the pairs of all variables of `model` that it has."""
    layers: list[tuple[Any, Any]] = []
    pairs: Pairs = []
    taken = {layer.name for layer in model.layers}

    def free(name: str) -> str:
        """Returns a name for a further layer, the same for each copy of the network."""
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def copied(layer: Any) -> Callable[..., Any]:
        """Returns a layer's stand-in: a layer, or a function that calls layers."""
        inner = layer.layer if isinstance(layer, Fixed) else layer
        if isinstance(inner, keras.Model):
            copy, its = _stock(inner, for_converters)
            if inner is not layer or not layer.trainable:
                copy.trainable = False
            pairs.extend(its)
            return copy
        if isinstance(layer, FrozenNormConv2D):
            return lambda x: _conv_and_norm(layer, x, pairs, free, for_converters)
        if isinstance(layer, OrientedGradients):
            return lambda pixels: _oriented_gradients(layer, pixels, free)
        if isinstance(layer, GeneralizedMeanPooling2D):
            return lambda maps: _generalized_mean(layer, maps)
        if for_converters and isinstance(layer, keras.layers.Normalization):
            return _rescaling(layer)
        if for_converters and type(layer) is keras.layers.Conv2D and layer.groups > 1:
            return lambda x: _grouped(layer, x)
        kind, config = type(layer), layer.get_config()
        if for_converters and getattr(layer, "activation", None) is keras.activations.gelu:
            config["activation"] = _gelu
        if isinstance(layer, ExampleDropout):
            kind = keras.layers.Dropout
            del config["stream"]
        elif isinstance(layer, SynchronizedBatchNormalization):
            kind, config = keras.layers.BatchNormalization, {**config, "synchronized": False}
        copy = kind.from_config(config)
        layers.append((layer, copy))
        return copy

    if isinstance(model, keras.Sequential):
        (pixels,) = model.inputs
        x = first = keras.Input(batch_shape=pixels.shape, dtype=pixels.dtype, name=pixels.name)
        for layer in model.layers:
            x = copied(layer)(x)
        copy = keras.Model(first, x, name=model.name)
    elif hasattr(model, "operations"):
        copy = keras.models.clone_model(model, clone_function=copied, call_function=_call)
    else:
        return model, []
    for layer, other in layers:
        if not isinstance(layer, keras.layers.Dropout):  # its only variable is a seed
            pairs += zip(getattr(layer, "weights", ()), getattr(other, "weights", ()), strict=True)
    for original, variable in pairs:
        variable.assign(keras.ops.convert_to_numpy(original))
    finalize_states(copy)
    return copy, pairs


def _call(layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return layer(*args, **kwargs)


def _conv_and_norm(
    layer: FrozenNormConv2D, x: Any, pairs: Pairs, free: Callable[[str], str], for_converters: bool
) -> Any:
    """Returns what a convolution with a fixed normalization computes, and adds its variables to `pairs`."""
    common: dict[str, Any] = {
        "kernel_size": layer.kernel_size,
        "strides": layer.strides,
        "padding": "same" if layer.padding is None else "valid",
        "use_bias": False,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "name": layer.name,
    }
    if layer.padding:
        x = keras.layers.ZeroPadding2D(layer.padding, dtype=layer.dtype_policy, name=free(f"{layer.name}_zeros"))(x)
    if layer.filters is None:
        conv = keras.layers.DepthwiseConv2D(**common)
    else:
        conv = keras.layers.Conv2D(layer.filters, groups=layer.groups, **common)
    if layer.groups > 1 and for_converters:
        conv.build(x.shape)
        conv.set_weights([layer.kernel])
        convolved = _grouped(conv, x)
    else:
        convolved = conv(x)
        pairs.append((layer.kernel, conv.kernel))
    norm = keras.layers.BatchNormalization(
        epsilon=layer.epsilon, dtype=layer.dtype_policy, trainable=False, name=free(f"{layer.name}_norm")
    )
    y = norm(convolved)
    pairs.extend((getattr(layer, name), getattr(norm, name)) for name in _NORM)
    return y


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def _rescaling(layer: Any) -> keras.layers.Layer:
    """Returns a `Normalization` as a `Rescaling`: (x - mean) / deviation, with its bound below from Keras."""
    mean, variance = (np.ravel(keras.ops.convert_to_numpy(value)) for value in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return keras.layers.Rescaling((1 / scale).tolist(), mean.tolist(), dtype="float32", name=layer.name)
    return keras.layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), dtype="float32", name=layer.name)


def _grouped(layer: Any, x: Any) -> Any:
    """Returns what a `Conv2D` with groups computes, from layers without groups."""
    kernel, *bias = (keras.ops.convert_to_numpy(weight) for weight in layer.weights)
    height, width, channels, filters = kernel.shape
    each = filters // layer.groups
    common = {
        name: getattr(layer, name)
        for name in ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "activation", "trainable")
    }
    if layer.activation is keras.activations.gelu:
        common["activation"] = _gelu
    if channels == 1:
        conv = keras.layers.DepthwiseConv2D(depth_multiplier=each, dtype=layer.dtype_policy, name=layer.name, **common)
        y = conv(x)
        conv.set_weights([kernel.reshape(height, width, layer.groups, each), *bias])
        return y

    def by_group(x: Any) -> Any:
        parts = []
        for number, part in enumerate(keras.ops.split(x, layer.groups, axis=-1)):
            conv = keras.layers.Conv2D(each, dtype=layer.dtype_policy, name=f"group{number}", **common)
            parts.append(conv(part))
            conv.set_weights([weight[..., number * each : (number + 1) * each] for weight in (kernel, *bias)])
        return keras.ops.concatenate(parts, axis=-1)

    return _inner(x, by_group, layer.name)


def _inner(x: Any, compute: Callable[[Any], Any], name: str) -> Any:
    """Returns `compute(x)`, in a network of its own, whose operations may have names that the outer one has, too."""
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    return keras.Model(inputs, compute(inputs), name=name)(x)


def _gelu(x: Any) -> Any:
    """Returns x times the normal distribution function at x: GELU (Hendrycks and Gimpel 2016), by erf."""
    return 0.5 * x * (1 + keras.ops.erf(x * math.sqrt(0.5)))


def _generalized_mean(layer: GeneralizedMeanPooling2D, maps: Any) -> Any:
    """Returns what `GeneralizedMeanPooling2D` computes, from operations."""
    ops = keras.ops
    raised = ops.power(ops.maximum(ops.cast(maps, "float32"), MIN_POOLED), layer.power)
    return ops.power(ops.mean(raised, axis=(1, 2)), 1 / layer.power)


def _oriented_gradients(layer: OrientedGradients, pixels: Any, free: Callable[[str], str]) -> Any:
    """Returns what `OrientedGradients` computes, from fixed convolutions, pools and operations."""
    ops, name = keras.ops, layer.name
    fixed: dict[str, Any] = {"use_bias": False, "trainable": False, "dtype": "float32"}

    def pooled(maps: Any, what: str) -> Any:
        pool = keras.layers.AveragePooling2D(
            2 * layer.cell, layer.cell, "same", dtype="float32", name=free(f"{name}_{what}")
        )
        return pool(maps)

    def difference(maps: Any, kernel: np.ndarray, what: str) -> Any:
        conv = keras.layers.DepthwiseConv2D(3, name=free(f"{name}_{what}"), **fixed)
        result = conv(maps)
        conv.set_weights([np.repeat(kernel[:, :, None, None], maps.shape[-1], axis=2).astype(np.float32)])
        return result

    x = ops.sqrt(ops.clip(ops.cast(pixels, "float32"), 0.0, 255.0) / 255.0)
    padded = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    middle = np.array([[0, 0, 0], [-1, 0, 1], [0, 0, 0]])
    across, down = difference(padded, middle, "across"), difference(padded, middle.T, "down")
    count = x.shape[-1]
    channels = list(zip(ops.split(across, count, axis=-1), ops.split(down, count, axis=-1), strict=True))
    across, down = channels[0]
    for one, other in channels[1:]:  # not argmax, for which Keras uses an operation that LiteRT lacks
        longer = one * one + other * other > across * across + down * down
        across, down = ops.where(longer, one, across), ops.where(longer, other, down)
    length = ops.sqrt(across * across + down * down + 1e-8)
    angles = np.arange(layer.num_directions, dtype=np.float32) * np.float32(2 * math.pi / layer.num_directions)
    project = keras.layers.Conv2D(layer.num_directions, 1, name=free(f"{name}_directions"), **fixed)
    projected = project(ops.concatenate([across, down], axis=-1))
    project.set_weights([np.stack([np.cos(angles), np.sin(angles)])[None, None]])
    edges = pooled(length * ops.power(ops.relu(projected / length), layer.num_directions / 2), "edges")
    energy = ops.sqrt(ops.sum(edges * edges, axis=-1, keepdims=True))
    around = keras.layers.AveragePooling2D(3, 1, "same", dtype="float32", name=free(f"{name}_around"))(energy)
    overall = ops.mean(energy, axis=(1, 2), keepdims=True)
    mean = pooled(x, "mean")
    deviation = ops.sqrt(ops.relu(pooled(x * x, "mean_square") - mean * mean) + 1e-4)
    parts = [edges / (around + FLAT), edges / (overall + FLAT), ops.log(energy + 0.01), 2.0 * mean - 1.0]
    return ops.concatenate([*parts, 4.0 * deviation], axis=-1)
