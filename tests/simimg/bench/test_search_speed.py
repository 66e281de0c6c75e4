"""What is measured of search is what its words say, and copies are counted as imagededup counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from benchmarks import dedup_comparison as duplicates_bench
from benchmarks.dedup_protocol import (
    Collection,
    hash_pairs,
    pairs_of_groups,
    score_pairs,
    write_collection,
)
from benchmarks.rivals import imagededup_hashes
from simimg.bench import exact_search, search_speed
from simimg.bench.measurements import RunFailed
from simimg.commands import bench
from simimg.errors import UsageError
from simimg.models.backbones import lite_features

pytestmark = pytest.mark.own_process

Scene = Callable[..., Image.Image]


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_search, "_MIN_TURN_S", 0.0)
    monkeypatch.setattr(exact_search, "_PEAK_SIDE", 64)
    monkeypatch.setattr(search_speed, "BATCH_SIZE", 4)


@pytest.fixture
def photos(tmp_path: Path, scene: Scene) -> Path:
    folder = tmp_path / "photos"
    for seed in range(10):
        (folder / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        scene(seed, (200, 150)).save(folder / "ab"[seed % 2] / f"{seed}.jpg", quality=95)
    return folder


def test_operations_are_two_a_weight_and_place() -> None:
    inputs = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((4, 4, 6)), keras.layers.DepthwiseConv2D(3, padding="same")])
    hidden = inner(keras.layers.Conv2D(6, 3, strides=2, padding="same")(inputs))
    network = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(hidden)))
    assert search_speed.flops_of(network) == 2 * (3 * 3 * 3 * 6 * 16 + 3 * 3 * 6 * 16 + 6 * 5)


def test_lite0_has_the_operations_of_its_paper() -> None:
    # 407 million multiplications and additions with the classifier of 1,280 x 1,000 (TensorFlow's model card).
    assert search_speed.flops_of(lite_features("lite0")) == pytest.approx(2 * (407e6 - 1.28e6), rel=0.06)


def test_the_naive_way_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch)
    vectors, queries = exact_search._drawn(500)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    values, rows = exact_search._naive(vectors, queries)
    ours_values, ours = exact_search.nearest(vectors, queries[:, None], 10)
    np.testing.assert_array_equal(rows, ours)
    np.testing.assert_allclose(values, ours_values, atol=1e-6)
    measured = exact_search.measure_exact(500, repeats=1)
    assert {(speed.name, speed.batch) for speed in measured.speeds} == {
        (name, batch)
        for name in (exact_search._OURS, exact_search._NUMPY, exact_search._FAISS)
        for batch in exact_search.BATCHES
    }
    for speed in measured.speeds:
        (run,) = measured.rounds[f"{speed.name}, {speed.batch}"]
        assert speed.queries_per_s == run.num_images / run.seconds
        assert speed.gb_per_s == pytest.approx(speed.queries_per_s / speed.batch * vectors.nbytes / 1e9)
        assert speed.ratio_to_memory == pytest.approx(speed.gb_per_s / measured.memory_gb_per_s)
        assert speed.ratio_to_peak == pytest.approx(speed.queries_per_s * 2 * 256 * 500 / 1e9 / measured.peak_gflops)


def test_one_small_search(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch)
    options = bench.Options(
        stage="search",
        image_dir=photos,
        out_dir=tmp_path / "results",
        cache_dir=tmp_path / "cache",
        repeats=1,
        num_vectors=200,
        num_queries=10,
    )
    values = bench.run(options).values
    query, embedding = values["query"], values["embedding"]
    parts = {part["name"]: part["ms"] for part in query["parts"]}
    assert list(parts) == [
        "decode", "17 views of it", "its keypoints", "embed the views", "nearest in the index",
        "candidates' keypoints", "verification",
    ]  # fmt: skip
    assert all(len(seconds) == 10 for seconds in query["seconds"].values())
    assert query["again"]["ms"] < query["first"]["ms"]
    assert query["met"] == (query["first"]["ms"] <= 150)
    assert embedding["met"] == (embedding["images_per_s"]["index"] >= 60)
    assert embedding["rounds"]["index"][0]["num_images"] == 10
    assert json.loads(Path(values["file"]).read_text())["exact"]["speeds"][0]["name"] == "simimg"
    with pytest.raises(UsageError, match="--num_vectors=3: should be 10 or more"):
        bench.run(bench.Options(**{**vars(options), "num_vectors": 3}))


def test_pairs_are_counted_as_imagededup_counts_them() -> None:
    collection = Collection(Path(), {"a": "a", "a2": "a", "a3": "a", "b": "b", "b2": "b"})
    assert collection.pairs == {("a", "a2"), ("a", "a3"), ("a2", "a3"), ("b", "b2")}
    scores = score_pairs(pairs_of_groups([["a3", "a", "b"]]), collection)
    assert (scores.precision, scores.recall) == (1 / 3, 1 / 4)
    assert scores.wrong == (("a", "b"), ("a3", "b"))
    assert scores.missed == (("a", "a2"), ("a2", "a3"), ("b", "b2"))
    assert score_pairs(set(), collection).precision == 1
    assert score_pairs(collection.pairs, collection).recall == 1


def test_hashes_are_near_up_to_their_distance() -> None:
    bits = np.zeros((3, 64), bool)
    bits[1, :10] = True
    bits[2, :11] = True
    assert hash_pairs(bits, ["a", "b", "c"], 10) == {("a", "b"), ("b", "c")}
    assert hash_pairs(bits, ["a", "b", "c"], 0) == set()


def test_a_collection_is_six_files_a_photo(tmp_path: Path, photos: Path) -> None:
    collection = write_collection(tmp_path / "c", sorted(photos.glob("*/*.jpg"))[:2], seed=0)
    assert len(collection.original_of) == len(list((tmp_path / "c").iterdir())) == 12
    assert len(collection.pairs) == 2 * 15
    with (
        Image.open(tmp_path / "c" / "00000-crop.jpg") as crop,
        Image.open(tmp_path / "c" / "00000-squash.jpg") as squash,
    ):
        assert (crop.size, squash.size) == ((175, 131), (150, 150))
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UsageError, match=r"text\.jpg cannot be read"):
        write_collection(tmp_path / "d", [tmp_path / "text.jpg"], seed=0)


def test_copies_are_found_and_rivals_are_beside_them(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise RunFailed("no network here")

    monkeypatch.setattr(duplicates_bench, "python_of", unavailable)
    options = bench.Options(
        stage="duplicates",
        image_dir=photos,
        out_dir=tmp_path / "results",
        cache_dir=tmp_path / "cache",
        num_originals=4,
    )
    result = bench.run(options)
    methods = {method["name"]: method for method in result.values["methods"]}
    assert list(methods) == ["simimg", "simimg --fast", "imagehash pHash", "imagehash dHash"]
    assert methods["simimg"]["precision"] == 1
    assert methods["simimg"]["recall"] > 0.9
    assert methods["simimg --fast"]["precision"] == 1
    assert methods["simimg --fast"]["recall"] == 6 / 15  # of four files in a position and two others
    assert methods["imagehash pHash"]["recall"] < 0.5
    assert result.values["left_out"] == {"imagededup": "no network here"}
    assert result.num_skipped
    assert "left out: imagededup: no network here" in result.text
    for name, message in (("num_originals", "should be 2..10"), ("rivals", "should be one of imagehash, imagededup")):
        with pytest.raises(UsageError, match=message):
            bench.run(bench.Options(**{**vars(options), name: 11 if name == "num_originals" else ("who",)}))


def test_the_script_for_imagededup_names_pairs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hash:
        def __init__(self, verbose: bool) -> None:
            assert not verbose

        def find_duplicates(self, image_dir: str) -> dict[str, list[str]]:
            assert image_dir == "files"
            return {"b": ["a"], "a": ["b"], "c": []}

    monkeypatch.setattr(
        imagededup_hashes, "_hashing", lambda: type("hashing", (), dict.fromkeys(imagededup_hashes.METHODS, Hash))
    )
    imagededup_hashes.main("files", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(name, one["pairs"]) for name, one in found.items()] == [
        (name, [["a", "b"]]) for name in ("PHash", "DHash", "WHash", "AHash")
    ]
