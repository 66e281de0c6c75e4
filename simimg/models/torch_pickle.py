"""The pickles in PyTorch's files, read without PyTorch and without running code from the file.

A pickle names functions and calls them. Here, names are looked up in an allow-list of types that only hold values. The
types are created again for each file, so that attributes set by a pickle do not remain.

Tensors are views of storages, and their strides matter. 50 of Lite0's tensors were transposed by their converter and
never copied. Reshaped as if they were contiguous, they load without an error, and the network predicts the same class
for every image.
"""

from __future__ import annotations

import collections
import pickle
from typing import Any, BinaryIO, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray[Any, Any]]

_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}
"""torch/storage.py. The class of a storage says its dtype."""

_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
"""torch/jit/_pickle.py: constructors of typed lists."""


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
