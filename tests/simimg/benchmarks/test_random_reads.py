"""The comparison of random reads measures every way, on equal images, where Grain is a stand-in over the same files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from benchmarks import random_reads
from benchmarks.random_reads import WAYS, measure
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.array_record_shard import ArrayRecordReader


class Source:
    """Reads like Grain's ArrayRecordDataSource."""

    def __init__(self, paths: list[str]) -> None:
        self._records = [payload for path in paths for payload in ArrayRecordReader(Path(path))]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> Any:
        return self._records[place]


class Stages:
    """Does the stages of a MapDataset at once."""

    def __init__(self, source: Any) -> None:
        self._rows = list(source)

    def shuffle(self, seed: int) -> Stages:
        return Stages(self._rows[seed:] + self._rows[:seed])

    def map(self, call: Any) -> Stages:
        return Stages(map(call, self._rows))

    def to_iter_dataset(self) -> Stages:
        return self

    def batch(self, size: int) -> list[Any]:
        parts = [self._rows[start : start + size] for start in range(0, len(self._rows), size)]
        return [tuple(zip(*part, strict=True)) for part in parts]


def test_every_way_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules,
        "grain",
        SimpleNamespace(
            sources=SimpleNamespace(ArrayRecordDataSource=Source), MapDataset=SimpleNamespace(source=Stages)
        ),
    )
    monkeypatch.setattr(random_reads, "_READS", 10)
    for number in range(8):
        path = tmp_path / "images" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 30, 7, 0)).save(path)
    folders = [
        convert(
            ConvertConfig(
                image_dir=str(tmp_path / "images"),
                data_dir=tmp_path / file_format,
                image_size=4,
                format=file_format,
                copies="ignore",
                num_workers=1,
            )
        ).dataset_dir
        for file_format in ("tfrecord", "array_record")
    ]
    found = measure(folders[0], folders[1], repeats=1, min_s=0.03)
    assert tuple(found) == WAYS
    for figures in found.values():
        assert figures["ours"]["median"] > 0
        assert figures["array_record"]["median"] > 0
    assert len(list(random_reads._lines(found))) == 2 + len(WAYS)
