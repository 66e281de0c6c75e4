"""Training taken apart, and augmentation: every stage does what it says, and the bottleneck is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import dataset_size
from simimg.augment.parameters import draw
from simimg.bench import augmentation_costs, keras_layers, measurements, training_stages
from simimg.bench.converters import tool_server
from simimg.bench.measurements import Run
from simimg.bench.training_stages import StageCost, bottleneck
from simimg.commands import bench
from simimg.errors import UsageError
from simimg.input import Order, batches_of, open_reader, train_batches
from simimg.presets import tutorial


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_MIN_TURN_S", 0.01)
    monkeypatch.setattr(training_stages, "_PROFILED_STEPS", 2)


def costs(**own_us: float) -> tuple[StageCost, ...]:
    names = {"shuffle": "+ shuffle", "parse": "+ parse", "decode": "+ decode", "device": "+ to device"}
    names |= {"augment": "+ augment", "step": "+ train step"}
    return tuple(
        StageCost(name=names[name], images_per_s=1, ci95=None, ratio_to_limit=1, own_us=value, cores=1)
        for name, value in own_us.items()
    )


def test_the_bottleneck_is_named() -> None:
    parts = {"shuffle": 1.0, "parse": 2.0, "decode": 40.0, "device": 3.0, "augment": 30.0, "step": 200.0}
    assert bottleneck(costs(**parts), 0.2) == (
        "The input takes 20% of the time, most of it for `+ decode` (40.0 us per image). Convert with --encoding=raw "
        "at the training size, or let other machines decode: `simimg data_service`."
    )
    assert "`+ to device` (50.0 us per image). Use --cache=device" in bottleneck(costs(**{**parts, "device": 50}), 0.5)
    assert bottleneck(costs(**parts), 0.01).startswith("The input takes only 1.0% of the time, and the model takes")
    assert bottleneck(costs(**parts), -0.02).startswith("The input takes only 0.0% of the time")
    assert "`simimg bench --stage=augment`" in bottleneck(costs(**{**parts, "augment": 300}), 0.01)


@pytest.mark.parametrize(
    ("encoding", "kind"), [("raw", "mapped"), ("jpeg", "mapped"), ("raw", "stream"), ("jpeg", "stream")]
)
def test_each_stage_does_a_part_of_the_reading(datasets: dict[str, Path], encoding: str, kind: str) -> None:
    reader, _ = open_reader(datasets[encoding], "train", kind)
    order = Order(num_examples=54, global_batch_size=6, num_epochs=1, seed=0)
    (shuffle, stored), (parse, parsed), (decode, batches) = training_stages._partial(reader, order)
    assert (shuffle, parse, decode) == ("+ shuffle", "+ parse", "+ decode")
    whole = list(train_batches(reader, order).as_numpy_iterator())
    records = [np.asarray(element.image if kind == "mapped" else element) for element in stored]
    assert len(records) == len(list(parsed)) == len(list(batches)) == 9
    if kind == "mapped" and encoding == "raw":  # the pixels stand in the records, in the order of the training
        assert all(
            batch.image[row].tobytes() in bytes(records[step][row])
            for step, batch in enumerate(whole)
            for row in range(6)
        )
    else:
        assert all(records[step].shape == (6,) and b"image" in records[step][0] for step in range(9))
    if kind == "mapped" and encoding == "jpeg":
        reader, _ = open_reader(datasets["jpeg"], "train", "mapped")
        (_, again), *_ = training_stages._partial(reader, order)
        for element, batch in zip(again, whole, strict=True):
            for record, id in zip(element.image.numpy(), batch.id, strict=True):
                features = tf.io.parse_single_example(record[12:-4], {"id": tf.io.FixedLenFeature([], tf.int64)})
                assert features["id"] == id


def test_batches_of_a_data_set_are_its_elements(datasets: dict[str, Path]) -> None:
    reader, _ = open_reader(datasets["raw"], "train")
    order = Order(num_examples=54, global_batch_size=6, num_epochs=2, seed=0)
    expected = list(train_batches(reader, order).as_numpy_iterator())
    found = list(batches_of(train_batches(reader, order)))
    assert len(found) == 18
    for mine, theirs in zip(found, expected, strict=True):
        for part, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(part, other)


@pytest.mark.usefixtures("short_turns")
@pytest.mark.parametrize("reader", ["resident", "mapped", "stream"])
def test_one_small_training(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    mixed = MagicMock(wraps=training_stages.augment_and_mix)
    monkeypatch.setattr(training_stages, "augment_and_mix", mixed)
    monkeypatch.setitem(tutorial.OPTIONS, "mixup", 0.1 if reader == "mapped" else 0.0)
    options: dict[str, Any] = {"stage": "train", "dataset_dir": datasets["jpeg"], "out_dir": tmp_path, "repeats": 1}
    profile = reader == "mapped"
    result = bench.run(bench.Options(**options, preset="tutorial", batch_size=6, reader=reader, profile=profile))
    names = [stage["name"] for stage in result.values["stages"]]
    between = ["+ shuffle"] if reader == "resident" else ["+ shuffle", "+ parse", "+ decode"]
    assert mixed.called == (reader == "mapped")
    assert names == ["read", *between, "+ to device", "+ augment", "+ train step", "train step alone"]
    assert result.values["stages"][0]["ratio_to_limit"] == 1
    for stage in result.values["stages"]:
        (run,) = result.values["rounds"][stage["name"]]
        assert run["num_images"] % (54 if stage["name"] == "read" else 6) == 0
        assert stage["images_per_s"] == run["num_images"] / run["seconds"]
    assert result.values["bottleneck"] in result.text
    file = Path(result.values["file"])
    assert {**json.loads(file.read_text()), "file": str(file), "report": str(file.with_suffix(".html"))} == json.loads(
        json.dumps(result.values)
    )
    assert file.with_suffix(".png").stat().st_size > 10_000
    traces = list(tmp_path.glob("bench-*/plugins/profile/*/*.xplane.pb"))
    assert bool(traces) == profile
    if profile:
        assert f"tensorboard --logdir={file.with_suffix('')}" in result.text


@pytest.mark.usefixtures("short_turns")
def test_one_small_augmentation(tmp_path: Path) -> None:
    result = bench.run(bench.Options(stage="augment", out_dir=tmp_path, repeats=1, image_size=16, batch_size=4))
    found = {cost["name"]: cost for cost in result.values["augmentations"]}
    assert set(found) == {*augmentation_costs.AUGMENTATIONS, augmentation_costs._KERAS, augmentation_costs._LIMIT}
    blur = found["blur"]
    assert blur["gb_per_s"] == pytest.approx(blur["images_per_s"] * 16 * 16 * 3 * 5 / 1e9)
    assert found["uint8 to float32"]["ratio_to_limit"] == 1
    assert result.values["ratio_to_keras"] == pytest.approx(
        found["rotation and flip"]["images_per_s"] / found["Keras RandomFlip, RandomRotation"]["images_per_s"]
    )
    layers = {layer["name"]: layer for layer in result.values["keras_layers"]["layers"]}
    assert set(layers) == set(keras_layers.LAYERS)
    assert all(layer["met"] == (layer["ratio"] >= 3) for layer in layers.values())
    mixup = layers["MixUp"]
    assert mixup["ratio"] == pytest.approx(mixup["images_per_s"] / mixup["keras_images_per_s"])
    assert "beside Keras's layers of the same name, batches of 4, 16 x 16" in result.text
    assert f"rotation and flip are {result.values['ratio_to_keras']:.2f}x" in result.text
    with pytest.raises(UsageError, match="--image_size=0: should be 1 or more"):
        bench.run(bench.Options(stage="augment", out_dir=tmp_path, image_size=0))


def test_each_augmentation_is_one() -> None:
    """What is called `blur` draws a blur and nothing else."""
    ids, epoch = tf.range(64, dtype=tf.int64), tf.constant(0, tf.int64)
    still = draw(augmentation_costs.NOTHING, 0, epoch, ids)
    for name, config in augmentation_costs.AUGMENTATIONS.items():
        drawn = draw(config, 0, epoch, ids)
        changed = {
            field for field in drawn._fields if not np.array_equal(getattr(drawn, field), getattr(still, field))
        } - {"cutout"}
        expected = {
            "rotation and flip": {"angle", "flip"},
            "crop": {"crop"},
            "color": {"color"},
            "blur": {"sigma"},
            "JPEG quantization": {"quality"},
            "cutout": set(),
            "all of them": {"angle", "flip", "crop", "color", "sigma", "quality"},
        }[name]
        assert changed == expected, name


def test_a_turn_lasts_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_MIN_TURN_S", 0.05)
    run = measurements.repeating(lambda: tf.zeros([2]), 7)()
    assert isinstance(run, Run)
    assert run.seconds >= 0.05
    assert run.num_images % 7 == 0
    assert run.num_images >= 21
    assert tool_server.peak_bytes() > 10**7


@pytest.mark.usefixtures("short_turns")
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_sets_that_grow(folder: Path, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_size, "_COUNTS", (10, 100, 1000))
    options: dict[str, Any] = {"image_dir": folder, "out_dir": tmp_path / "out", "cache_dir": tmp_path, "repeats": 1}
    options |= {"stage": "growth", "image_size": 16, "num_images": 30, "batch_size": 4, "encoding": encoding}
    result = bench.run(bench.Options(**options))
    sets = result.values["sets"]
    whole = 30 if encoding == "jpeg" else 1  # sidecars list whole shards
    assert [found["num_examples"] for found in sets[:3]] == [-(-n // whole) * whole for n in (10, 100, 1000)]
    assert [found["num_shards"] for found in sets] == [1, 4, 34, 1]
    assert all(found["first_batch_s"] > 0 and found["images_per_s"] > 0 for found in sets)
    with pytest.raises(UsageError, match=r"--batch_size=11: should be 1\.\.10, the size of the smallest"):
        bench.run(bench.Options(**{**options, "batch_size": 11}))
