"""The softmax that is fitted before the first step: at the minimum of its loss, and all else as it was."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import simimg
from simimg.api.run_report import write_run_report
from simimg.errors import UsageError
from simimg.evaluation import Classification
from simimg.input import open_reader
from simimg.models import device_copies
from simimg.models.backbones import lite
from simimg.softmax_regression import _L2, fit_softmax
from simimg.training import TrainConfig, Watcher, linear_probe, make_strategy, train
from simimg.training.linear_probe import probe

pytestmark = pytest.mark.own_process


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_softmax_is_at_the_minimum_of_its_loss(smoothing: float) -> None:
    """There its gradient is 0, which is computed here once more, in float64."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200).astype(np.int32)
    features = (rng.normal(size=(200, 12)) + 0.8 * np.eye(12)[labels]).astype(np.float32) * 7
    kernel, bias = fit_softmax(features, labels, 3, smoothing)
    length = np.sqrt(np.square(features).sum(axis=1).mean())
    x, w = features.astype(np.float64) / length, kernel.astype(np.float64) * length
    logits = x @ w + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    wanted = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    error = (p - wanted) / len(x)
    at_zero = (1 / 3 - wanted) / len(x)
    assert np.linalg.norm(x.T @ error + _L2 * w) < 0.01 * np.linalg.norm(x.T @ at_zero)
    assert np.linalg.norm(error.sum(axis=0)) < 0.01 * np.linalg.norm(at_zero.sum(axis=0))
    assert (logits.argmax(axis=1) == labels).mean() > 0.6


def test_features_that_are_all_zero() -> None:
    kernel, bias = fit_softmax(np.zeros((4, 3), np.float32), np.array([0, 0, 0, 1], np.int32), 2)
    assert np.isfinite(kernel).all()
    assert bias[0] > bias[1]


def test_only_the_softmax_is_fitted(datasets: dict[str, Path]) -> None:
    reader, _ = open_reader(datasets["raw"], "train")
    keras.utils.set_random_seed(0)
    model = lite("lite0", 32, 3)
    before = model.get_weights()
    fitted = probe(model, reader)
    assert fitted.accuracy > 0.9
    assert fitted.num_views == 2 * reader.split.num_examples
    after = model.get_weights()
    changed = [index for index, pair in enumerate(zip(before, after, strict=True)) if not np.array_equal(*pair)]
    assert changed == [len(before) - 2, len(before) - 1]


def test_a_run_starts_from_it(datasets: dict[str, Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"dataset_dir": datasets["raw"], "preset": "lite0", "resolution": 32, "epochs": 1}
    options |= {"global_batch_size": 27, "learning_rate": 1e-12, "test_views": "mirrored"}
    notes: list[str] = []
    result = train(TrainConfig.with_preset({**options, "model_dir": tmp_path / "run"}), Watcher(note=notes.append))
    assert any(note.startswith("softmax fitted to the network's features: training accuracy") for note in notes)
    assert result.figures["test"]["accuracy"] > 0.8  # the steps have moved nothing; by chance it is a third


def test_it_sees_the_views_that_the_answer_is_the_mean_of(datasets: dict[str, Path]) -> None:
    reader, _ = open_reader(datasets["raw"], "train")
    seen: dict[str, Any] = {}
    for views in ("one", "mirrored", "cropped"):
        keras.utils.set_random_seed(0)
        model = lite("lite0", 32, 3)
        fitted = probe(model, reader, views=views)
        seen[views] = fitted.num_views, model.get_layer("probabilities").kernel.numpy()
    num_examples = reader.split.num_examples
    assert [count for count, _ in seen.values()] == [2 * num_examples, 2 * num_examples, 12 * num_examples]
    assert np.array_equal(seen["one"][1], seen["mirrored"][1])
    assert not np.allclose(seen["one"][1], seen["cropped"][1])


@pytest.mark.parametrize("most", [40_000, 40])
def test_two_devices_fit_what_one_does(datasets: dict[str, Path], monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """To the bit, also if the split has more features than are used, which end within a batch of both devices."""
    monkeypatch.setattr(linear_probe, "_BATCH_SIZE", 10)
    monkeypatch.setattr(linear_probe, "_MOST_FEATURES", most)
    reader, _ = open_reader(datasets["raw"], "train")
    found = []
    for strategy in (None, make_strategy(2)):
        keras.utils.set_random_seed(0)
        with strategy.scope() if strategy else nullcontext():
            pixels = keras.Input((32, 32, 3))
            x = keras.layers.Conv2D(6, 5, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
            x = keras.layers.GlobalAveragePooling2D()(x)
            model = keras.Model(pixels, keras.layers.Dense(3, "softmax", name="probabilities")(x))
        found.append((probe(model, reader, strategy=strategy), *model.get_weights()))
    assert found[0][0] == found[1][0]
    assert found[0][0].num_views == min(most, 2 * reader.split.num_examples)
    for one, two in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_array_equal(one, two)


def test_without_epochs_it_is_all_that_is_done(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on two devices, and evaluated on one and on two, with the same figures."""
    options: dict[str, Any] = {"preset": "pair", "model": "lite0", "resolution": 32, "model_dir": tmp_path / "run"}
    options |= {"global_batch_size": 28, "num_devices": 2}
    config = TrainConfig.with_preset({**options, "dataset_dir": datasets["raw"]})
    result = train(config)
    assert (result.steps, result.epoch, len(result.history)) == (0, 0, 1)
    assert result.figures["test"]["accuracy"] > 0.8
    assert result.images_per_s > 0
    figures = simimg.evaluate(tmp_path / "run", datasets["raw"])
    assert isinstance(figures, Classification)
    assert figures.accuracy == result.figures["test"]["accuracy"]
    monkeypatch.setattr(device_copies, "compute_devices", lambda: ["CPU:0", "CPU:1"])
    assert simimg.evaluate(tmp_path / "run", datasets["raw"]) == figures
    notes: list[str] = []
    again = train(config, Watcher(note=notes.append))
    assert notes == [f"the run in {tmp_path / 'run'} is finished already"]
    assert again == result
    report = write_run_report(result, config).read_text()
    assert "A softmax was fitted to the features of the pretrained network" in report
    with pytest.raises(UsageError, match="--epochs=0 trains nothing"):
        TrainConfig.with_preset({"dataset_dir": datasets["raw"], "epochs": 0})


def test_a_network_that_knows_nothing_has_no_features() -> None:
    with pytest.raises(UsageError, match="--probe: --model=small starts without pretrained weights"):
        TrainConfig(dataset_dir=Path(), model="small", probe=True)
    with pytest.raises(UsageError, match="--probe: --model=lite0 starts without pretrained weights"):
        TrainConfig(dataset_dir=Path(), model="lite0", weights="none", probe=True)
