"""One planned shard: its records, its receipt, and what is left of it when it cannot be finished."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.base_errors import ConversionError
from tfrecords.convert.image.decoder import ImageOptions
from tfrecords.convert.image.near_duplicates import perceptual_hashes
from tfrecords.convert.sources import open_source
from tfrecords.convert.state.receipts import Receipt, read_info, read_receipt
from tfrecords.convert.workers import shard_worker as worker_module
from tfrecords.convert.workers.shard_worker import Monitor, ShardTask, Stopped, place_of, writing
from tfrecords.format.example import decode_example
from tfrecords.format.naming import index_path
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.shard import ShardReader

NAME = "zoo-train.tfrecord-00000-of-00001"


class Noting(Monitor):
    """Notes what a task tells, and stops it when so many files are done."""

    def __init__(self, stop_at: int = -1) -> None:
        self.begun: list[int] = []
        self.refused: list[bool] = []
        self._stop_at = stop_at

    def begin(self, row: int) -> None:
        if len(self.refused) == self._stop_at:
            raise Stopped
        self.begun.append(row)

    def end(self, *, refused: bool) -> None:
        self.refused.append(refused)


@pytest.fixture
def task(tmp_path: Path, write_picture: Callable[..., None]) -> ShardTask:
    """Four files: a picture, an empty one, a missing one, a picture."""
    for number in (1, 4):
        write_picture(tmp_path / "photos" / f"{number}.png", number, size=(20 + number, 10))
    (tmp_path / "photos" / "2.png").write_bytes(b"")
    for folder in ("shards", "receipts"):
        (tmp_path / folder).mkdir()
    return ShardTask(
        shard=tmp_path / "shards" / NAME,
        receipt=tmp_path / "receipts" / f"{NAME}.json",
        inputs="these files",
        files=open_source(str(tmp_path / "photos")).files,
        rows=np.array([10, 11, 13, 12]),
        paths=("1.png", "2.png", "3.png", "4.png"),
        ids=np.array([7, 5, 6, 2]),
        labels=np.array([1, 0, 0, 3]),
        places=None,
        image=ImageOptions(image_size=8),
        encoding="raw",
        jpeg_quality=95,
        hashed=True,
        durable=True,
    )


def run(task: ShardTask) -> tuple[Receipt, Noting]:
    monitor = Noting()
    task.run(monitor)
    found = read_receipt(task.receipt, task.inputs, task.shard)
    assert found is not None
    return found[1], monitor


def nothing_of(task: ShardTask) -> bool:
    return not list(task.shard.parent.iterdir()) and not list(task.receipt.parent.iterdir())


def test_records_and_receipt(task: ShardTask, tmp_path: Path) -> None:
    receipt, monitor = run(task)
    assert monitor.begun == [10, 11, 13, 12]
    assert monitor.refused == [False, True, True, False]
    assert receipt.positions.tolist() == [0, -1, -1, 1]
    assert {number: refusal.reason for number, refusal in receipt.refused.items()} == {
        1: Reason.EMPTY,
        2: Reason.UNREADABLE,
    }
    assert receipt.refused[2].detail == "No such file or directory"
    assert list(zip(receipt.widths, receipt.heights, strict=True)) == [(21, 10), (0, 0), (0, 0), (24, 10)]
    digests = [hashlib.sha256((tmp_path / "photos" / f"{n}.png").read_bytes()).digest() for n in (1, 2, 4)]
    assert [row.tobytes() for row in receipt.sha256] == [digests[0], digests[1], bytes(32), digests[2]]

    examples = [decode_example(payload) for payload in ShardReader(task.shard)]
    assert [(example["id"], example["label"]) for example in examples] == [(7, 1), (2, 3)]
    for number, example in zip((0, 3), examples, strict=True):
        assert isinstance(example["image"], bytes)
        assert receipt.pixels_sha256[number].tobytes() == hashlib.sha256(example["image"]).digest()
        pixels = np.frombuffer(example["image"], np.uint8).reshape(8, 8, 3)
        assert receipt.phash[number] == perceptual_hashes(pixels[None])[0]
    info = read_info(task.receipt, task.inputs, task.shard)
    assert info is not None
    assert (info.file, info.num_examples) == (NAME, 2)
    assert info.sha256 == hashlib.sha256(task.shard.read_bytes()).hexdigest()


def test_pixels_are_known_by_what_they_are_and_not_by_how_they_are_stored(task: ShardTask) -> None:
    raw, _ = run(task)
    jpeg, _ = run(dataclasses.replace(task, encoding="jpeg", jpeg_quality=10))
    assert (raw.pixels_sha256 == jpeg.pixels_sha256).all()
    assert (raw.phash == jpeg.phash).all()


def test_hashes_only_where_copies_are_looked_for(task: ShardTask) -> None:
    assert run(task)[0].phash.any()
    assert not run(dataclasses.replace(task, hashed=False))[0].phash.any()


def test_a_sidecar_beside_compressed_records_only(task: ShardTask) -> None:
    run(task)
    assert not index_path(task.shard).exists()
    run(dataclasses.replace(task, encoding="jpeg"))
    assert len(ShardReader(task.shard).offsets()) == 2


def test_receipt_comes_after_the_shard(task: ShardTask, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b))[1])
    run(dataclasses.replace(task, encoding="png"))
    assert order == [f"{NAME}.idx", NAME, f"{NAME}.json"]


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_shard_that_others_may_be_made_of_does_not_wait_for_the_disk(
    task: ShardTask, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = dataclasses.replace(task, encoding=encoding)
    run(task)
    data, sealed = task.shard.read_bytes(), read_info(task.receipt, task.inputs, task.shard)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waits for the disk"))
    run(dataclasses.replace(task, durable=False))
    assert sealed is not None
    assert sealed.sha256
    assert read_info(task.receipt, task.inputs, task.shard) == dataclasses.replace(sealed, sha256="")
    assert task.shard.read_bytes() == data


@pytest.mark.parametrize("batch_bytes", [1, 2 * 8 * 8 * 3, 1 << 20])
def test_pictures_are_written_in_batches_as_one_by_one(
    task: ShardTask, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt, _ = run(task)
    data = task.shard.read_bytes()
    monkeypatch.setattr(worker_module, "_BATCH_BYTES", batch_bytes)
    again, _ = run(task)
    assert task.shard.read_bytes() == data
    for name in ("sha256", "pixels_sha256", "phash", "positions"):
        assert (getattr(again, name) == getattr(receipt, name)).all()


@pytest.mark.parametrize("num_files", range(4))
def test_stopped_leaves_nothing(task: ShardTask, num_files: int) -> None:
    monitor = Noting(stop_at=num_files)
    with pytest.raises(Stopped):
        task.run(monitor)
    assert len(monitor.refused) == num_files
    assert nothing_of(task)


@pytest.mark.parametrize("part", ["shard", "receipt"])
def test_a_folder_that_cannot_be_written_is_named(task: ShardTask, tmp_path: Path, part: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    elsewhere: dict[str, Any] = {part: tmp_path / "file" / "x"}
    with pytest.raises(
        ConversionError, match=r"file/x cannot be written: Not a directory\..*give the same command again"
    ):
        run(dataclasses.replace(task, **elsewhere))


def test_too_little_memory_is_the_machines_fault_and_not_the_files(
    task: ShardTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(worker_module, "load_image", fail)
    with pytest.raises(ConversionError, match=r"1\.png: not enough memory .* fewer --num_workers"):
        run(task)
    assert nothing_of(task)


def test_too_little_memory_to_write_is_told_likewise(tmp_path: Path) -> None:
    with (
        pytest.raises(ConversionError, match=r"some_shard: not enough memory .* fewer --num_workers"),
        writing(tmp_path / "some_shard"),
    ):
        raise MemoryError


def test_files_are_read_by_their_places_where_they_have_some(task: ShardTask, tmp_path: Path) -> None:
    class Container:
        def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
            read.append((path, place))
            raise Refusal(Reason.CHANGED, "")

    read: list[tuple[str, tuple[int, int, int] | None]] = []
    places = np.array([[0, 10, 5], [0, 20, 6], [1, 2**40, 7], [1, 40, 8]])
    receipt, _ = run(dataclasses.replace(task, files=Container(), places=places))
    assert read[2] == ("3.png", (1, 2**40, 7))
    assert {type(number) for _, place in read for number in place or ()} == {int}
    assert len(receipt.refused) == 4
    assert place_of(None, 3) is None
