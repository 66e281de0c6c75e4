"""Networks, as model folders and converted."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from simimg.inference.conversion import convert_network
from simimg.models.backbones import small
from simimg.models.heads import EMBEDDING, image_input, probabilities
from simimg.models.model_folder import RunInfo, save_folder

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def info(**changes: object) -> RunInfo:
    values = {
        "image_size": 32,
        "resize": "stretch",
        "class_names": CLASSES,
        "dataset_sha256": "d" * 64,
        "shuffle": "uniform",
        "config": {"objective": "classes", "test_views": "one"},
    }
    return RunInfo(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted networks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "simimg" / "networks"


def tiny() -> keras.Model:
    """Returns a network that is converted in a tenth of the time of `small`."""
    pixels = image_input(32, smallest=8)
    x = keras.layers.Conv2D(8, 5, strides=4, name="conv")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(keras.layers.ReLU()(x))
    return keras.Model(pixels, probabilities(x, len(CLASSES)), name="tiny")


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    keras.utils.set_random_seed(3)
    save_folder(tmp_path / "run", tiny(), info())
    return tmp_path / "run"


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Images with edges and surfaces, uint8 `[40, 32, 32, 3]`."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The embedder of `small` for LiteRT."""
    folder = tmp_path_factory.mktemp("run") / "run"
    keras.utils.set_random_seed(3)
    save_folder(folder, small(32, len(CLASSES)), info())
    content, facts = convert_network(str(folder), "embedding")
    assert not facts.refused
    return content
