"""Ctrl-C from outside: what the process says, its exit code, and what is on disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simimg import cli
from simimg.errors import TrainingInterrupted
from simimg.training import StepInfo, TrainConfig, Watcher, train, train_step
from tests.forked_process import ForkedProcess
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def dataset_dir(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """54 pictures to train on, at 16 px."""
    data_dir = tmp_path_factory.mktemp("data")
    return convert(ConvertConfig(image_dir=photos, data_dir=data_dir, image_size=16, num_workers=1)).dataset_dir


def test_ctrl_c_and_the_same_command_again(
    dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir = tmp_path / "run"
    command = ["train", f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}", "--preset=tutorial"]
    command += ["--epochs=60", "--global_batch_size=54"]
    process = ForkedProcess(
        [sys.executable, "-m", "simimg", *command, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("epoch 1/60"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(told) + err
    assert json.loads(out)["exit_code"] == 130
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("simimg: stopped after step ")
    assert last.endswith(f"of 60; saved in {model_dir}. Give the same command again to resume.")
    step = int(last.split()[4])
    assert 1 <= step < 60
    assert sorted(path.name for path in (model_dir / "checkpoints").iterdir())[-1] == f"{step:08d}"
    assert not (model_dir / "model.keras").exists()

    capsys.readouterr()
    assert cli.main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    values = json.loads(out)
    assert values["steps"] == 60
    assert values["model_dir"] == str(model_dir)
    assert f"resuming from epoch {step + 1}, step 0" in err
    assert "epoch 1/60" not in err
    history = json.loads((model_dir / "result.json").read_text())["history"]
    assert [line["epoch"] for line in history] == list(range(1, 61))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_stop_at_the_end_of_an_epoch(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    """It is obeyed there, too, unless the run is finished: a set of one batch has no other place to stop at."""
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)
    options: dict[str, Any] = {"dataset_dir": dataset_dir, "model_dir": tmp_path / "run", "preset": "tutorial"}
    config = TrainConfig.with_preset({**options, "epochs": epochs, "global_batch_size": 54})
    seen: list[int] = []

    def watch(info: StepInfo) -> None:
        seen.append(info.step)
        os.kill(os.getpid(), signal.SIGTERM)

    if epochs == 1:
        assert train(config, Watcher(step=watch)).steps == 1
    else:
        with pytest.raises(TrainingInterrupted, match="stopped after step 1 of 3"):
            train(config, Watcher(step=watch))
    assert seen == [1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as it was


def test_a_second_ctrl_c_does_not_wait(dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)
    options: dict[str, Any] = {"dataset_dir": dataset_dir, "model_dir": tmp_path / "run", "preset": "tutorial"}

    def watch(info: StepInfo) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig.with_preset(options), Watcher(step=watch))
