"""The stage `embedding` measures the engines and the commands that its tables name, of this version and an earlier one.

The earlier version is made here: a folder whose modules have the earlier names and lead to those of this version.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simimg
import tfrecords
from simimg.bench import command_costs, embedding_speed, exact_search, large_index
from simimg.bench.measurements import Run
from simimg.commands import bench
from simimg.commands.bench_tables import commands_table, engines_table
from simimg.errors import SimimgError, UsageError
from simimg.inference.network_cache import ConvertedNetwork, NetworkFacts
from simimg.similarity.search_index import SearchIndex

pytestmark = pytest.mark.own_process

Scene = Callable[..., Image.Image]
NUM_PHOTOS = 48
NAMES = [
    f"search among {NUM_PHOTOS} images",
    "search among 80 images",
    "predict, preset tutorial",
    f"index {NUM_PHOTOS} images",
    f"index {NUM_PHOTOS} images, with an empty cache",
    "index with nothing new in 70 images",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(NUM_PHOTOS):
        (folder / "ab"[seed % 2]).mkdir(exist_ok=True)
        scene(seed, (120, 90)).save(folder / "ab"[seed % 2] / f"{seed}.jpg", quality=90)
    return folder


@pytest.fixture
def options(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bench.Options:
    monkeypatch.setattr(exact_search, "_MIN_TURN_S", 0.0)
    monkeypatch.setattr(command_costs, "_NUM_UNCHANGED", 70)
    monkeypatch.setattr(command_costs, "_PER_CLASS", NUM_PHOTOS)
    monkeypatch.setattr(command_costs, "_PRESETS", ("tutorial",))
    monkeypatch.setattr(bench, "_image_dir", lambda options: photos)  # to train with as well
    return bench.Options(
        stage="embedding", image_dir=photos, out_dir=tmp_path / "out", cache_dir=tmp_path, repeats=1, num_indexed=80
    )


def earlier_version(folder: Path) -> Path:
    """Writes an earlier version: its index has another name, and its search fails."""
    for package in (simimg, tfrecords):
        (folder / package.__name__).mkdir(parents=True)
        for path in Path(package.__file__ or "").parent.iterdir():
            (folder / package.__name__ / path.name).symlink_to(path)
    (folder / "simimg/cli.py").unlink()
    (folder / "simimg/cli.py").write_text(
        "def main():\n"
        "    import sys\n"
        "    if sys.argv[1] == 'search':\n"
        "        sys.exit('simimg: this version cannot search')\n"
        "    from simimg import command_line\n"
        "    return command_line.main()\n"
    )
    (folder / "simimg/command_line.py").symlink_to(Path(simimg.__file__).parent / "cli.py")
    return folder


def test_one_small_run_beside_an_earlier_version(options: bench.Options, tmp_path: Path) -> None:
    before = earlier_version(tmp_path / "clone")
    result = bench.run(bench.Options(**{**vars(options), "before": before}))
    values = json.loads(Path(result.values["file"]).read_text())
    engines = {engine["name"]: engine for engine in values["engines"]["engines"]}
    assert list(engines)[:2] == ["LiteRT, float32", "TensorFlow, float32"]
    litert = engines["LiteRT, float32"]
    assert (litert["same_in_batches"], litert["same_with_threads"]) in ((True, True), (True, None))
    assert 0 < litert["largest_difference"] < 1e-6 < 1 - litert["least_cosine"] + 2e-6
    (run,) = values["engines"]["rounds"]["LiteRT, float32"]
    assert litert["ms"]["median"] == pytest.approx(1000 * run["seconds"] / run["num_images"])
    assert engines["TensorFlow, float32"]["largest_difference"] == 0
    assert ("OpenVINO, float32" in engines) == (importlib.util.find_spec("openvino") is not None)
    costs = values["commands"]
    named = [(cost["name"], cost["version"]) for cost in costs["commands"]]
    searches, others = NAMES[:2], NAMES[2:]
    both = [(name, version) for name in others for version in ("this version", "before")]
    assert named == [*((name, "this version") for name in searches), *both]
    assert [ratio["name"] for ratio in costs["ratios"]] == others
    assert all(cost[what]["median"] > 0 for cost in costs["commands"] for what in ("seconds", "cpu_seconds"))
    assert all(cost["peak_bytes"]["median"] > 10_000_000 for cost in costs["commands"])
    assert list(values["left_out"]) == [f"{name}: before" for name in searches]
    assert all("this version cannot search" in reason for reason in values["left_out"].values())
    assert result.exit_code == 2
    assert not list((tmp_path / "bench").glob("commands-*"))  # nothing is left


def test_ratios_are_computed_within_rounds() -> None:
    now, before = ([Run(s, 1, 0, 2 * s, 1000 + n) for n, s in enumerate(times)] for times in ((1, 2, 4), (3, 8, 4)))
    ratio = command_costs._cost("search", "before / this version", before, now)
    assert (ratio.seconds.median, ratio.cpu_seconds.median, ratio.peak_bytes.median) == (3, 3, 1)
    alone = command_costs._cost("search", "before", before, [])
    assert (alone.seconds.median, alone.cpu_seconds.median, alone.peak_bytes.median) == (4, 8, 1001)
    costs = command_costs.CommandCosts(what="2 files", commands=(alone,), ratios=(ratio,), left_out={}, rounds={})
    assert [line.split() for line in commands_table(costs)[2:]] == [
        ["search", "before", "4.00", "-", "8.00", "0", "MB"],
        [],
        ["before", "/", "this", "version", "s", "processor", "s", "peak", "memory"],
        ["search", "3.00x", "(-)", "3.00x", "(-)", "1.00x", "(-)"],
    ]


@pytest.mark.parametrize("earlier", [False, True])
def test_the_large_index_has_the_small_one_and_rows_without_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    from simimg.similarity.embeddings import load_embedder
    from simimg.similarity.index_update import index_folder

    if earlier:  # the first name is not there, and the second one is
        monkeypatch.setattr(large_index, "_MODULES", ("simimg.similarity.absent", *large_index._MODULES))
    small = index_folder(tmp_path / "small", photos, load_embedder("lite0")).index
    large_index.main(str(tmp_path / "small"), str(tmp_path / "large"), "80")
    large = SearchIndex.open(tmp_path / "large")
    assert large.info.model_fingerprint == small.info.model_fingerprint
    assert large.info.engines == small.info.engines
    assert list(large.images)[:NUM_PHOTOS] == list(small.images)
    np.testing.assert_array_equal(large.embeddings[:NUM_PHOTOS], small.embeddings)
    np.testing.assert_allclose(np.linalg.norm(large.embeddings.astype(np.float32), axis=1), 1, atol=1e-3)
    assert not any(large.path_of(image).exists() for image in list(large.images)[NUM_PHOTOS:])
    assert len({image.sha256 for image in large.images}) == 80
    monkeypatch.setattr(large_index, "_MODULES", ("simimg.similarity.absent",))
    with pytest.raises(ModuleNotFoundError, match=r"none of the modules simimg\.similarity\.absent"):
        large_index._index_module()


def test_mistakes(options: bench.Options, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is not a clone of simimg: it has no simimg/cli.py"):
        bench.run(bench.Options(**{**vars(options), "before": photos}))
    monkeypatch.setattr(bench, "measure_engines", lambda *_, **__: None)
    with pytest.raises(UsageError, match=f"--num_indexed=3: should be {NUM_PHOTOS} or more"):
        bench.run(bench.Options(**{**vars(options), "num_indexed": 3}))
    (tmp_path / "clone/simimg").mkdir(parents=True)
    (tmp_path / "clone/simimg/cli.py").write_text("def main():\n    raise SystemExit('too old')\n")
    monkeypatch.setattr(command_costs._Version, "prepare", prepared_before_only(command_costs._Version.prepare))
    with pytest.raises(UsageError, match=r"--before=.*/clone: `simimg index .*it ended with code 1: .*"):
        bench.run(bench.Options(**{**vars(options), "before": tmp_path / "clone"}))
    monkeypatch.setattr(embedding_speed, "BATCH", NUM_PHOTOS + 1)
    with pytest.raises(UsageError, match=f"batches of 49 images, but --image_dir has {NUM_PHOTOS} undamaged"):
        bench.run(options)
    facts = NetworkFacts("", 224, 1280, 0.0, refused="no such operation")
    monkeypatch.setattr(embedding_speed, "converted_network", lambda *_: ConvertedNetwork(facts, b""))
    with pytest.raises(SimimgError, match="LiteRT cannot run lite0 on this machine: no such operation"):
        embedding_speed.load_engines()


def prepared_before_only(prepare: Callable[..., None]) -> Callable[..., None]:
    return lambda version, *given: prepare(version, *given) if version.name == command_costs.BEFORE else None


def test_what_is_not_measured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else there(name))
    engines, missing = embedding_speed.load_engines()
    assert list(engines) == ["LiteRT, float32", "TensorFlow, float32"]
    found = embedding_speed.EngineSpeeds(what="", engines=(), not_measured=missing, rounds={})
    assert engines_table(found)[-1] == "not measured: OpenVINO: it is not installed: pip install 'simimg-tf[fast]'"
