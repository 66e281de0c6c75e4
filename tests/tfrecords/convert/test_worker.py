"""One planned shard: its records, its receipt, and what is left of it when it cannot be finished."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.convert import worker as worker_module
from tfrecords.convert.plan import PlannedShard
from tfrecords.convert.worker import Receipt, ShardTask, Stopped, convert_shard, read_receipt, receipt_path
from tfrecords.errors import ConversionError, DataError
from tfrecords.format.example import decode_example
from tfrecords.format.shard import ShardReader


@pytest.fixture
def task(tmp_path: Path, write_picture: Callable[..., None]) -> ShardTask:
    """Four files: a picture, an empty one, a missing one, a picture."""
    for number in (1, 4):
        write_picture(tmp_path / "photos" / f"{number}.png", number, size=(20 + number, 10))
    (tmp_path / "photos" / "2.png").write_bytes(b"")
    for folder in ("shards", "receipts"):
        (tmp_path / folder).mkdir()
    return ShardTask(
        planned=PlannedShard(file="zoo-train.tfrecord-00000-of-00001", split="train", shard=0, ids=(7, 5, 6, 2)),
        image_dir=tmp_path / "photos",
        paths=("1.png", "2.png", "3.png", "4.png"),
        labels=(1, 0, 0, 3),
        shard_dir=tmp_path / "shards",
        receipt_dir=tmp_path / "receipts",
        image_size=4,
        resize="stretch",
        encoding="raw",
        jpeg_quality=95,
    )


def run(task: ShardTask) -> tuple[Receipt, list[bool]]:
    advanced: list[bool] = []
    return convert_shard(task, advanced.append, lambda: False), advanced


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_records_and_outcomes(task: ShardTask) -> None:
    receipt, advanced = run(task)
    assert advanced == [False, True, True, False]
    assert [(o.id, o.position, o.reason) for o in receipt.outcomes] == [
        (7, 0, ""),
        (5, -1, "empty"),
        (6, -1, "unreadable"),
        (2, 1, ""),
    ]
    assert [(o.width, o.height) for o in receipt.outcomes] == [(21, 10), (0, 0), (0, 0), (24, 10)]
    assert receipt.outcomes[2].detail == "No such file or directory"
    assert [bool(o.sha256) for o in receipt.outcomes] == [True, True, False, True]
    examples = [decode_example(payload) for payload in ShardReader(task.shard_dir / receipt.info.file)]
    assert [(example["id"], example["label"]) for example in examples] == [(7, 1), (2, 3)]
    assert receipt.info.num_examples == 2


def test_receipt_is_read_back(task: ShardTask) -> None:
    assert read_receipt(task) is None
    receipt, _ = run(task)
    assert read_receipt(task) == receipt


def test_a_receipt_without_its_whole_shard_does_not_count(task: ShardTask) -> None:
    receipt, _ = run(task)
    shard = task.shard_dir / receipt.info.file
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    assert read_receipt(task) is None
    shard.unlink()
    assert read_receipt(task) is None


def test_a_damaged_receipt_is_named(task: ShardTask) -> None:
    run(task)
    path = receipt_path(task.receipt_dir, task.planned)
    path.write_bytes(b"{")
    with pytest.raises(DataError, match=r"00000-of-00001\.json is no valid JSON"):
        read_receipt(task)


def test_receipt_comes_after_the_shard(task: ShardTask, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b))[1])
    run(dataclasses.replace(task, encoding="png"))
    name = task.planned.file
    assert order == [f"{name}.idx", name, f"{name}.json"]


@pytest.mark.parametrize("num_files", range(4))
def test_stopped_leaves_nothing(task: ShardTask, num_files: int) -> None:
    advanced: list[bool] = []
    with pytest.raises(Stopped):
        convert_shard(task, advanced.append, lambda: len(advanced) == num_files)
    assert len(advanced) == num_files
    assert names(task.shard_dir) == names(task.receipt_dir) == []


def test_a_folder_that_cannot_be_written_is_named(task: ShardTask, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in ("shard_dir", "receipt_dir"):
        with pytest.raises(ConversionError, match=r"zoo-train\.tfrecord-00000-of-00001 cannot be written: Not a dir"):
            run(dataclasses.replace(task, **{folder: tmp_path / "file"}))


def test_too_little_memory_is_the_machines_fault_and_not_the_files(
    task: ShardTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(worker_module, "decode", fail)
    with pytest.raises(ConversionError, match=r"1\.png: not enough memory .* fewer --num_workers"):
        run(task)
    assert names(task.shard_dir) == names(task.receipt_dir) == []
