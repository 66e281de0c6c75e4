"""The softmax that is fitted before the first step: at the minimum of its loss, and all else as it was."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import UsageError
from simimg.input import open_reader
from simimg.models import lite
from simimg.training import TrainConfig, Watcher, train
from simimg.training.probe import _L2, fit_softmax, probe


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
    assert probe(model, reader) > 0.9
    after = model.get_weights()
    changed = [index for index, pair in enumerate(zip(before, after, strict=True)) if not np.array_equal(*pair)]
    assert changed == [len(before) - 2, len(before) - 1]


def test_a_run_starts_from_it(datasets: dict[str, Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"dataset_dir": datasets["raw"], "preset": "lite0", "resolution": 32, "epochs": 1}
    options |= {"global_batch_size": 27, "learning_rate": 1e-12}
    notes: list[str] = []
    result = train(TrainConfig.with_preset({**options, "model_dir": tmp_path / "run"}), Watcher(note=notes.append))
    assert any(
        note.startswith("the softmax alone, fitted to the network's features: training accuracy") for note in notes
    )
    assert result.test_accuracy is not None
    assert result.test_accuracy > 0.8  # the steps have moved nothing
    without = train(TrainConfig.with_preset({**options, "model_dir": tmp_path / "without", "probe": False}))
    assert without.test_accuracy is not None
    assert without.test_accuracy < result.test_accuracy


def test_a_network_that_knows_nothing_has_no_features() -> None:
    with pytest.raises(UsageError, match="--probe: --model=small starts without weights"):
        TrainConfig(dataset_dir=Path(), model="small", probe=True)
    with pytest.raises(UsageError, match="--probe: --model=lite0 starts without weights"):
        TrainConfig(dataset_dir=Path(), model="lite0", weights="none", probe=True)
