"""A run that is told to be patient stops by the split `validation`, and keeps what was best there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simimg
from simimg.cli import main
from simimg.errors import UsageError
from simimg.evaluation import calibration, compiled, fit_temperature, predict, scaled
from simimg.input import open_reader
from simimg.training import TrainConfig, Watcher, load_model, train
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig


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


def test_the_temperature_is_of_the_validation_split(
    photos: Path,
    run: Any,
    tmp_path: Path,
    base: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And never of the measured one; the report and the text say so."""
    splits = "train=0.4,validation=0.3,test=0.3"
    options = ConvertConfig(image_dir=str(photos), data_dir=tmp_path, image_size=8, splits=splits, num_workers=1)
    dataset_dir, model_dir = convert(options).dataset_dir, tmp_path / "run"
    run(dataset_dir, model_dir, epochs=3)
    figures = simimg.evaluate(model_dir, dataset_dir)
    forward = compiled(load_model(model_dir)[0])
    outputs = {name: predict(forward, open_reader(dataset_dir, name)[0])[:2] for name in ("validation", "test")}
    expected = fit_temperature(*outputs["validation"])
    assert expected is not None
    assert figures.temperature == pytest.approx(expected)
    probabilities, labels = outputs["test"]
    assert figures.calibration.error == pytest.approx(calibration(probabilities, labels).error)
    after = calibration(scaled(probabilities, expected), labels).error
    assert figures.scaled_calibration.error == pytest.approx(after, abs=1e-5)
    assert simimg.evaluate(model_dir, dataset_dir, split="validation").temperature is None
    with monkeypatch.context() as patch:  # as on a machine with three GPUs
        patch.setattr("simimg.models.device_copies.compute_devices", lambda: ["CPU:0", "CPU:1", "CPU:0"])
        assert len(outputs["validation"][1]) % 3
        assert simimg.evaluate(model_dir, dataset_dir).temperature == pytest.approx(expected)
    capsys.readouterr()
    command = ["evaluate", f"--model_dir={model_dir}", f"--dataset_dir={dataset_dir}"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert f"with the temperature {expected:.3f}, which fits split validation" in text
    assert f"macro F1 {figures.macro_f1:.4f}" in text
    assert "top-5" not in text  # of three classes
    assert f"average precision {figures.curves['discs'].average_precision:.4f}" in text
    page = (model_dir / "evaluation-test.html").read_text()
    assert f"temperature scaling with {expected:.3f}" in page
    assert main([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["temperature"] == figures.temperature
    assert values["average_precision"].keys() == values["f1_per_class"].keys() == values["per_class"].keys()
