"""The additions that a document shows, made in a copy of both packages, and used there."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.forked_process import run_forked

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "simimg" / "docs" / "extending.md").read_text()


def extend(root: Path) -> list[str]:
    """Makes all changes of the document in the tree below `root`; returns the files that it changed or wrote."""
    blocks = re.findall(r"^```(python|diff) (\S+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    for kind, name, text in blocks:
        path = root / name
        if kind == "python":
            assert not path.exists(), f"{name} is there already"
            path.write_text(text)
            continue
        lines = text.splitlines(keepends=True)
        before = "".join(line[1:] or "\n" for line in lines if line[0] != "+")
        after = "".join(line[1:] or "\n" for line in lines if line[0] != "-")
        assert path.read_text().count(before) == 1, f"{name} should have once:\n{before}"
        path.write_text(path.read_text().replace(before, after))
    return [name for _, name, _ in blocks]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extended")
    for package in ("simimg", "tfrecords"):
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "results", "*.jpg")
        )
    extend(root)
    return root


USE = """
from dataclasses import fields
from pathlib import Path
import numpy as np
import tensorflow as tf
from PIL import Image
import simimg
from simimg.augment import AugmentConfig, augment
from simimg.cli import main
from simimg.presets import preset_options
from simimg.training import TrainConfig, load_model

assert Path(simimg.__file__).is_relative_to(Path.cwd()), simimg.__file__
rng = np.random.default_rng(0)
lines = []
for number in range(16):
    name = f"photos/{number} of all.png"
    Path(name).parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(name)
    lines.append(f"{Path(name).name} {'even' if number % 2 == 0 else 'odd'}")
Path("photos/train.lst").write_text("\\n".join([*lines, "gone.png odd", ""]))
assert main(["convert", "--image_dir=photos/train.lst", "--name=listed", "--image_size=8", "--num_workers=1"]) == 0
assert main(["verify", "--dataset_dir=data/listed/1.0.0"]) == 0

config = AugmentConfig(rotation_degrees=0.0, horizontal_flip=False, solarize=0.5)
images = tf.constant(rng.integers(0, 256, (32, 4, 4, 3), np.uint8))
changed = augment(config, 0, tf.constant(0, tf.int64), tf.range(32, dtype=tf.int64), images).numpy()
before = images.numpy().astype(np.float32)
inverted = np.where(before > 127.5, 255 - before, before)
kinds = {(bool((new == old).all()), bool((new == other).all())) for new, old, other in zip(changed, before, inverted)}
assert kinds == {(True, False), (False, True)}, kinds

names = {field.name for field in fields(TrainConfig)}
assert {field.name for field in fields(AugmentConfig)} <= names
assert set(preset_options("tutorial")) <= set(preset_options("plain")) <= names

train = ["train", "--dataset_dir=data/listed/1.0.0", "--preset=plain", "--epochs=1", "--global_batch_size=4"]
assert main([*train, "--model_dir=runs/plain"]) == 0
assert main([*train, "--model_dir=runs/bright", "--solarize=1"]) == 0
model, info = load_model(Path("runs/plain"))
assert (model.name, AugmentConfig.from_options(info.config).solarize) == ("plain", 0.1)
weights = [load_model(Path(f"runs/{name}"))[0].get_weights() for name in ("plain", "bright")]
assert any((one != other).any() for one, other in zip(*weights)), "the flag changes nothing"
"""


def test_what_the_document_adds_works(extended: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(extended)}
    command = [sys.executable, "-c", USE]
    done = run_forked(command, cwd=extended, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
