"""The stage `embedding` measures the engines and commands that its tables name, of this version and an earlier one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.bench import command_costs, embedding_speed, large_index
from simimg.bench.measurements import Run, RunFailed
from simimg.commands import bench
from simimg.commands.bench_tables import commands_table, engines_table
from simimg.errors import SimimgError, UsageError
from simimg.inference.network_cache import ConvertedNetwork, NetworkFacts
from simimg.similarity.embeddings import load_embedder
from simimg.similarity.index_update import index_folder
from simimg.similarity.search_index import SearchIndex

pytestmark = pytest.mark.own_process

Scene = Callable[..., Image.Image]
Tools = Mapping[str, Callable[[], Run]]
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


def once(tools: Tools, **_: object) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Runs as `take_turns` does, but without the warm-up, in which each command starts and two convert networks."""
    runs, failures = {}, {}
    for name, tool in tools.items():
        try:
            runs[name] = [tool()]
        except RunFailed as error:
            failures[name] = str(error)
    return runs, failures


@pytest.fixture
def options(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bench.Options:
    monkeypatch.setattr(embedding_speed, "BATCH", 8)
    monkeypatch.setattr(embedding_speed, "_SMALLER_BATCHES", (1, 4))
    monkeypatch.setattr(embedding_speed, "_TURN_S", 0.0)
    monkeypatch.setattr(command_costs, "_NUM_UNCHANGED", 70)
    monkeypatch.setattr(command_costs, "_PER_CLASS", NUM_PHOTOS)
    monkeypatch.setattr(command_costs, "take_turns", once)
    monkeypatch.setattr(command_costs, "_PRESETS", ("tutorial",))
    monkeypatch.setattr(bench, "_image_dir", lambda options: photos)  # to train with as well
    return bench.Options(
        stage="embedding", image_dir=photos, out_dir=tmp_path / "out", cache_dir=tmp_path, repeats=1, num_indexed=80
    )


EARLIER_CLI = """
import sys, time

def main():
    time.sleep(0.1)
    if sys.argv[1] == "search":
        sys.exit("simimg: this version cannot search")
    print("48 images, 70 images, 99 %")
"""
EARLIER_INDEX = """
import dataclasses
from pathlib import Path
from types import SimpleNamespace
import numpy as np

@dataclasses.dataclass
class Picture:
    path: str = "a.jpg"
    sha256: str = ""
    phash: int = 1
    label: str = "a"

class SearchIndex:
    def open(index_dir):
        info = SimpleNamespace(model="m", model_fingerprint="f", image_size=8, resize="stretch", num_images=1)
        info.image_dir = "photos"
        return SimpleNamespace(info=info, pictures=[Picture()], embeddings=np.ones((1, 4), np.float16) / 2)

def write_generation(index_dir, embedder, embeddings, pictures, *, image_dir):
    Path(__file__).with_name("written.txt").write_text(f"{index_dir.name} {embeddings.shape} {len(pictures)}")
"""


def earlier_version(folder: Path) -> Path:
    """Writes what stands for an earlier version: its modules have other names, and it cannot search."""
    (folder / "simimg/similarity").mkdir(parents=True)
    for name, text in (("__init__", ""), ("cli", EARLIER_CLI), ("similarity/index", EARLIER_INDEX)):
        (folder / "simimg" / f"{name}.py").write_text(text)
    return folder


def test_one_small_run_beside_an_earlier_version(options: bench.Options, tmp_path: Path) -> None:
    before = earlier_version(tmp_path / "clone")
    result = bench.run(bench.Options(**{**vars(options), "before": before}))
    values = json.loads(Path(result.values["file"]).read_text())
    engines = {engine["name"]: engine for engine in values["engines"]["engines"]}
    assert list(engines)[:2] == ["LiteRT, float32", "TensorFlow, float32"]
    litert = engines["LiteRT, float32"]
    assert (litert["same_in_batches"], litert["same_with_threads"]) in ((True, True), (True, None))
    assert 0 < litert["largest_difference"] < 1e-6
    assert litert["least_cosine"] > 1 - 1e-6
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
    assert all(cost["peak_bytes"]["median"] > 5_000_000 for cost in costs["commands"])
    assert list(values["left_out"]) == [f"{name}: before" for name in searches]
    assert all("this version cannot search" in reason for reason in values["left_out"].values())
    assert result.num_skipped
    assert (before / "simimg/similarity/written.txt").read_text() == "large (80, 4) 80"
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


def test_the_large_index_has_the_small_one_and_rows_without_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(UsageError, match=f"batches of {NUM_PHOTOS + 1} images, but --image_dir has {NUM_PHOTOS} un"):
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
