"""Networks as they are saved: the same numbers by Keras's own layers, and back into networks that are trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from simimg.inference.conversion import _weights_sha256
from simimg.models.backbones import tutorial
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.models.frozen_conv import FrozenNormConv2D
from simimg.models.heads import EMBEDDING, GeneralizedMeanPooling2D, image_input, probabilities, unit
from simimg.models.keras_applications import Fixed
from simimg.models.oriented_gradients import OrientedGradients
from simimg.models.pretrained import start_from
from simimg.models.saved_model import compiled
from simimg.models.served_network import served_network
from simimg.models.sscd import sscd
from simimg.models.stock_layers import with_stock_layers
from simimg.models.torch_zip import read_torch_file

GOLDEN = Path(__file__).parents[2] / "golden"


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype == "float32":
            positive = "variance" in weight.path or "gamma" in weight.path
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.3, weight.shape))
    return model


def inner() -> keras.Model:
    """A network of another library, with statistics and dropout."""
    x = pixels = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(name="inner_norm")(keras.layers.Conv2D(4, 3, name="inner_conv")(x))
    return keras.Model(pixels, keras.layers.Dropout(0.5)(keras.layers.GlobalMaxPooling2D()(x)), name="inner")


def everything(num_classes: int = 3, *, with_gradients: bool = True) -> keras.Model:
    """A network with each layer of ours."""
    pixels = image_input(16, smallest=8)
    x = (
        SynchronizedBatchNormalization(name="edges_norm")(OrientedGradients(2, 8, name="edges")(pixels))
        if with_gradients
        else pixels
    )
    x = FrozenNormConv2D(8, 3, name="stem")(x)
    x = SynchronizedBatchNormalization(name="stem_norm")(x)  # a name that the stock layers would have
    x = FrozenNormConv2D(None, 3, strides=2, name="depthwise")(x)
    x = FrozenNormConv2D(8, 3, padding=1, groups=2, strides=2, epsilon=1e-5, name="grouped")(x)
    pooled = GeneralizedMeanPooling2D(2.5, name="pooled")(keras.layers.ReLU()(x))
    joined = keras.layers.Concatenate(name=EMBEDDING)([pooled, Fixed(inner(), name="fixed")(pixels)])
    x = ExampleDropout(0.5, stream=1, noise_shape=(None, 1))(unit(joined))
    return keras.Model(pixels, probabilities(x, num_classes), name="everything")


def foreign(model: keras.Model) -> set[str]:
    """Returns the modules of a network's layers and operations that are not Keras's."""
    found = {type(one).__module__.partition(".")[0] for one in model.operations}
    return (found | {name for one in model.layers if isinstance(one, keras.Model) for name in foreign(one)}) - {"keras"}


def images(size: int = 16) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.concatenate([rng.integers(0, 256, (3, size, size, 3), np.uint8), np.zeros((1, size, size, 3), np.uint8)])


def test_each_layer_is_replaced_and_computes_the_same(tmp_path: Path) -> None:
    model = randomized(everything())
    stock = with_stock_layers(model)
    assert foreign(model) == {"simimg"}
    assert not foreign(stock)
    np.testing.assert_allclose(stock(images()), model(images()), atol=1e-6)
    stock.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, custom_objects={}, safe_mode=True)
    np.testing.assert_array_equal(again(images()), stock(images()))
    twice = with_stock_layers(again)
    np.testing.assert_allclose(twice(images()), model(images()), atol=1e-6)
    # Fixed statistics stay fixed where the file is trained on.
    norms = [again.get_layer("stem_norm_"), again.get_layer("inner").get_layer("inner_norm")]
    before = [norm.moving_mean.numpy() for norm in norms]
    again(images(), training=True)
    for norm, mean in zip(norms, before, strict=True):
        np.testing.assert_array_equal(norm.moving_mean, mean)


def test_converters_see_no_groups_and_no_erfc() -> None:
    model = randomized(everything())
    served = with_stock_layers(model, for_converters=True)
    np.testing.assert_allclose(served(images()), model(images()), atol=1e-6)
    for kwargs in ({"groups": 2}, {"groups": 4, "strides": 2, "padding": "same"}, {"groups": 4, "dilation_rate": 2}):
        kwargs["activation"] = "gelu"
        layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 1), keras.layers.Conv2D(8, 3, **kwargs)]
        layers += [keras.layers.Activation("gelu"), keras.layers.Flatten(), keras.layers.Dense(5, "gelu")]
        grouped = randomized(keras.Sequential(layers))
        plain = with_stock_layers(grouped, for_converters=True)
        assert not any(getattr(layer, "activation", None) is keras.activations.gelu for layer in plain.layers)
        assert not any(getattr(layer, "groups", 1) > 1 for layer in (*served.layers, *plain.layers))
        np.testing.assert_allclose(plain(images() / 255), grouped(images() / 255), atol=1e-5)


def test_operations_of_the_network_keep_their_names() -> None:
    """In a new process, Keras gives the first sum of a stand-in the name that the network's own first sum has."""
    pixels = keras.Input((8, 8, 4))
    x = keras.layers.Activation("gelu")(keras.layers.Conv2D(4, 3, padding="same", groups=2)(pixels))
    model = keras.Model(pixels, keras.ops.concatenate([x + pixels, 2 * x]))
    keras.backend.clear_session()
    with_stock_layers(model, for_converters=True)


def test_maps_of_gradients() -> None:
    """Where two channels have gradients of the same length, the first one counts in both."""
    for cell, directions in ((4, 16), (3, 7)):
        pixels = keras.Input((18, 22, 3))
        model = keras.Model(pixels, OrientedGradients(cell, directions, name="gradients")(pixels))
        rng = np.random.default_rng(2)
        photos = np.concatenate([rng.uniform(-9, 300, (2, 18, 22, 3)), rng.integers(0, 2, (2, 18, 22, 3)) * 255])
        np.testing.assert_allclose(with_stock_layers(model)(photos), model(photos), atol=1e-5)


def test_a_run_starts_from_either_form(tmp_path: Path) -> None:
    trained = randomized(everything(), 1)
    trained.save(tmp_path / "custom.keras")
    with_stock_layers(trained).save(tmp_path / "stock.keras")
    for name in ("custom", "stock"):
        model = randomized(everything(5), 2)
        start_from(model, tmp_path / f"{name}.keras")
        for layer in ("stem", "depthwise", "grouped", "stem_norm", "fixed"):
            for one, other in zip(model.get_layer(layer).weights, trained.get_layer(layer).weights, strict=True):
                np.testing.assert_array_equal(one, other)


def test_precision_is_kept_and_exports_are_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = randomized(everything())
    finally:
        keras.config.set_dtype_policy("float32")
    stock = with_stock_layers(model)
    assert stock.get_layer("stem").compute_dtype == "bfloat16"
    np.testing.assert_allclose(stock(images()), model(images()), atol=3e-2)
    served = served_network(model, "one")
    assert {layer.compute_dtype for layer in served.layers} == {"float32"}
    np.testing.assert_allclose(served(images()), model(images()), atol=3e-2)


def test_sequential_and_other_models() -> None:
    layers = [keras.Input((16, 16, 3)), FrozenNormConv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = randomized(keras.Sequential(layers))
    np.testing.assert_allclose(with_stock_layers(model)(images()), model(images()), rtol=1e-5, atol=1e-4)

    class Subclassed(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    other = Subclassed()
    assert with_stock_layers(other) is other


def test_an_index_knows_a_model_that_is_imported_again() -> None:
    """Indexes name their model by a digest of its weights, which earlier versions saved in other layers."""
    model = sscd(read_torch_file(GOLDEN / "sscd-tiny.torchvision.pt"), 48)
    assert _weights_sha256(with_stock_layers(model)) == _weights_sha256(model)


@pytest.mark.parametrize("order", ["simimg, keras", "keras, simimg"])
def test_keras_loads_files_of_earlier_versions(tmp_path: Path, order: str) -> None:
    """The folder's file has our layers; `import simimg` alone has Keras know them."""
    model = randomized(everything(with_gradients=False))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "expected.npy", model(images()).numpy())
    np.save(tmp_path / "images.npy", images())
    code = f"""
import sys, numpy
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
import {order}
model = keras.saving.load_model("model.keras", compile=False)
numpy.testing.assert_allclose(model(numpy.load("images.npy")), numpy.load("expected.npy"), atol=1e-6)
assert not any("AfterKeras" in str(finder) for finder in sys.meta_path)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_views_inside_the_network() -> None:
    model = randomized(tutorial(16, 3))
    for views in ("one", "mirrored", "cropped"):
        served = served_network(model, views)
        np.testing.assert_allclose(served(images()), compiled(model, views=views)(images()), atol=1e-5)
        assert not foreign(served)
