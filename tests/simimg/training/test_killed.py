"""Killed with -9 at moments that nobody chose, a run started again by the same command ends with the same bits.

SIMIMG_KILLS=10 asks for ten of them instead of one.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tfrecords.convert import ConvertConfig, convert

ROOT = Path(__file__).parents[3]


def train(
    dataset_dir: Path, model_dir: Path, *, num_epochs: int, kill_after_epochs: int = 0, delay_s: float = 0.0
) -> bool:
    """Trains in a process of its own, killed so long after so many more epochs; returns whether it came to its end."""
    command = [sys.executable, "-m", "simimg", "train", f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}"]
    command += ["--preset=tutorial", f"--epochs={num_epochs}", "--global_batch_size=9", "--ema=0.9", "--deterministic"]
    command += ["--rotation_degrees=20", "--checkpoint_every_s=0.2"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr
        told = []
        for line in process.stderr:
            told.append(line)
            if kill_after_epochs and sum(line.startswith("epoch ") for line in told) == kill_after_epochs:
                time.sleep(delay_s)
                process.kill()
                break
        process.stderr.read()
        code = process.wait()
    assert code in (0, -9), "".join(told)
    return code == 0


def kill_and_compare(photos: Path, folder: Path, num_kills: int) -> None:
    dataset_dir = convert(ConvertConfig(image_dir=photos, data_dir=folder, image_size=16, num_workers=1)).dataset_dir
    num_epochs = 12 * num_kills + 12
    assert train(dataset_dir, folder / "undisturbed", num_epochs=num_epochs)
    chance = random.Random(5)
    for _ in range(num_kills):
        moment = {"kill_after_epochs": chance.randint(1, 10), "delay_s": chance.random() / 10}
        assert not train(dataset_dir, folder / "killed", num_epochs=num_epochs, **moment)
    assert train(dataset_dir, folder / "killed", num_epochs=num_epochs)
    ends = [sorted((folder / name / "checkpoints").iterdir())[-1] for name in ("undisturbed", "killed")]
    mine, theirs = (np.load(end / "state.npz") for end in ends)
    assert mine.files == theirs.files
    for name in mine.files:
        np.testing.assert_array_equal(mine[name], theirs[name])
    results = [json.loads((folder / name / "result.json").read_text()) for name in ("undisturbed", "killed")]
    assert results[0]["history"] == results[1]["history"]
    assert not list((folder / "killed" / "checkpoints").glob(".*"))


def test_killed_at_random_moments(photos: Path, tmp_path: Path) -> None:
    kill_and_compare(photos, tmp_path, int(os.environ.get("SIMIMG_KILLS", "1")))
