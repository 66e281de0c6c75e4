"""The comparison of readers: what is made of given times, the rivals' scripts, and one small run from flags to plot."""

from __future__ import annotations

import importlib
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simimg.bench.bench_plots import Bar, plot_bars
from simimg.bench.converters import Tool
from simimg.bench.converters.tool_server import ReadJob
from simimg.bench.image_sets import good_jpegs
from simimg.bench.loaders import LIMIT, OURS, RIVALS
from simimg.bench.measurements import Run
from simimg.bench.reader_comparison import aims, loader
from simimg.bench.record_sets import Records, records_of
from simimg.commands import bench
from simimg.errors import SimimgError, UsageError
from simimg.input.readers.resident import load_examples

pytestmark = pytest.mark.usefixtures("forked_children")

SIZE, COUNT, BATCH = 16, 30, 4
TOOLS = [LIMIT, *(tool for tools in OURS.values() for tool in tools), *(t for r in RIVALS.values() for t in r.values())]


def runs(*seconds: float) -> list[Run]:
    return [Run(value, 100, 0, 1.5 * value, 10**9) for value in seconds]


def test_figures_of_a_loader() -> None:
    found = loader("mapped", True, runs(1.0, 2.0, 4.0, 1.0, 1.0), runs(0.5, 1.0, 2.0, 0.5, 0.5))
    assert (found.images_per_s, found.ci95) == (100, (25, 100))
    assert (found.ratio_to_limit, found.ratio_to_limit_ci95) == (0.5, (0.5, 0.5))
    assert (found.cores, found.peak_bytes) == (1.5, 10**9)


def test_aims_are_looked_at_round_by_round() -> None:
    slow = (1.0, 5.0, 1.0)
    found = aims(
        "raw",
        {
            "resident": runs(*slow),
            "mapped": runs(*slow),
            "ffcv": runs(*(1.01 * value for value in slow)),
            "dali": runs(*(2.99 * value for value in slow)),
        },
    )
    assert [(aim.reader, aim.rival, aim.met) for aim in found] == [
        ("resident", "ffcv", True),
        ("mapped", "dali", False),
    ]
    assert found[1].ratio == pytest.approx(2.99)


@pytest.fixture(scope="module")
def records(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Records]:
    cache_dir = tmp_path_factory.mktemp("cache")
    photos = good_jpegs(folder, cache_dir)
    return {encoding: records_of(photos, COUNT, SIZE, encoding, cache_dir) for encoding in OURS}


@pytest.mark.parametrize("encoding", OURS)
def test_all_forms_hold_the_same_pictures(records: dict[str, Records], encoding: str) -> None:
    found = records[encoding]
    examples = load_examples(found.split, num_threads=1)
    assert found.split.num_examples == COUNT
    np.testing.assert_array_equal(np.load(found.forms_dir / "pixels.npy"), examples.images)
    np.testing.assert_array_equal(np.load(found.forms_dir / "labels.npy"), examples.labels)
    assert len(list(found.image_dir.glob("*/*.jpg"))) == COUNT
    if encoding == "raw":
        return
    by_id = dict(zip(examples.ids.tolist(), zip(examples.images, examples.labels, strict=True), strict=True))
    seen = 0
    for path in found.forms_dir.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                pixels, label = by_id[int(member.name[:8])]
                file = tar.extractfile(member)
                assert file is not None
                if member.name.endswith(".cls"):
                    assert int(file.read()) == label
                else:
                    np.testing.assert_array_equal(np.asarray(Image.open(file)), pixels)
                    seen += 1
    assert seen == COUNT
    for path in found.forms_dir.glob("files/*/*.jpg"):
        pixels, label = by_id[int(path.stem)]
        assert path.parent.name == f"class_{label:03}"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
        seen += 1
    assert seen == 2 * COUNT


@pytest.mark.parametrize(
    ("encoding", "tool"),
    [
        (encoding, tool)
        for encoding in OURS
        for tool in (LIMIT, *OURS[encoding], *RIVALS[encoding].values())
        if tool.requirements is None
    ],
    ids=lambda value: value.name if isinstance(value, Tool) else value,
)
def test_scripts_that_run_in_our_environment(
    records: dict[str, Records], tmp_path: Path, encoding: str, tool: Tool
) -> None:
    found = records[encoding]
    job = ReadJob(
        dataset_dir=str(found.split.dataset_dir),
        shards=[str(shard.path) for shard in found.split.shards],
        records=[shard.num_examples for shard in found.split.shards],
        image_dir=str(found.image_dir),
        encoding=encoding,
        image_size=SIZE,
        batch_size=BATCH,
        num_workers=2,
        variant=tool.variant,
        forms_dir=str(found.forms_dir),
        work_dir=str(tmp_path),
    )
    module: Any = importlib.import_module(f"simimg.bench.loaders.{tool.script.stem}")
    for name in ("_BATCHES", "_BUILDERS"):  # what a process of its own begins without
        getattr(module, name, []).clear()
    about = module.load(job)
    assert set(about) == {"versions", "settings"}
    if tool.variant == "mapped unchecked":
        assert about["settings"] == "--reader=mapped --on_corrupt=unchecked, uniform shuffle"
    for _ in range(2):
        assert module.prepare(job, tmp_path)() == job.num_images == 28


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: f"{tool.name}-{tool.variant}")
def test_every_script_has_what_the_protocol_needs(tool: Tool) -> None:
    module: Any = importlib.import_module(f"simimg.bench.loaders.{tool.script.stem}")
    assert Path(module.__file__) == tool.script
    assert module.__all__ == ["load", "prepare"]
    if tool.requirements:
        lines = [line for line in tool.requirements.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)


def test_one_small_comparison(folder: Path, tmp_path: Path) -> None:
    """Real processes: our readers, a rival of our own environment and the limit; no time is looked at."""
    result = bench.run(
        bench.Options(
            stage="input",
            image_dir=folder,
            out_dir=tmp_path / "out",
            rivals=("vectorised",),
            repeats=1,
            image_size=SIZE,
            batch_size=BATCH,
            num_images=COUNT,
            cache_dir=tmp_path / "cache",
        )
    )
    assert (result.exit_code, result.values["left_out"]) == (0, {})
    assert [found["name"] for found in result.values["loaders"]] == ["resident", "mapped", "stream", "vectorised"]
    for found in result.values["loaders"]:
        (run,) = result.values["rounds"][found["name"]]
        assert run["num_images"] % 28 == 0
        assert run["seconds"] >= 1
        assert 10**7 < run["peak_bytes"] == found["peak_bytes"] < 10**10
    file = Path(result.values["file"])
    assert {**json.loads(file.read_text()), "file": str(file), "report": str(file.with_suffix(".html"))} == json.loads(
        json.dumps(result.values)
    )
    assert "simimg mapped" in result.text
    with Image.open(file.with_suffix(".png")) as plot:
        assert plot.width == 1600
        assert len(plot.convert("RGB").getcolors(1 << 24)) > 50
    assert not list((tmp_path / "cache" / "bench").glob("out-*"))


def test_what_cannot_be_measured(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"stage": "input", "image_dir": folder, "cache_dir": tmp_path, "image_size": SIZE}
    with pytest.raises(UsageError, match=r"--rivals=webdataset: 'webdataset' should be one of usual, vectorised"):
        bench.run(bench.Options(**options, rivals=("webdataset",)))
    with pytest.raises(UsageError, match=r"--batch_size=31: should be 1\.\.30, the number of images"):
        bench.run(bench.Options(**options, num_images=COUNT, batch_size=31, rivals=("none",)))
    with pytest.raises(UsageError, match="--num_images=0: should be 1 or more"):
        bench.run(bench.Options(**options, num_images=0))


def test_a_reader_of_ours_that_fails_ends_the_comparison(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"stage": "input", "image_dir": folder, "cache_dir": tmp_path, "image_size": SIZE}
    records = records_of(good_jpegs(folder, tmp_path), COUNT, SIZE, "raw", tmp_path)
    with open(records.split.shards[0].path, "r+b") as file:
        file.seek(100)
        file.write(b"\0" * 50)
    with pytest.raises(SimimgError, match="resident cannot be measured, but is needed: .*checksum fails"):
        bench.run(bench.Options(**options, num_images=COUNT, batch_size=BATCH, rivals=("none",), repeats=1))


def test_the_plot_takes_few_and_many(tmp_path: Path) -> None:
    for count in (3, 12):
        bars = [
            Bar(f"tool {n}", 100 / (1 + n), (90 / (1 + n), 110 / (1 + n)) if n else None, n < 3) for n in range(count)
        ]
        machine = {"processor": "a processor", "cores": "2"}
        plot_bars(tmp_path / f"{count}.png", "Images per second", "images", bars, ("page cache", 200.0), machine)
        assert (tmp_path / f"{count}.png").stat().st_size > 10_000
