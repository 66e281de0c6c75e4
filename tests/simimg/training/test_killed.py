"""Killed with -9 at moments that nobody chose, a run started again by the same command ends with the same bits.

The one of a similarity network has all that one of classes has, and the past embeddings. SIMIMG_KILLS=10 asks for ten
kills instead of one, and for both.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.forked_process import ForkedProcess
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

ROOT = Path(__file__).parents[3]


OBJECTIVES = {
    "classes": ["--preset=tutorial", "--rotation_degrees=20"],
    "similarity": [
        *(
            "--objective=similarity",
            "--model=tutorial",
            "--embedding_dim=16",
            "--queue_size=40",
            "--learning_rate=1e-4",
        ),
        *("--blur=0", "--min_jpeg_quality=100"),
    ],
}


def train(
    dataset_dir: Path,
    model_dir: Path,
    objective: str,
    *,
    num_epochs: int,
    kill_after_epochs: int = 0,
    delay_s: float = 0.0,
) -> bool:
    """Trains in a process of its own, killed so long after so many more epochs; returns whether it came to its end."""
    command = [sys.executable, "-m", "simimg", "train", f"--dataset_dir={dataset_dir}", f"--model_dir={model_dir}"]
    command += [f"--epochs={num_epochs}", "--global_batch_size=9", "--ema=0.9", "--deterministic"]
    command += ["--checkpoint_every_s=0.2", *OBJECTIVES[objective]]
    with ForkedProcess(
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


def kill_and_compare(photos: Path, folder: Path, objective: str, num_kills: int) -> None:
    dataset_dir = convert(ConvertConfig(image_dir=photos, data_dir=folder, image_size=16, num_workers=1)).dataset_dir
    num_epochs = 12 * num_kills + 12
    assert train(dataset_dir, folder / "undisturbed", objective, num_epochs=num_epochs)
    chance = random.Random(5)
    for _ in range(num_kills):
        moment = {"kill_after_epochs": chance.randint(1, 10), "delay_s": chance.random() / 10}
        assert not train(dataset_dir, folder / "killed", objective, num_epochs=num_epochs, **moment)
    assert train(dataset_dir, folder / "killed", objective, num_epochs=num_epochs)
    ends = [sorted((folder / name / "checkpoints").iterdir())[-1] for name in ("undisturbed", "killed")]
    mine, theirs = (np.load(end / "state.npz") for end in ends)
    assert mine.files == theirs.files
    for name in mine.files:
        np.testing.assert_array_equal(mine[name], theirs[name])
    results = [json.loads((folder / name / "result.json").read_text()) for name in ("undisturbed", "killed")]
    assert results[0]["history"] == results[1]["history"]
    assert not list((folder / "killed" / "checkpoints").glob(".*"))
    assert any(name.startswith("past/") for name in mine.files) == (objective == "similarity")


@pytest.mark.parametrize("objective", OBJECTIVES if "SIMIMG_KILLS" in os.environ else ["similarity"])
def test_killed_at_random_moments(photos: Path, tmp_path: Path, objective: str) -> None:
    kill_and_compare(photos, tmp_path, objective, int(os.environ.get("SIMIMG_KILLS", "1")))
