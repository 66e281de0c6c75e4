"""A run that is told to be patient stops by the split `validation`, and keeps what was best there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simimg.errors import UsageError
from simimg.training import TrainConfig, Watcher, load_model, train


def config(dataset_dir: Path, model_dir: Path, base: dict[str, Any], **changes: Any) -> TrainConfig:
    return TrainConfig.with_preset({**base, "dataset_dir": dataset_dir, "model_dir": model_dir, **changes})


def test_without_the_split(tiny: dict[str, Path], tmp_path: Path, base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"no split `validation`.*--splits=train=0.65,validation=0.1,test=0.25"):
        train(config(tiny["two"], tmp_path / "run", base, patience=2))
    assert not (tmp_path / "run").exists()


def test_what_does_not_get_better_is_stopped(
    tiny: dict[str, Path], run: Any, tmp_path: Path, base: dict[str, Any]
) -> None:
    still = {"optimizer": "sgd", "learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 50}
    result = train(config(tiny["three"], tmp_path / "run", base, patience=3, **still))
    assert (result.epoch, result.steps, len(result.history)) == (1, 4, 4)
    again = train(config(tiny["three"], tmp_path / "run", base, patience=3, **still))
    assert again == result
    assert result.figures["validation"]["accuracy"] == result.history[0]["validation_accuracy"]


def unlearning(dataset_dir: Path, model_dir: Path, base: dict[str, Any], notes: list[str]) -> Any:
    """A run whose rate is so high that a later epoch is worse than an earlier one."""
    return train(
        config(dataset_dir, model_dir, base, optimizer="sgd", learning_rate=2.0, epochs=8, patience=4),
        Watcher(note=notes.append),
    )


def test_the_best_weights_are_kept(tiny: dict[str, Path], run: Any, tmp_path: Path, base: dict[str, Any]) -> None:
    notes: list[str] = []
    result = unlearning(tiny["three"], tmp_path / "run", base, notes)
    keys = [(line["validation_accuracy"], -line["validation_loss"]) for line in result.history]
    assert result.epoch == 1 + keys.index(max(keys)) < len(result.history)
    assert any(note.startswith(f"keeping epoch {result.epoch}, with the best validation accuracy") for note in notes)
    best = tmp_path / "run" / "checkpoints" / f"{result.epoch:08d}"  # a step an epoch
    assert json.loads((best / "checkpoint.json").read_text())["best"]["epoch"] == result.epoch
    state = np.load(best / "state.npz")
    for number, weight in enumerate(load_model(tmp_path / "run")[0].get_weights()):
        np.testing.assert_array_equal(weight, state[f"model/{number:04d}"])
    assert result.figures["test"]["accuracy"] == result.history[result.epoch - 1]["test_accuracy"]


def test_a_damaged_best_checkpoint_is_told_of(
    tiny: dict[str, Path], run: Any, tmp_path: Path, base: dict[str, Any]
) -> None:
    result = unlearning(tiny["three"], tmp_path / "run", base, [])
    (tmp_path / "run" / "model.keras").unlink()  # as if it had been killed before it was finished
    state = tmp_path / "run" / "checkpoints" / f"{result.epoch:08d}" / "state.npz"
    state.write_bytes(state.read_bytes()[:-1])
    notes: list[str] = []
    other = unlearning(tiny["three"], tmp_path / "run", base, notes)
    assert any("the best epoch's checkpoint is damaged" in note for note in notes)
    assert other.epoch == len(other.history) == len(result.history)
