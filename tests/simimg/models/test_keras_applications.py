"""Keras's networks: their own preprocessing, weights from a file, and what is said where there are none."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

from simimg.errors import ModelError, UsageError
from simimg.models.heads import embedder
from simimg.models.keras_applications import APPLICATIONS, _preprocessed, application


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetV2B0"])
def test_preprocessing_is_the_network_s_own(name: str, pixels: np.ndarray) -> None:
    """Pixels to -1..1, to blue-green-red without the mean, by ImageNet's deviations, and as they are."""
    source = keras.Input((32, 32, 3))
    layer = keras.Model(source, _preprocessed(name, source))
    own = inspect.getmodule(getattr(keras.applications, name)).preprocess_input
    np.testing.assert_allclose(layer(pixels), own(pixels.copy()), rtol=1e-4, atol=1e-4)
    assert not layer.trainable_variables


def test_weights_from_a_file(pixels: np.ndarray, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    file = tmp_path / "mobilenet.weights.h5"
    base.save_weights(file)
    model = application("MobileNetV2", 32, 5, weights=file, fixed=True)
    features = base(keras.applications.mobilenet_v2.preprocess_input(pixels.copy()), training=False).numpy()
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder(model)(pixels), expected, atol=1e-4)
    np.testing.assert_allclose(np.sum(model(pixels), axis=1), 1, atol=1e-5)

    statistics = [weight for weight in model.non_trainable_variables if weight.dtype == "float32"]
    before = [weight.numpy() for weight in statistics]
    model(pixels, training=True)
    for mine, theirs in zip(before, statistics, strict=True):
        np.testing.assert_array_equal(mine, theirs)  # its statistics stay

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(pixels), model(pixels), atol=1e-6)
    with pytest.raises(ModelError, match="does not have the weights of MobileNet without its top"):
        application("MobileNet", 32, 5, weights=file, fixed=True)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(**options: object) -> None:
        assert options["weights"] == "imagenet"
        raise Exception("URL fetch failure on https://storage.googleapis.com/…: None -- [Errno -2]")

    build.__module__ = keras.applications.MobileNetV2.__module__
    monkeypatch.setattr(keras.applications, "MobileNetV2", build)
    with pytest.raises(ModelError, match=r"cannot be downloaded: URL fetch failure.*--weights=PATH.*--weights=none"):
        application("MobileNetV2", 32, 5, weights="imagenet", fixed=True)


def test_a_size_that_is_too_small() -> None:
    assert "Xception" in APPLICATIONS
    with pytest.raises(UsageError, match="Xception cannot take images of 32 px"):
        application("Xception", 32, 5, weights=None, fixed=False)
