"""PyTorch's zip files, read without PyTorch: state dicts of `torch.save` (1.6 and later) and TorchScript archives.

Both are zips of one folder (torch/serialization.py; torch/csrc/jit/serialization/export_module.cpp):

    NAME/data.pkl        the state dict, name -> tensor; in TorchScript, the module, whose attributes are tensors,
                         numbers and further modules, so that a tensor's name is its path
    NAME/data/KEY        the elements of a storage
    NAME/byteorder       little or big; missing in older files, which are little
    NAME/constants.pkl   only in TorchScript, as is NAME/code/, which is not read
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from simimg.errors import ModelError
from simimg.models.torch_pickle import FormatError, Storage, Tensors, TorchUnpickler, View, array_of, read_torch_pickle

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_MAX_PICKLE_BYTES = 1 << 26  # ResNeXt-101's has 140 KB
_MAX_MODULES = 10_000  # ResNeXt-101 has 450; the limit stops a module that contains itself


def read_torch_file(path: Path) -> Tensors:
    """Reads the tensors of a PyTorch file: a state dict, in the zip format or the old one, or TorchScript.

    Returns:
        name -> array, float32, float16, float64 or int64, contiguous, writable.

    Raises:
        ModelError: the file cannot be read, has another format, is damaged, or uses a name that tensors do not need;
            the message has the path.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}") from error
    if start.startswith(_PICKLE):
        return read_torch_pickle(path)
    if start != _ZIP:
        raise ModelError(f"{path} is not a PyTorch file: it starts with {start!r}, unlike both of PyTorch's formats.")
    try:
        with zipfile.ZipFile(path) as archive:
            return _tensors(archive)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path} is damaged or truncated: {error}. Download it again.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ModelError(f"{path} has no weights that can be read: {error!r}") from error


def _tensors(archive: zipfile.ZipFile) -> Tensors:
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}  # without the folder
    if "data.pkl" not in records:
        raise FormatError("it is a zip file, but has no data.pkl as PyTorch's files have")
    if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
        raise FormatError("its numbers are big-endian")
    if records["data.pkl"].file_size > _MAX_PICKLE_BYTES:
        raise FormatError("its data.pkl is too large to hold only names and shapes")
    script = "constants.pkl" in records
    unpickler = TorchUnpickler(io.BytesIO(archive.read(records["data.pkl"])), script=script)
    content = unpickler.load()
    views = _script_views(content, unpickler.module) if script else _dict_views(content)
    storages: dict[Storage, np.ndarray[Any, Any]] = {}
    for storage in dict.fromkeys(view.storage for view in views.values()):
        info = records.get(f"data/{storage.key}")
        if info is None:
            raise FormatError(f"it lacks the storage {storage.key}")
        # Compared before anything is read, because a compressed record could expand to any size.
        if info.file_size != storage.num_elements * np.dtype(storage.dtype).itemsize:
            raise FormatError(f"storage {storage.key} does not hold the {storage.num_elements} elements it should")
        if info.compress_type != zipfile.ZIP_STORED:
            raise FormatError(f"storage {storage.key} is compressed, which PyTorch never does")
        storages[storage] = np.frombuffer(archive.read(info), storage.dtype)
    return {name: array_of(name, view, storages[view.storage]) for name, view in views.items()}


def _dict_views(content: Any) -> dict[str, View]:
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, View) for name, value in content.items()
    ):
        raise FormatError("it is not a state dict, which maps names to tensors")
    return content


def _script_views(content: Any, module: type) -> dict[str, View]:
    views: dict[str, View] = {}
    modules = [("", content)]
    num_modules = 0
    while modules:
        prefix, parent = modules.pop()
        num_modules += 1
        if not isinstance(parent, module) or num_modules > _MAX_MODULES:
            raise FormatError("its TorchScript module is not a module, or contains itself")
        for name, value in vars(parent).items():
            if isinstance(value, View):
                views[prefix + name] = value
            elif isinstance(value, module):
                modules.append((f"{prefix}{name}.", value))
    if not views:
        raise FormatError("its TorchScript module is frozen, so its tensors have no names. Use the file of weights")
    return views
