"""Shards that are put together from the records of others: the same bytes, and no picture decoded a second time."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError
from tfrecords.convert.output.reshard import ReshardTask, SyncTask, link_or_copy, whole_scan
from tfrecords.convert.state.receipts import read_info
from tfrecords.convert.workers.shard_worker import Monitor, Stopped
from tfrecords.format.naming import index_path
from tfrecords.format.record import FRAMING_BYTES
from tfrecords.format.record_layout import Offsets, encode_record
from tfrecords.format.shard import ShardReader, open_shard


def payload(number: int, encoding: str) -> bytes:
    """A record whose length depends on its number, except with raw pixels."""
    return encode_record(bytes([number]) * (12 if encoding == "raw" else 5 + number), number, number)


@pytest.fixture(params=["raw", "png"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(tmp_path: Path, encoding: str) -> ReshardTask:
    """Records 1, 4, 0, 4 of two shards that have 0 to 2 and 3 to 5."""
    sources = []
    for start in (0, 3):
        sources.append(tmp_path / f"from_{start}")
        with open_shard(sources[-1], index=encoding != "raw") as writer:
            for number in range(start, start + 3):
                writer.write(payload(number, encoding))
    (tmp_path / "out").mkdir()
    return ReshardTask(
        shard=tmp_path / "out" / "shard",
        receipt=tmp_path / "out" / "shard.assembled.json",
        inputs="these",
        sources=tuple(sources),
        rows=np.array([7, 8, 9, 6]),
        source_of=np.array([0, 1, 0, 1], np.int32),
        positions=np.array([1, 1, 0, 1]),
        offsets=Offsets.of("raw", 2) if encoding == "raw" else Offsets(),
    )


def test_the_bytes_are_those_of_a_shard_that_was_written_so(task: ReshardTask, tmp_path: Path, encoding: str) -> None:
    task.run(Monitor())
    with open_shard(tmp_path / "straight", index=encoding != "raw") as writer:
        for number in (1, 4, 0, 4):
            writer.write(payload(number, encoding))
    assert task.shard.read_bytes() == (tmp_path / "straight").read_bytes()
    assert index_path(task.shard).exists() == (encoding != "raw")
    if encoding != "raw":
        assert index_path(task.shard).read_bytes() == index_path(tmp_path / "straight").read_bytes()
    info = read_info(task.receipt, "these", task.shard)
    assert info is not None
    assert (info.file, info.num_examples, info.sha256) == ("shard", 4, writer.info().sha256)
    assert list(map(len, ShardReader(task.shard))) == [len(payload(n, encoding)) for n in (1, 4, 0, 4)]


def test_a_stopped_one_leaves_nothing(task: ReshardTask) -> None:
    class StopsAt(Monitor):
        def begin(self, row: int) -> None:
            begun.append(row)
            if row == 9:
                raise Stopped

    begun: list[int] = []
    with pytest.raises(Stopped):
        task.run(StopsAt())
    assert begun == [7, 8, 9]
    assert list(task.shard.parent.iterdir()) == []


def test_a_shard_that_cannot_be_read_in_full_is_named(task: ReshardTask) -> None:
    """Rather than that a half record becomes part of another shard."""
    data = task.sources[1].read_bytes()
    task.sources[1].write_bytes(data[: len(data) // 2])
    with pytest.raises(ConversionError, match="from_3: no record .* the same command again"):
        task.run(Monitor())
    assert list(task.shard.parent.iterdir()) == []


def test_a_spoiled_record_is_not_handed_on(task: ReshardTask) -> None:
    data = bytearray(task.sources[0].read_bytes())
    data[len(data) // 2] ^= 1
    task.sources[0].write_bytes(bytes(data))
    with pytest.raises(ConversionError, match="from_0"):
        task.run(Monitor())
    assert list(task.shard.parent.iterdir()) == []


# Seals


@pytest.fixture
def seal(tmp_path: Path, encoding: str) -> SyncTask:
    """A shard of three records that is not sealed."""
    with open_shard(tmp_path / "shard", index=encoding != "raw", durable=False) as writer:
        for number in range(3):
            writer.write(payload(number, encoding))
    return SyncTask(
        shard=tmp_path / "shard",
        receipt=tmp_path / "shard.sealed.json",
        inputs="these",
        rows=np.array([5, 6, 7, 8]),
        info=writer.info(),
    )


def test_a_sealed_shard_is_durable_and_has_its_checksum(seal: SyncTask, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}"))), fsync(file))
    )
    before = seal.shard.read_bytes()
    seal.run(Monitor())
    assert seal.shard.read_bytes() == before
    info = read_info(seal.receipt, "these", seal.shard)
    assert info == dataclasses.replace(seal.info, sha256=hashlib.sha256(before).hexdigest())
    names = ["shard", "shard.idx"] if index_path(seal.shard).exists() else ["shard"]
    assert synced[: len(names)] == names
    assert len(synced) == len(names) + 1  # the receipt


@pytest.mark.parametrize("damage", ["a bit", "the end", "a record", "more", "the sidecar"])
def test_a_shard_that_was_damaged_is_not_sealed(seal: SyncTask, damage: str) -> None:
    assert whole_scan(seal.shard, seal.info)
    path = index_path(seal.shard) if damage == "the sidecar" else seal.shard
    if not path.exists():
        pytest.skip("raw shards have none")
    data = bytearray(path.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 4
    elif damage == "the end":
        del data[-1]
    elif damage == "a record":
        del data[-(len(payload(2, "raw" if not index_path(path).exists() else "png")) + FRAMING_BYTES) :]
    else:
        data += b"0 1\n"
    path.write_bytes(data)
    assert not whole_scan(seal.shard, seal.info)
    with pytest.raises(ConversionError, match="shard was damaged since it was written.*the same command again"):
        seal.run(Monitor())
    assert not seal.receipt.exists()


def test_a_stopped_seal_leaves_no_receipt(seal: SyncTask) -> None:
    class Stops(Monitor):
        def begin(self, row: int) -> None:
            raise Stopped

    with pytest.raises(Stopped):
        seal.run(Stops())
    assert not seal.receipt.exists()
    dataclasses.replace(seal, rows=np.empty(0, np.int64)).run(Stops())
    assert seal.receipt.exists()


# Second names


def test_a_link_is_the_same_file_with_its_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"shard")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    index_path(tmp_path / "a").write_bytes(b"0 5\n")
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert os.path.samefile(index_path(tmp_path / "a"), index_path(tmp_path / "c"))


def test_a_copy_where_links_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_bytes(b"shard")
    index_path(tmp_path / "a").write_bytes(b"0 5\n")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"shard"
    assert index_path(tmp_path / "b").read_bytes() == b"0 5\n"
    assert not os.path.samefile(tmp_path / "a", tmp_path / "b")


def test_a_shard_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
