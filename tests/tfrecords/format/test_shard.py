"""A shard has its name when it is whole, and its sidecar says what is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import CorruptRecordError, DataError
from tfrecords.format.layout import ShardInfo
from tfrecords.format.naming import index_path
from tfrecords.format.record import footer, header
from tfrecords.format.shard import ShardReader, open_shard


def frame(payload: bytes) -> bytes:
    """Returns a payload as a record, with its framing."""
    return header(len(payload)) + payload + footer(payload)


PAYLOADS = [b"one", b"", b"three" * 50]


def write(path: Path, payloads: list[bytes], *, index: bool = False) -> ShardInfo:
    with open_shard(path, index=index) as writer:
        for payload in payloads:
            writer.write(payload)
    return writer.info()


def write_half(path: Path, failure: type[BaseException], *, index: bool = False) -> None:
    with open_shard(path, index=index) as writer:
        writer.write(b"other")
        raise failure


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("index", [False, True])
def test_no_final_name_before_the_end(tmp_path: Path, index: bool) -> None:
    path = tmp_path / "shard"
    with open_shard(path, index=index) as writer:
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
    assert ShardReader(tmp_path / "shard").offsets().shape == (0, 2)


def test_sidecar_says_where_each_record_lies(tmp_path: Path) -> None:
    path = tmp_path / "shard"

    @given(st.lists(st.binary(max_size=200), max_size=8))
    @settings(max_examples=15)  # each one waits for the disk
    def check(payloads: list[bytes]) -> None:
        write(path, payloads, index=True)
        reader = ShardReader(path)
        data = path.read_bytes()
        assert [data[at : at + length] for at, length in reader.offsets().tolist()] == list(map(frame, payloads))
        assert [reader.read(at, length) for at, length in reader.offsets().tolist()[::-1]] == payloads[::-1]
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


@pytest.mark.parametrize("index", [False, True])
def test_one_that_is_not_sealed_has_the_same_bytes(
    tmp_path: Path, index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = write(tmp_path / "sealed", PAYLOADS, index=index)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waits for the disk"))
    with open_shard(tmp_path / "other", index=index, durable=False) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
        assert not (tmp_path / "other").exists()
    assert writer.info() == dataclasses.replace(sealed, file="other", sha256="")
    assert (tmp_path / "other").read_bytes() == (tmp_path / "sealed").read_bytes()
    if index:
        assert index_path(tmp_path / "other").read_bytes() == index_path(tmp_path / "sealed").read_bytes()


def test_framed_records_are_copied_as_they_are(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, PAYLOADS, index=True)
    reader = ShardReader(old)
    places = reader.offsets().tolist()
    framed = [reader.read_framed(*place) for place in places]
    assert framed == list(map(frame, PAYLOADS))
    with open_shard(new, index=True) as writer:
        writer.write_framed(framed[2])
        writer.write(b"between")
        writer.write_framed(framed[0])
    data = framed[2] + frame(b"between") + framed[0]
    assert new.read_bytes() == data
    assert writer.info() == ShardInfo(
        file="new", num_examples=3, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    assert list(ShardReader(new)) == [PAYLOADS[2], b"between", PAYLOADS[0]]
    assert [length for _, length in ShardReader(new).offsets().tolist()] == [len(framed[2]), 23, len(framed[0])]
    for at in (0, 9, 13, places[0][1] - 1):  # length, its checksum, payload, its checksum
        data = bytearray(old.read_bytes())
        data[at] ^= 1
        old.write_bytes(data)
        with pytest.raises(CorruptRecordError, match=f"old: no record of {places[0][1]} bytes at byte 0"):
            ShardReader(old).read_framed(*places[0])
        data[at] ^= 1
        old.write_bytes(data)


def test_a_framed_record_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    with pytest.raises(DataError, match="shard is missing"):
        ShardReader(path).read_framed(0, 19)
    write(path, PAYLOADS)
    size = path.stat().st_size
    assert len(ShardReader(path).read_framed(size - 266, 266)) == 266
    for length in (0, 15, 265):
        with pytest.raises(CorruptRecordError, match=f"no record of {length} bytes at byte {size - 266}"):
            ShardReader(path).read_framed(size - 266, length)
    with pytest.raises(CorruptRecordError, match=f"no record of 266 bytes at byte {size - 265}"):
        ShardReader(path).read_framed(size - 265, 266)


def test_a_shard_of_many_pieces(tmp_path: Path) -> None:
    """What is written is gathered first; its order and checksum are those of the records."""
    payloads = [bytes([number]) * (number * 1000) for number in range(60)]
    info = write(tmp_path / "shard", payloads, index=True)
    data = b"".join(map(frame, payloads))
    assert (tmp_path / "shard").read_bytes() == data
    assert (info.num_bytes, info.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert list(ShardReader(tmp_path / "shard")) == payloads


def test_reading_by_place_keeps_one_file_open_as_long_as_the_reader_lives(
    tmp_path: Path, num_open: Callable[[Path], int]
) -> None:
    path = tmp_path / "shard"
    write(path, PAYLOADS)
    reader = ShardReader(path)
    assert num_open(path) == 0
    for _ in range(3):
        assert reader.read(0, 19) == b"one"
    assert reader.read(19, 16) == b""
    assert num_open(path) == 1
    del reader
    assert num_open(path) == 0


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    reader = ShardReader(tmp_path / "shard")
    with pytest.raises(DataError, match="shard is missing"):
        list(reader)
    with pytest.raises(DataError, match=r"shard\.idx is missing"):
        reader.offsets()
    for damaged in (b"0\n", b"0 1 2\n", b"a b\n", b"0 19\n\n", b"\xff\n"):
        index_path(reader.path).write_bytes(damaged)
        with pytest.raises(DataError, match=r"shard\.idx should have one line `offset length` per record"):
            reader.offsets()
