"""A shard has its name when it is whole, and its sidecar says what is in it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.errors import CorruptRecordError, DataError
from tfrecords.format.layout import ShardInfo
from tfrecords.format.record import frame
from tfrecords.format.shard import ShardReader, ShardWriter, index_path

PAYLOADS = [b"one", b"", b"three" * 50]


def write(path: Path, payloads: list[bytes], *, index: bool = False) -> ShardInfo:
    with ShardWriter(path, index=index) as writer:
        for payload in payloads:
            writer.write(payload)
    return writer.info()


def write_half(path: Path, failure: type[BaseException], *, index: bool = False) -> None:
    with ShardWriter(path, index=index) as writer:
        writer.write(b"other")
        raise failure


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("index", [False, True])
def test_no_final_name_before_the_end(tmp_path: Path, index: bool) -> None:
    path = tmp_path / "shard"
    with ShardWriter(path, index=index) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
            assert not path.exists()
            assert not index_path(path).exists()
    assert names(tmp_path) == (["shard", "shard.idx"] if index else ["shard"])


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("index", [False, True])
def test_a_failing_block_leaves_nothing(tmp_path: Path, index: bool, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        write_half(tmp_path / "shard", failure, index=index)
    assert names(tmp_path) == []


def test_a_sidecar_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the exception, and with it the writer, is still alive."""
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if str(target).endswith(".idx"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "shard", PAYLOADS, index=True)
    assert names(tmp_path) == []
    assert caught.value.errno == 28


def test_a_shard_is_never_without_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b))[1])
    write(tmp_path / "shard", PAYLOADS, index=True)
    assert order == ["shard.idx", "shard"]


def test_an_earlier_shard_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    write(tmp_path / "shard", PAYLOADS)
    before = (tmp_path / "shard").read_bytes()
    with pytest.raises(KeyError):
        write_half(tmp_path / "shard", KeyError)
    assert (tmp_path / "shard").read_bytes() == before


def test_info_is_what_lies_there(tmp_path: Path) -> None:
    info = write(tmp_path / "shard", PAYLOADS)
    data = (tmp_path / "shard").read_bytes()
    assert data == b"".join(map(frame, PAYLOADS))
    assert info == ShardInfo(file="shard", num_examples=3, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def test_empty_shard(tmp_path: Path) -> None:
    info = write(tmp_path / "shard", [], index=True)
    assert (info.num_examples, info.num_bytes) == (0, 0)
    assert list(ShardReader(tmp_path / "shard")) == []
    assert ShardReader(tmp_path / "shard").offsets() == []


def test_sidecar_says_where_each_record_lies(tmp_path: Path) -> None:
    path = tmp_path / "shard"

    @given(st.lists(st.binary(max_size=200), max_size=8))
    @settings(deadline=None, max_examples=15)  # each one waits for the disk
    def check(payloads: list[bytes]) -> None:
        write(path, payloads, index=True)
        reader = ShardReader(path)
        data = path.read_bytes()
        assert [data[at : at + length] for at, length in reader.offsets()] == list(map(frame, payloads))
        assert [reader.read(at, length) for at, length in reversed(reader.offsets())] == payloads[::-1]
        assert list(reader) == payloads

    check()


def test_sidecar_has_the_form_of_tfrecord2idx(tmp_path: Path) -> None:
    write(tmp_path / "shard", PAYLOADS, index=True)
    assert index_path(tmp_path / "shard").read_bytes() == b"0 19\n19 16\n35 266\n"


@pytest.mark.parametrize(("offset", "length"), [(0, 18), (0, 0), (301, 16), (10_000, 19)])
def test_reading_beside_a_record_is_an_error(tmp_path: Path, offset: int, length: int) -> None:
    write(tmp_path / "shard", PAYLOADS)
    message = re.escape(f"shard: no record of {length} bytes at byte {offset}")
    with pytest.raises(CorruptRecordError, match=message):
        ShardReader(tmp_path / "shard").read(offset, length)


def test_reading_inside_a_record_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "shard", PAYLOADS)
    with pytest.raises(CorruptRecordError, match="shard: no record of 19 bytes at byte 1"):
        ShardReader(tmp_path / "shard").read(1, 19)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    reader = ShardReader(tmp_path / "shard")
    with pytest.raises(DataError, match="shard is missing"):
        list(reader)
    with pytest.raises(DataError, match=r"shard\.idx is missing"):
        reader.offsets()
    for damaged in (b"0\n", b"0 1 2\n", b"a b\n", b"0 19\n\n", b"\xff\n"):
        index_path(reader.path).write_bytes(damaged)
        with pytest.raises(DataError, match=r"shard\.idx should hold a line `offset length`"):
            reader.offsets()
