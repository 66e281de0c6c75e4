"""Every option of a run changes the run, and what cannot be used is refused before a folder is made."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import CorruptRecordError, UsageError
from simimg.training import TrainConfig, Watcher, builders, load_model, load_run, run_setup, train
from simimg.training.builders import build_model, build_optimizer

pytestmark = pytest.mark.own_process


def equal(mine: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.allclose(a, b, rtol=0, atol=1e-7) for a, b in zip(mine, theirs, strict=True))


CHANGES: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 4,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "schedule": "cosine",
    "weight_decay": 0.1,
    "loss": "categorical",
    "label_smoothing": 0.2,
    "clip_norm": 0.1,
    "ema": 0.9,
    "precision": "bfloat16",
    "rotation_degrees": 20.0,
    "horizontal_flip": True,
    "crop_min_area": 0.5,
    "colour_jitter": 0.3,
    "vertical_flip": True,
    "grayscale": 0.5,
    "blur": 2.0,
    "min_jpeg_quality": 20.0,
    "cutout": 0.5,
    "quarter_turns": 0.7,
    "paste": 0.7,
    "bars": 0.7,
    "border": "constant",
    "rand_augment": "2,9",
    "augmix": 3.0,
    "three_augment": True,
    "noise": 20.0,
    "erase": 0.7,
    "mixup": 0.2,
    "cutmix": 1.0,
    "seed": 1,
    "reader": "stream",
    "shuffle": "windowed",
}


def test_every_option_changes_what_is_learned(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    numbers = itertools.count()

    def weights(**changes: Any) -> list[np.ndarray]:
        return run(tiny["two"], tmp_path / str(next(numbers)), **changes)

    unchanged = weights()
    assert equal(unchanged, weights())  # the same options, the same run
    without_effect = [name for name, value in CHANGES.items() if equal(unchanged, weights(**{name: value}))]
    assert not without_effect
    for optimizer in ("sgd", "rmsprop"):
        decayed, plain = (weights(optimizer=optimizer, weight_decay=decay) for decay in (0.1, 0.0))
        assert not equal(decayed, plain), f"{optimizer} has no weight decay"


def test_no_option_is_left_out() -> None:
    decided_elsewhere = {"model", "weights", "resolution", "probe"}  # the next test
    determining = TrainConfig.with_preset({"dataset_dir": Path(), "objective": "similarity"}).determining()
    of_classes = TrainConfig(dataset_dir=Path()).determining()
    assert set(determining) - set(of_classes) == {"embedding_dim", "temperature", "entropy_weight", "queue_size"}
    measured_otherwise = {
        "accumulate",
        "class_weights",
        "test_views",
        "patience",
        "xla",
        "fold",
        "dataset_weights",
        "crop",
        "image_size",
        "train_size",
        "stochastic_depth",
        "teacher",
        "teacher_weight",
        "teacher_temperature",
    }  # test_recipes.py and those of their own names
    of_similarity = {
        "objective",
        "embedding_dim",
        "temperature",
        "entropy_weight",
        "queue_size",
        "train_backbone",
    }  # test_similarity.py
    changed = set(CHANGES) - {"reader", "shuffle"}
    assert set(determining) == changed | decided_elsewhere | measured_otherwise | of_similarity


def test_options_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(**changes: Any) -> Any:
        return build_model(TrainConfig(dataset_dir=Path(), **changes), 64, 3)

    assert [built(model=name).name for name in ("tutorial", "small")] == ["tutorial", "small"]
    monkeypatch.setattr(builders, "lite", lambda *arguments, **options: (arguments, options))
    assert built(model="lite0") == (("lite0", 64, 3), {"weights": "imagenet", "resolution": None})
    assert built(model="lite0", weights="none") == (("lite0", 64, 3), {"weights": None, "resolution": None})
    assert built(model="lite0", resolution=128) == (("lite0", 64, 3), {"weights": "imagenet", "resolution": 128})
    assert built(model="lite0", resolution=32) == (("lite0", 64, 3), {"weights": "imagenet", "resolution": 64})


@pytest.mark.parametrize("num_steps", [1, 2, 20, 1000])
def test_the_cosine_schedule(num_steps: int) -> None:
    """It rises for 5 % of the steps from above 0, reaches the peak, and ends near 0; a run of one step is not lost."""
    optimizer = build_optimizer(TrainConfig(dataset_dir=Path(), learning_rate=0.5), num_steps)
    rates = []
    for step in range(num_steps):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    warm_up = round(0.05 * num_steps)
    assert max(rates) == rates[warm_up] == pytest.approx(0.5)
    assert rates[:warm_up] == pytest.approx([0.5 * (step + 1) / (warm_up + 1) for step in range(warm_up)])
    rest = num_steps - warm_up
    expected = [0.25 * (1 + np.cos(np.pi * step / rest)) for step in range(rest)]
    assert rates[warm_up:] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "sgd", "rmsprop"])
def test_weight_decay_spares_biases_and_normalizations(optimizer: str) -> None:
    pixels = keras.Input((4,))
    model = keras.Model(pixels, keras.layers.BatchNormalization()(keras.layers.Dense(3)(pixels)))
    config = TrainConfig(
        dataset_dir=Path(), optimizer=optimizer, weight_decay=0.5, learning_rate=0.1, schedule="constant"
    )
    built = build_optimizer(config, 10)
    built.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    built.apply([np.zeros(variable.shape, np.float32) for variable in model.trainable_variables])
    after = {variable.name: float(variable.numpy().max()) for variable in model.trainable_variables}
    assert after == pytest.approx({"kernel": 0.95, "bias": 1.0, "gamma": 1.0, "beta": 1.0})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "--epochs=0 trains nothing.*--probe"),
        ({"global_batch_size": 0}, "--global_batch_size=0: should be 1 or more"),
        ({"accumulate": 0}, "--accumulate=0: should be 1 or more"),
        ({"learning_rate": -0.1}, "--learning_rate=-0.1: should be 0 or more"),
        ({"learning_rate": float("nan")}, "--learning_rate=nan: should be 0 or more"),
        ({"clip_norm": -1.0}, "--clip_norm=-1.0: should be 0 or more"),
        ({"ema": 1.0}, "--ema=1.0: should be 0 or more, and below 1"),
        ({"patience": -1}, "--patience=-1: should be 0 or more"),
        ({"precision": "float8"}, "--precision=float8: should be one of float32, bfloat16, float16"),
        ({"label_smoothing": 1.0}, "--label_smoothing=1.0"),
        ({"weight_decay": -1.0}, "--weight_decay=-1.0"),
        ({"num_devices": -1}, "--num_devices=-1"),
        ({"seed": -1}, "--seed=-1: should be 0..4294967295"),
        ({"seed": 2**32}, "--seed=4294967296: should be 0..4294967295"),
        ({"optimizer": "adam"}, "--optimizer=adam: should be one of adamw, sgd, rmsprop"),
        ({"rotation_degrees": 200.0}, "--rotation_degrees=200.0: should be 0..180"),
        ({"crop_min_area": 0.0}, "--crop_min_area=0.0"),
        ({"colour_jitter": 2.0}, "--colour_jitter=2.0"),
        ({"resolution": 128}, "--resolution=128: --model=small does not enlarge images"),
        ({"weights": "imagenet"}, "--weights=imagenet: --model=small has no ImageNet weights"),
    ],
)
def test_values_that_cannot_be_used(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainConfig(dataset_dir=Path(), **changes)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("one", {}, "has one class, 'a'; a classifier needs two"),
        ("two", {"global_batch_size": 17}, "--global_batch_size=17 is more than the 16 training examples"),
        ("two", {"global_batch_size": 5, "num_devices": 2}, "cannot be divided among 2 replicas"),
        ("two", {"preset": "small"}, "image_size should be at least 32"),
        ("two", {"preset": "small", "xla": True, "num_devices": 2}, "--xla: compiled steps cannot sum over devices"),
    ],
)
def test_a_run_that_cannot_start_leaves_no_folder(
    tiny: dict[str, Path], run: Any, tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run(tiny[name], tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_without_a_split_test(tiny: dict[str, Path], run: Any, base: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.with_preset({**base, "dataset_dir": tiny["two"], "model_dir": tmp_path / "run"})
    result = train(config)
    assert (result.to_json()["test_accuracy"], result.to_json()["test_binary_accuracy"]) == (None, None)
    assert set(result.history[0]) == {"epoch", "loss", "accuracy"}
    assert result == train(config)  # from its folder


def test_a_folder_keeps_to_its_examples(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    """The same photos dealt anew would be trained on that were tested on; a stream has another order."""
    model_dir = tmp_path / "run"
    run(tiny["two"], model_dir)
    with pytest.raises(UsageError, match="has another run: the dataset is another one"):
        run(tiny["dealt_anew"], model_dir)
    with pytest.raises(UsageError, match="a uniform shuffle there, a buffered one now"):
        run(tiny["two"], model_dir, reader="stream")
    with pytest.raises(UsageError, match="a uniform shuffle there, a windowed one now"):
        run(tiny["two"], model_dir, shuffle="windowed")
    with pytest.raises(UsageError, match="--shuffle=uniform: streamed shards are shuffled in a buffer"):
        run(tiny["two"], model_dir, reader="stream", shuffle="uniform")
    run(tiny["two"], model_dir, reader="mapped")  # the same order, read in another way
    run(tiny["two"], model_dir, cache="device")
    run(tiny["two"], model_dir, num_devices=2)


def test_a_windowed_run_goes_on_windowed(
    tiny: dict[str, Path], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with more memory, too: what is picked by itself is what the run began with."""
    with monkeypatch.context() as patch:
        patch.setattr(run_setup, "choose_shuffle", lambda split, free_bytes: "windowed")
        began = run(tiny["two"], tmp_path / "run", reader="mapped")
    assert load_run(tmp_path / "run").shuffle == "windowed"
    (tmp_path / "run" / "model.keras").unlink()
    assert equal(run(tiny["two"], tmp_path / "run", reader="resident"), began)
    assert equal(run(tiny["two"], tmp_path / "other", shuffle="windowed"), began)
    assert not equal(run(tiny["two"], tmp_path / "uniform"), began)


@pytest.mark.parametrize("reader", ["mapped", "resident"])
def test_a_corrupt_record_is_not_trained_on(
    tiny: dict[str, Path], run: Any, base: dict[str, Any], tmp_path: Path, reader: str
) -> None:
    folder = Path(shutil.copytree(tiny["jpeg"], tmp_path / "jpeg"))
    (shard,) = folder.glob("jpeg-train.tfrecord-*-of-00001")
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)

    def config(name: str, **changes: Any) -> TrainConfig:
        given = {**base, "dataset_dir": folder, "model_dir": tmp_path / name, "reader": reader, **changes}
        return TrainConfig.with_preset({**given, "global_batch_size": 16})

    with pytest.raises(CorruptRecordError, match=rf"{shard.name}: record 0 at byte 0: the checksum of the payload"):
        train(config("failed"))
    notes: list[str] = []
    result = train(config("skipped", on_corrupt="skip"), Watcher(note=notes.append))
    assert [note for note in notes if "1 corrupt record skipped so far" in note and shard.name in note]
    assert round(result.figures["train"]["accuracy"] * 15, 6) % 1 == 0  # a share of the fifteen that are left


def test_all_options_are_kept_beside_the_model(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    run(tiny["two"], tmp_path / "run")
    info = load_model(tmp_path / "run")[1]
    assert (info.image_size, info.resize, info.class_names) == (8, "stretch", ("a", "b"))
    assert set(info.config) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert info.config["rotation_degrees"] == 10.0
    assert info.config["model_dir"] == str(tmp_path / "run")
