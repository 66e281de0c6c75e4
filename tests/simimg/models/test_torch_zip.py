"""PyTorch's zip files, written here opcode by opcode: what is read, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simimg.errors import ModelError
from simimg.models.torch_zip import read_torch_file

STORAGE_CLASSES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}
GOOD = {"0": np.arange(6, dtype="<f4")}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<i", len(value.encode())) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def ints(*values: int) -> bytes:
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def storage(key: str, data: np.ndarray, num_elements: int | None = None) -> bytes:
    kind = name("torch", STORAGE_CLASSES[data.dtype.str])
    size = ints(len(data) if num_elements is None else num_elements)[1:-1]
    return b"(" + text("storage") + kind + text(key) + text("cpu") + size + b"tQ"


def tensor(data: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = data + ints(offset)[1:-1] + ints(*shape) + ints(*strides) + b"\x89" + hooks
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def dictionary(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def script_object(kind: str, **attributes: bytes) -> bytes:
    return name(f"__torch__.{kind}", "Module") + b")\x81" + dictionary(**attributes) + b"b"


def archive(content: bytes, storages: dict[str, np.ndarray], **records: bytes) -> bytes:
    """The bytes of a file; `constants` makes it TorchScript. A record of None is left out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("weights/data.pkl", b"\x80\x02" + content + b".")
        for record, value in records.items():
            file.writestr(f"weights/{record.replace('constants', 'constants.pkl')}", value)
        for key, data in storages.items():
            file.writestr(f"weights/data/{key}", data.tobytes())
    return stream.getvalue()


def state_dict(storages: dict[str, np.ndarray] = GOOD, **views: tuple[str, int, tuple, tuple]) -> bytes:
    views = views or {"w": ("0", 0, (2, 3), (3, 1))}
    tensors = {
        key: tensor(storage(at, storages[at]), offset, shape, strides)
        for key, (at, offset, shape, strides) in views.items()
    }
    return archive(dictionary(**tensors), storages, byteorder=b"little")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"weights\.pt.*{words}"):
        read_torch_file(path)


# What is read


def test_views_are_read_by_their_strides_and_dtypes(path: Path) -> None:
    data = np.arange(24)
    storages = {"0": data.astype("<f4"), "1": (data / 8).astype("<f2"), "2": data / 3, "3": np.array([-7], "<i8")}
    path.write_bytes(
        state_dict(
            storages,
            plain=("0", 0, (4, 6), (6, 1)),
            transposed=("0", 0, (6, 4), (1, 6)),
            offset=("0", 20, (2, 2), (2, 1)),
            repeated=("0", 5, (3,), (0,)),
            half=("1", 0, (24,), (1,)),
            double=("2", 1, (2,), (3,)),
            count=("3", 0, (), ()),
            empty=("0", 0, (0, 3), (3, 1)),
        )
    )
    got = read_torch_file(path)
    np.testing.assert_array_equal(got["plain"], data.reshape(4, 6))
    np.testing.assert_array_equal(got["transposed"], data.reshape(4, 6).T)
    np.testing.assert_array_equal(got["offset"], [[20, 21], [22, 23]])
    np.testing.assert_array_equal(got["repeated"], [5, 5, 5])
    np.testing.assert_array_equal(got["half"], data / 8)
    np.testing.assert_array_equal(got["double"], [1 / 3, 4 / 3])
    assert (got["count"], got["empty"].shape) == (-7, (0, 3))
    assert [value.dtype.str for value in got.values()] == ["<f4"] * 4 + ["<f2", "<f8", "<i8", "<f4"]
    assert all(value.flags.c_contiguous and value.flags.writeable for value in got.values())


@given(st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_view_is_what_numpy_makes_of_it(path: Path, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    whole = np.arange(np.prod(shape), dtype="<f4")
    view = whole.reshape(shape).transpose(data.draw(st.permutations(range(len(shape)))))
    view = view[tuple(slice(data.draw(st.integers(0, n - 1)), None, data.draw(st.integers(1, 3))) for n in view.shape)]
    offset = (view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) // 4
    strides = tuple(stride // 4 for stride in view.strides)
    path.write_bytes(state_dict({"0": whole}, w=("0", offset, view.shape, strides)))
    np.testing.assert_array_equal(read_torch_file(path)["w"], view)


def test_torchscript_s_tensors_are_named_by_the_way_to_them(path: Path) -> None:
    leaf = script_object("nn.conv", weight=tensor(storage("0", GOOD["0"]), 0, (2, 3), (3, 1)), training=b"\x89")
    sizes = name("torch.jit._pickle", "build_intlist") + b"((I3\nI4\nltR"
    root = script_object(
        "models.sscd",
        **{"block0-0": script_object("container", **{"0": leaf})},
        count=tensor(storage("1", np.array([9], "<i8")), 0, (), ()),
        sizes=sizes,
        power=b"G" + struct.pack(">d", 3.0),
        none=b"N",
    )
    path.write_bytes(archive(root, {**GOOD, "1": np.array([9], "<i8")}, constants=b"\x80\x02)."))
    got = read_torch_file(path)
    assert set(got) == {"block0-0.0.weight", "count"}
    np.testing.assert_array_equal(got["block0-0.0.weight"], [[0, 1, 2], [3, 4, 5]])
    assert got["count"] == 9


# What is refused


@pytest.mark.parametrize("records", [{"byteorder": b"little"}, {"constants": b"\x80\x02)."}], ids=["dict", "script"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(path: Path, records: dict[str, bytes]) -> None:
    harm = path.parent / "harm"
    evil = name(os.mkdir.__module__, "mkdir") + b"(" + text(str(harm)) + b"tR"
    for content in (evil, dictionary(w=evil), script_object("m", w=evil) if "constants" in records else evil):
        refused(path, archive(content, GOOD, **records), "asks for posix.mkdir")
    for module, attribute in (("builtins", "eval"), ("torch", "load"), ("numpy", "dtype"), ("torch._utils", "os")):
        refused(path, archive(name(module, attribute), GOOD, **records), f"asks for {module}.{attribute}")
    if "constants" not in records:  # TorchScript's classes are its own
        refused(path, archive(script_object("m"), GOOD, **records), "asks for __torch__.m.Module")
    assert not harm.exists()


def test_what_a_pickle_sets_on_names_ends_with_it(path: Path) -> None:
    """BUILD with a pair sets attributes on anything: here, defaults on the function that makes tensors."""
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    for target in (rebuild, name("__torch__.m", "Module"), name("torch", "FloatStorage")):
        changes = b"(N" + dictionary(__defaults__=b"N", __name__=text("changed"), shape=ints(1)) + b"t"
        path.write_bytes(archive(target + changes + b"b", GOOD, constants=b"\x80\x02)."))
        with pytest.raises(ModelError):
            read_torch_file(path)
        path.write_bytes(state_dict())
        np.testing.assert_array_equal(read_torch_file(path)["w"], [[0, 1, 2], [3, 4, 5]])


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = state_dict()
    for length in range(len(whole)):
        refused(path, whole[:length], "")
    refused(path, whole[: len(whole) // 2], "damaged or truncated.*Download it again")


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_flipped_bit_is_noticed_or_harmless(path: Path, place: int, bit: int) -> None:
    damaged = bytearray(state_dict())
    damaged[place % len(damaged)] ^= 1 << bit
    path.write_bytes(bytes(damaged))
    try:
        got = read_torch_file(path)
    except ModelError as error:
        assert str(path) in str(error)
    else:
        np.testing.assert_array_equal(got["w"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ((0, (5,), (6,)), "reaches beyond"),
        ((5, (2, 2), (2, 1)), "reaches beyond"),
        ((0, (10**9, 10**9), (0, 0)), "reaches beyond"),  # exabytes of six elements
        ((-1, (2,), (1,)), "has shape"),
        ((5, (2,), (-1,)), "has shape"),
        ((0, (2, 2), (1,)), "has shape"),
    ],
)
def test_views_outside_their_storage_are_refused(path: Path, view: tuple, words: str) -> None:
    refused(path, state_dict(w=("0", *view)), words)


def test_other_files_are_refused(path: Path) -> None:
    whole = tensor(storage("0", GOOD["0"]), 0, (6,), (1,))
    script = {"constants": b"\x80\x02)."}
    itself = name("__torch__.m", "Module") + b")\x81q\x00" + dictionary(me=b"h\x00") + b"b"
    compressed = io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("weights/data.pkl", b"\x80\x02" + dictionary(w=whole) + b".")
        file.writestr("weights/data/0", GOOD["0"].tobytes())
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as file:
        file.writestr("readme.txt", "no weights")
    for content, words in (
        (b"<html>not found</html>", "is not a PyTorch file: it starts with b'<htm'"),
        (b"", "is not a PyTorch file"),
        (pickle.dumps({"w": 1}, 2), "not a state dict in PyTorch's old format"),
        (empty.getvalue(), "no data.pkl"),
        (compressed.getvalue(), "compressed"),
        (archive(dictionary(w=whole), GOOD, byteorder=b"big"), "big-endian"),
        (archive(dictionary(w=whole), {}), "lacks the storage 0"),
        (archive(dictionary(w=whole), {"0": np.zeros(5, "<f4")}), "6 elements"),
        (archive(dictionary(w=tensor(storage("0", GOOD["0"], -1), 0, (), ())), GOOD), "-1 elements"),
        (archive(dictionary(w=whole, epoch=b"I3\n"), GOOD), "not a state dict"),
        (archive(b"I3\n", GOOD), "not a state dict"),
        (archive(b"I3\n", GOOD, **script), "TorchScript module is not a module"),
        (archive(script_object("m", training=b"\x89"), GOOD, **script), "frozen"),
        (archive(itself, GOOD, **script), "contains itself"),
    ):
        refused(path, content, words)
    with pytest.raises(ModelError, match=r"none\.pt: No such file"):
        read_torch_file(path.with_name("none.pt"))


def test_a_pickle_of_any_size_is_not_unpacked(path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("weights/data.pkl", bytes(1 << 27))
    refused(path, stream.getvalue(), "too large")
