"""Training for copies: on any number of replicas the same, without labels, and only with what belongs to it."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import UsageError
from simimg.models.backbones import NETWORKS
from simimg.models.dropout import ExampleDropout
from simimg.models.heads import search_embedder
from simimg.training import TrainConfig, TrainResult, Watcher, load_model, train
from simimg.training.builders import build_model
from simimg.training.metrics import collapse

AUGMENTATION = {"blur": 0.0, "min_jpeg_quality": 100.0, "rotation_degrees": 10.0}
BASE: dict[str, Any] = {
    "objective": "similarity",
    "model": "tutorial",
    "epochs": 3,
    "global_batch_size": 8,
    "embedding_dim": 6,
    "queue_size": 20,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "num_devices": 1,
    "temperature": 0.2,
    **AUGMENTATION,
}


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `tutorial` be a convolution, an average and a softmax, which are compiled in no time; and its dropout."""

    def build(image_size: int, num_classes: int) -> keras.Model:
        pixels = keras.Input((image_size, image_size, 3))
        x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(keras.layers.Rescaling(1 / 255)(pixels))
        x = ExampleDropout(0.2, stream=1, name="dropout")(x)
        x = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
        return keras.Model(pixels, keras.layers.Dense(num_classes, "softmax", name="probabilities")(x), name="tiny")

    monkeypatch.setitem(NETWORKS, "tutorial", build)


def configured(dataset_dir: Path, model_dir: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.with_preset({**BASE, "dataset_dir": dataset_dir, "model_dir": model_dir, **changes})


def trained(dataset_dir: Path, model_dir: Path, **changes: Any) -> tuple[TrainResult, list[np.ndarray]]:
    result = train(configured(dataset_dir, model_dir, **changes))
    return result, load_model(model_dir)[0].get_weights()


def test_two_replicas_are_one(tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two sees half of the batch, but every view is compared with all others, and with the same past.

    The network tells the pictures well apart: the entropy of near ones divides by their distance, which makes much of
    a rounding.
    """
    monkeypatch.setitem(NETWORKS, "tutorial", functools.partial(_flattened, rate=0.2))
    one, weights = trained(tiny["three"], tmp_path / "one", ema=0.5)
    two, others = trained(tiny["three"], tmp_path / "two", ema=0.5, num_devices=2)
    for mine, theirs in zip(one.history, two.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=5e-5)  # cosines are divided by 0.2
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    ends = [sorted((tmp_path / name / "checkpoints").iterdir())[-1] / "state.npz" for name in ("one", "two")]
    mine, theirs = (np.load(end) for end in ends)
    assert mine.files == theirs.files
    np.testing.assert_array_equal(mine["past/0001"], theirs["past/0001"])
    np.testing.assert_allclose(mine["past/0000"], theirs["past/0000"], atol=1e-5)
    assert (mine["past/0001"] >= 0).all(), "nothing was remembered"


def test_each_option_changes_what_is_learned(tiny: dict[str, Path], tmp_path: Path) -> None:
    _, plain = trained(tiny["two"], tmp_path / "plain", epochs=1)
    changes = {"queue_size": 0, "temperature": 0.5, "entropy_weight": 0.0, "paste": 0.0, "embedding_dim": 5}
    for name, value in changes.items():
        _, changed = trained(tiny["two"], tmp_path / name, epochs=1, **{name: value})
        assert [a.shape for a in plain] != [b.shape for b in changed] or any(
            np.abs(a - b).max() > 1e-6 for a, b in zip(plain, changed, strict=True)
        ), name


def test_one_class_and_its_figures(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Labels are not looked at: one class is enough, and figures are called what they are."""
    result, _ = trained(tiny["one"], tmp_path / "run")
    keys = {"epoch", "loss", "recall", "copy_similarity", "nearest_similarity", "mean_norm"}
    assert [set(line) for line in result.history] == [keys] * 3
    assert (result.to_json()["train_accuracy"], result.to_json()["test_recall"]) == (None, None)
    assert result.figures["train"]["recall"] == result.history[-1]["recall"]
    with pytest.raises(UsageError, match="has one class, 'a'; a classifier needs two. To train on it to find copies"):
        trained(tiny["one"], tmp_path / "classes", objective="classes", preset="tutorial")
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    assert values["config"]["preset"] == "copy"


def test_the_figures_of_a_step(tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network that does not move, and pictures that nothing is done to, both views are the same."""
    still = {
        "crop_min_area": 1.0,
        "rotation_degrees": 0.0,
        "horizontal_flip": False,
        "colour_jitter": 0.0,
        "grayscale": 0.0,
        "cutout": 0.0,
        "quarter_turns": 0.0,
        "paste": 0.0,
        "bars": 0.0,
        "learning_rate": 1e-30,
        "weight_decay": 0.0,
        "queue_size": 0,
        "global_batch_size": 16,
    }

    monkeypatch.setitem(NETWORKS, "tutorial", _flattened)  # nothing is dropped, or views would differ
    result, _ = trained(tiny["two"], tmp_path / "run", epochs=1, **still)
    line = result.history[0]
    assert line["copy_similarity"] == pytest.approx(1, abs=1e-5)
    assert line["recall"] == 1
    assert -1 < line["nearest_similarity"] < 1


def _flattened(image_size: int, num_classes: int, rate: float = 0.0) -> keras.Model:
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    x = ExampleDropout(rate, stream=1, name="dropout")(x)
    x = keras.layers.Dense(7, name="embedding")(x)
    return keras.Model(pixels, keras.layers.Dense(num_classes, "softmax", name="probabilities")(x))


def test_validation_decides_by_copy_recall(tiny: dict[str, Path], tmp_path: Path) -> None:
    notes: list[str] = []
    config = configured(tiny["three"], tmp_path / "run", epochs=8, patience=2)
    result = train(config, Watcher(note=notes.append))
    best = max(result.history, key=lambda line: (line["validation_recall"], -line["validation_loss"]))
    assert result.epoch == best["epoch"]
    assert result.figures["validation"]["recall"] == best["validation_recall"]
    assert any("copy recall" in note and "mean norm" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe": True, "model": "lite0"}, "--probe=True is for classifiers"),
        ({"accumulate": 2}, "--accumulate=2 is for classifiers"),
        ({"preset": "small"}, "--test_views=cropped is for classifiers.*start from --preset=copy"),
        ({"temperature": 0.0}, "--temperature=0.0: should be above 0"),
        ({"train_backbone": False}, "--notrain_backbone: --model=tutorial starts without pretrained weights"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        configured(tmp_path, tmp_path / "run", **change)


def test_a_backbone_that_stays(tiny: dict[str, Path], tmp_path: Path) -> None:
    """From a classifier's weights, all but the linear layer are those of the classifier at the end."""
    class_options = {"objective": "classes", "preset": "tutorial", "horizontal_flip": True}
    trained(tiny["two"], tmp_path / "classes", **class_options)
    start = {"weights": str(tmp_path / "classes"), "train_backbone": False, "embedding_dim": 4}
    trained(tiny["two"], tmp_path / "run", **start)
    classifier, model = (load_model(tmp_path / name)[0] for name in ("classes", "run"))
    for mine, theirs in zip(
        model.get_layer("conv").get_weights(), classifier.get_layer("conv").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert model.get_layer("embedding").trainable
    assert not model.get_layer("conv").trainable
    # And back: a classifier that starts from a network for copies.
    trained(tiny["two"], tmp_path / "again", weights=str(tmp_path / "run"), **class_options)


def test_lite0_has_a_linear_layer_on_the_generalized_mean(tmp_path: Path) -> None:
    config = TrainConfig.with_preset({"dataset_dir": tmp_path, "preset": "copy", "embedding_dim": 16})
    model = build_model(config, 32, 1)
    assert [layer.name for layer in model.layers[-4:]] == ["head_relu6", "generalized_mean", "embedding", "unit"]
    assert model.output_shape == (None, 16)
    assert [weight.path for weight in model.trainable_variables] == ["embedding/kernel", "embedding/bias"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    embedder = search_embedder(model)
    np.testing.assert_allclose(embedder(pixels), model(pixels), atol=1e-6)
    small = build_model(dataclasses.replace(config, model="small", train_backbone=True), 32, 1)
    assert small.count_params() == sum(np.prod(weight.shape) for weight in small.weights)


def test_collapse_is_said() -> None:
    fine = {"mean_norm": 0.1, "copy_similarity": 0.8, "nearest_similarity": 0.5}
    assert not collapse(fine)
    assert not collapse({"loss": 0.3})
    assert "the mean embedding has the length 0.950" in collapse({**fine, "mean_norm": 0.95})
    assert "collapsing" in collapse({**fine, "nearest_similarity": 0.795})
    assert not collapse({**fine, "mean_norm": 0.95, **{f"test_{key}": value for key, value in fine.items()}})
