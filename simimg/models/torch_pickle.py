"""The pickles in PyTorch's files, read without PyTorch: tensors as views of storages, and nothing that runs code.

A pickle names functions and calls them. Here a name is looked up in an allow-list of things that only hold values, and
every one of them is made anew for each file, so that nothing a pickle sets on them outlives it.

Tensors are views: honour their strides. 50 of Lite0's were transposed by their converter and never copied;
reshaped as if contiguous they load without a complaint and the network answers one class for everything.
"""

from __future__ import annotations

import collections
import pickle
from typing import Any, BinaryIO, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray[Any, Any]]

_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}
"""torch/storage.py. A storage's dtype is told by its class."""

_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
"""torch/jit/_pickle.py: lists of one kind, which TorchScript tells apart."""


class FormatError(ValueError):
    """What is wrong with a file; becomes a `ModelError` with its path."""


class Storage(NamedTuple):
    """Where elements lie in a file: their dtype as NumPy writes it, the storage's key, and how many they are."""

    dtype: str
    key: str
    num_elements: int


class View(NamedTuple):
    """A tensor: a storage seen by an offset, a shape and strides, all in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchUnpickler(pickle.Unpickler):
    """Loads a pickle of PyTorch's, tensors as `View`.

    With `script`, objects of TorchScript's classes become instances of `module`, which hold their attributes.
    """

    def __init__(self, stream: BinaryIO, *, script: bool = False) -> None:
        """Make what the pickle may name."""
        super().__init__(stream)
        self.module = type("ScriptModule", (), {})
        self._script = script
        self._allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            # What follows the strides is requires_grad and hooks.
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
        """Look a name up in the allow-list."""
        if self._script and module.partition(".")[0] == "__torch__":
            return self.module
        if (module, name) not in self._allowed:
            raise FormatError(f"its pickle asks for {module}.{name}, which a state dict has no need of")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Take ("storage", dtype, key, device, number of elements), in old files with a None behind it."""
        kind, dtype, key, _device, num_elements, *part = pid
        if kind != "storage" or any(rest is not None for rest in part) or dtype not in _STORAGES.values():
            raise FormatError("its pickle refers to something that is not a whole storage")
        return Storage(dtype, key, num_elements)


def array_of(name: str, view: View, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy a view out of its storage. as_strided checks nothing, so the last element is checked here.

    Nor may a view be larger than its storage: strides of 0 would make terabytes of a file of a few bytes.
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
