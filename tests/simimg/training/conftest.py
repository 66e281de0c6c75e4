"""Datasets and a network so small that a run takes a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from simimg.models.backbones import NETWORKS
from simimg.training import TrainConfig, load_model, train
from simimg.training.tensorboard import TensorBoard
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig


@pytest.fixture(scope="module", autouse=True)
def _augmented_as_on_a_gpu(request: pytest.FixtureRequest) -> None:
    """Applies to all modules but those that are about the processor."""
    if not getattr(request.module, "AUGMENTS_BY_XLA", False):
        request.getfixturevalue("augmented_as_on_a_gpu")


@pytest.fixture(scope="module", autouse=True)
def _no_augmented_images(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves out the images for TensorBoard, a seventh of a small run, where no test looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "SHOWS_AUGMENTED", False):
            patch.setattr(TensorBoard, "augmented", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Datasets of 8 px: `two` classes of 8 pictures without a split test, the same dealt anew
    or in `three` splits, `one` class."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(8):
            path = folder / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)

    def converted(name: str, **changes: Any) -> Path:
        options = {"image_dir": folder / "photos", "data_dir": folder, "image_size": 8, "num_workers": 1, **changes}
        return convert(ConvertConfig(name=name, **options)).dataset_dir

    return {
        "two": converted("two", splits="train=1"),
        "dealt_anew": converted("dealt_anew", splits="train=1", seed=1),
        "jpeg": converted("jpeg", splits="train=1", encoding="jpeg"),
        "three": converted("three", splits="train=0.5,validation=0.25,test=0.25"),
        "one": converted("one", splits="train=1", categories=("a",)),
    }


@pytest.fixture
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has any model be a convolution and a softmax, which are compiled in no time."""

    def build(image_size: int, num_classes: int) -> keras.Model:
        pixels = keras.Input((image_size, image_size, 3))
        x = keras.layers.Rescaling(1 / 255)(pixels)
        x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(x))
        return keras.Model(pixels, keras.layers.Dense(num_classes, activation="softmax", dtype="float32")(x))

    monkeypatch.setitem(NETWORKS, "tutorial", build)


BASE: dict[str, Any] = {
    "preset": "tutorial",
    "epochs": 1,
    "global_batch_size": 8,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "label_smoothing": 0.0,
    "rotation_degrees": 10.0,
    "num_devices": 1,
}

Run = Callable[..., list[np.ndarray]]


@pytest.fixture
def run(tiny_model: None) -> Run:
    """Returns a function that trains and returns the weights that the run ends with."""

    def trained(dataset_dir: Path, model_dir: Path, **changes: Any) -> list[np.ndarray]:
        train(TrainConfig.with_preset({**BASE, "dataset_dir": dataset_dir, "model_dir": model_dir, **changes}))
        weights: list[np.ndarray] = load_model(model_dir)[0].get_weights()
        return weights

    return trained


@pytest.fixture
def base() -> dict[str, Any]:
    """The options of `run` that a test does not change."""
    return BASE
