"""The comparison of crops: its records, each tool's script in this process, and its table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.bench.converters.tool_server import ReadJob
from simimg.bench.crop_comparison import CROP_LIMIT, CROP_RIVALS, SHORT_SIDE, crop_records
from simimg.bench.image_sets import good_jpegs
from simimg.bench.loaders import crop_loader
from simimg.bench.measurements import Run
from simimg.bench.reader_comparison import InputComparison, aims, loader
from simimg.bench.record_sets import Records
from simimg.commands.bench_crops import crops_table
from simimg.errors import UsageError
from tfrecords.format.jpeg_frame import read_sizes


@pytest.fixture(scope="module")
def records(scene: Callable[..., Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = tmp_path_factory.mktemp("crops")
    for number in range(3):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number, (90 + number, 60)).save(path)
    return crop_records(good_jpegs(folder / "photos", folder), 6, folder)


def test_records_are_large_photos(records: Records) -> None:
    split = records.split
    sizes = np.concatenate([read_sizes(shard.path, shard.num_examples) for shard in split.shards])
    assert (sizes.min(axis=1) == SHORT_SIDE).all()
    assert split.num_examples == 6
    assert records.what.startswith("6 JPEGs, short side 500 px, quality 90, ")
    with pytest.raises(UsageError, match="--num_images=0"):
        crop_records(good_jpegs(records.image_dir, records.forms_dir), 0, records.forms_dir)


@pytest.mark.parametrize("variant", ["simimg", *CROP_RIVALS, CROP_LIMIT.variant])
def test_each_tool_delivers_all(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    split = records.split
    job = ReadJob(
        dataset_dir=str(split.dataset_dir),
        shards=[str(shard.path) for shard in split.shards],
        records=[shard.num_examples for shard in split.shards],
        image_dir=str(records.image_dir),
        encoding="jpeg",
        image_size=32,
        batch_size=3,
        num_workers=2,
        variant=variant,
        forms_dir=str(records.forms_dir),
        work_dir=str(tmp_path),
    )
    monkeypatch.setattr(crop_loader, "_READERS", [])
    assert crop_loader.load(job)["versions"]
    run = crop_loader.prepare(job, tmp_path)
    assert run() == job.num_images == 6


def test_the_table() -> None:
    def runs(seconds: float) -> list[Run]:
        return [Run(seconds, 1000, 0, seconds)] * 5

    found = {"region": runs(1.0), "dali": runs(1.4), "tfdata": runs(2.4)}
    limit = runs(0.5)
    comparison = InputComparison(
        what="6 JPEGs",
        num_images=1000,
        batch_size=2,
        limit_images_per_s=2000,
        loaders=tuple(loader(name, name == "region", each, limit) for name, each in found.items()),
        aims=aims("jpeg", found, (("region", "tfdata", 2.5), ("region", "dali", 1.3), ("region", "ffcv", 2.5))),
        rounds=found,
        tools={},
        left_out={},
    )
    lines = crops_table(comparison)
    assert lines[0] == "crops of 8-100 % of the area to 224 px: 6 JPEGs"
    assert lines[2].split() == ["simimg,", "region", "1.00", "1.00", "to", "1.00", "1.00", "50%"]
    assert lines[3].split() == ["dali", "1.40", "1.40", "to", "1.40", "1.40", "36%"]
    assert lines[-2].endswith("of the processor time of tfdata (2.40 to 2.40); aim 1/2.5: NOT MET")
    assert lines[-1].endswith("of the processor time of dali (1.40 to 1.40); aim 1/1.3: met")
