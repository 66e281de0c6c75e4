"""Receipts are read back as they were written; one that does not speak of the shard that is there does not count."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import ConversionError
from tfrecords.convert.state.receipts import FORM, Receipt, read_info, read_receipt, write_receipt
from tfrecords.format.layout import ShardInfo
from tfrecords.format.quarantine import Reason, Refusal

COLUMNS = {
    "positions": "int64",
    "sha256": "uint8",
    "pixels_sha256": "uint8",
    "phash": "uint64",
    "widths": "int32",
    "heights": "int32",
}


def some_receipt(num_files: int, seed: int) -> Receipt:
    """Returns a receipt with all values that a column can have, its second file rejected."""
    draw = np.random.default_rng(seed)
    receipt = Receipt(num_files)
    for name, dtype in COLUMNS.items():
        column = getattr(receipt, name)
        assert column.dtype == dtype
        limits = np.iinfo(column.dtype)
        column[:] = draw.integers(limits.min, limits.max, column.shape, column.dtype, endpoint=True)
        column[:1] = limits.max
    receipt.refused = {1: Refusal(Reason.CORRUPT, 'a "detail"\n벌 \udcff')}
    receipt.vanished = {0}
    return receipt


def same(one: Receipt, other: Receipt) -> bool:
    refused = [{n: (r.reason, r.detail) for n, r in receipt.refused.items()} for receipt in (one, other)]
    return (
        refused[0] == refused[1]
        and one.vanished == other.vanished
        and all((getattr(one, name) == getattr(other, name)).all() for name in COLUMNS)
    )


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, ShardInfo]:
    path = tmp_path / "a-shard"
    path.write_bytes(b"12345")
    return path, ShardInfo(file="a-shard", num_examples=2, num_bytes=5, sha256="ab")


def test_receipt_is_read_back(tmp_path: Path, shard: tuple[Path, ShardInfo]) -> None:
    receipt = some_receipt(5, 0)
    write_receipt(tmp_path / "r.json", "inputs", shard[1], receipt)
    found = read_receipt(tmp_path / "r.json", "inputs", shard[0])
    assert found is not None
    assert found[0] == shard[1]
    back = found[1]
    assert same(back, receipt)
    assert not same(back, some_receipt(5, 1))
    assert {name: getattr(back, name).dtype for name in COLUMNS} == COLUMNS


def test_a_receipt_of_no_files(tmp_path: Path, shard: tuple[Path, ShardInfo]) -> None:
    write_receipt(tmp_path / "r.json", "inputs", shard[1], Receipt(0))
    found = read_receipt(tmp_path / "r.json", "inputs", shard[0])
    assert found is not None
    assert len(found[1].positions) == 0


@pytest.mark.parametrize("columns", [True, False])
def test_what_is_said_of_the_shard(tmp_path: Path, shard: tuple[Path, ShardInfo], columns: bool) -> None:
    path, info = shard
    receipt = tmp_path / "r.json"
    assert read_info(receipt, "inputs", path) is None
    write_receipt(receipt, "inputs", info, some_receipt(3, 0) if columns else None)
    assert read_info(receipt, "inputs", path) == info
    assert read_info(receipt, "other inputs", path) is None


def test_a_receipt_without_its_whole_shard_does_not_count(tmp_path: Path, shard: tuple[Path, ShardInfo]) -> None:
    path, info = shard
    write_receipt(tmp_path / "r.json", "inputs", info)
    for content in (b"1234", b"123456"):
        path.write_bytes(content)
        assert read_info(tmp_path / "r.json", "inputs", path) is None
    path.unlink()
    assert read_info(tmp_path / "r.json", "inputs", path) is None
    path.mkdir()
    assert read_info(tmp_path / "r.json", "inputs", path) is None


@pytest.mark.parametrize("damage", [b"", bytes(100), b"{"])
def test_a_damaged_receipt_does_not_count(tmp_path: Path, shard: tuple[Path, ShardInfo], damage: bytes) -> None:
    """That of a shard which is not sealed may be what a power failure left."""
    path = tmp_path / "r.json"
    write_receipt(path, "inputs", shard[1], some_receipt(3, 0))
    path.write_bytes(damage or path.read_bytes()[:-1])
    assert read_info(path, "inputs", shard[0]) is None
    assert read_receipt(path, "inputs", shard[0]) is None


def damaged(values: Any) -> st.SearchStrategy[Any]:
    """Draws a JSON value with another one somewhere inside."""
    anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
    if isinstance(values, dict) and values:
        one = st.sampled_from(sorted(values)).flatmap(
            lambda key: damaged(values[key]).map(lambda value: {**values, key: value})
        )
        without = st.sampled_from(sorted(values)).map(lambda key: {k: v for k, v in values.items() if k != key})
        return anything | one | without
    if isinstance(values, list) and values:
        return anything | damaged(values[0]).map(lambda value: [value, *values[1:]]) | st.just(values[1:])
    return anything


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_receipt_of_any_form_counts_as_not_there(
    tmp_path: Path, shard: tuple[Path, ShardInfo], data: st.DataObject
) -> None:
    """Or it is about the files that it should be about."""
    path = tmp_path / "r.json"
    receipt = some_receipt(3, 0)
    receipt.positions[:] = [1, -1, 0]
    write_receipt(path, "inputs", shard[1], receipt)
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(data.draw(damaged(values))))
    read_info(path, "inputs", shard[0])
    found = read_receipt(path, "inputs", shard[0])
    if found is not None and found[1].is_about(3, 2):
        assert found[1].positions.tolist() == [1, -1, 0]
        assert list(found[1].refused) == [1]


def test_a_receipt_of_another_version(tmp_path: Path, shard: tuple[Path, ShardInfo]) -> None:
    path = tmp_path / "r.json"
    write_receipt(path, "inputs", shard[1], some_receipt(3, 0))
    values = json.loads(path.read_bytes())
    assert read_receipt(path, "inputs", shard[0]) is not None
    for form in (FORM + 1, None):
        path.write_text(json.dumps({**values, "form": form}))
        assert read_info(path, "inputs", shard[0]) is None
        assert read_receipt(path, "inputs", shard[0]) is None


def test_what_a_receipt_is_about() -> None:
    receipt = Receipt(3)
    receipt.positions[:] = [1, -1, 0]
    receipt.refused = {1: Refusal(Reason.EMPTY, "")}
    assert receipt.is_about(3, 2)
    assert not receipt.is_about(4, 2)  # other files
    assert not receipt.is_about(3, 3)
    receipt.positions[0] = 0  # one record twice
    assert not receipt.is_about(3, 2)
    receipt.positions[:] = [1, 0, -1]  # a file that is neither
    assert not receipt.is_about(3, 2)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_receipt_that_cannot_be_read_now_is_not_missing(
    tmp_path: Path, shard: tuple[Path, ShardInfo], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ConversionError, match=r"r\.json cannot be read: .*What is finished stays"):
        read_receipt(tmp_path / "r.json", "inputs", shard[0])


@pytest.mark.parametrize("sealed", [True, False])
def test_the_receipt_is_as_durable_as_its_shard(
    tmp_path: Path, shard: tuple[Path, ShardInfo], sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_receipt(tmp_path / "r.json", "inputs", shard[1] if sealed else dataclasses.replace(shard[1], sha256=""))
    assert len(synced) == sealed


def test_receipts_are_put_together_by_row() -> None:
    whole = Receipt(6)
    parts = [some_receipt(2, 0), some_receipt(3, 1)]
    rows = [np.array([4, 1]), np.array([3, 0, 5])]
    for each, part in zip(rows, parts, strict=True):
        whole.put(each, part)
    for each, part in zip(rows, parts, strict=True):
        for name in COLUMNS:
            assert (getattr(whole, name)[each] == getattr(part, name)).all()
    assert whole.positions[2] == -1
    assert set(whole.refused) == {1, 0}
    assert {type(row) for row in whole.refused} == {int}
    assert whole.vanished == {4, 3}
