"""Keras's networks: their own preprocessing, weights from a file, and what is said where there are none."""

import collections
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import ModelError, UsageError
from simimg.models.dropout import ExampleDropout, dropout_scope
from simimg.models.heads import embedder
from simimg.models.keras_applications import APPLICATIONS, _preprocessed, application, finalize_states, for_replicas
from simimg.models.pretrained import start_from
from simimg.models.served_network import in_float32
from simimg.training import make_strategy
from simimg.training.checkpoints import State


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


def test_a_network_from_random_weights_has_the_layers_that_replicas_need() -> None:
    model = application("EfficientNetB0", 32, 5, weights=None, fixed=False, stochastic_depth=0.2)
    layers = [layer for network in model.layers if isinstance(network, keras.Model) for layer in network.layers]
    kinds = collections.Counter(type(layer).__name__ for layer in layers)
    assert (kinds["BatchNormalization"], kinds["Dropout"]) == (0, 0)
    assert (kinds["SynchronizedBatchNormalization"], kinds["ExampleDropout"]) == (49, 9)
    drops = [layer for layer in layers if isinstance(layer, ExampleDropout)]
    assert sorted(layer.stream for layer in drops) == list(range(2, 11))  # 1 is that of the softmax
    assert [layer.rate for layer in drops] == pytest.approx([0.2 * block / 9 for block in range(1, 10)])  # not its own
    with pytest.raises(UsageError, match=r"EfficientNetB0 is tuned in inference mode.*--weights=none"):
        application("EfficientNetB0", 32, 3, weights=None, fixed=True, stochastic_depth=0.2)


def test_two_replicas_train_as_one(pixels: np.ndarray) -> None:
    """Statistics of the batch, dropout of whole examples, and layers in an inner network."""
    source = keras.Input((32, 32, 3))
    stem = keras.Sequential(
        [keras.layers.Conv2D(4, 8, strides=8), keras.layers.BatchNormalization(scale=False)], name="stem"
    )
    x = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name="drop")(stem(source))
    base = keras.Model(source, keras.layers.GlobalAveragePooling2D()(x), name="base")
    batch = np.concatenate([pixels, 255 - pixels, pixels[:, ::-1], pixels / 2])
    seed = tf.constant([3, 4], tf.int64)
    found = []
    for count in (1, 2):
        strategy = make_strategy(count)
        with strategy.scope():
            network = for_replicas(base, first_stream=2)
        for mine, theirs in zip(network.weights, base.weights, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())

        @tf.function
        def trained(strategy=strategy, network=network, rows=8 // count) -> Any:
            def replica() -> Any:
                first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
                with dropout_scope(seed=seed, first_row=first):
                    return network(tf.constant(batch)[first : first + rows], training=True)

            return strategy.experimental_local_results(strategy.run(replica))

        outputs = np.concatenate([part.numpy() for part in trained()])
        found.append([outputs, *(weight.numpy() for weight in network.weights)])
    assert 0 < (found[0][0] == 0).all(axis=1).sum() < 8, "no example is dropped, or all are"
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
    statistics = network.get_layer("stem").layers[1]
    assert not np.allclose(statistics.moving_mean.numpy(), 0)


@pytest.mark.parametrize("nested", [False, True])
def test_a_copy_normalizes_as_its_original(pixels: np.ndarray, nested: bool, tmp_path: Path) -> None:
    """So do a model that starts from a run's weights and an average: `Normalization` computes with constants."""

    def built(policy: str = "float32") -> keras.Model:
        layer = keras.layers.Normalization(name="normalized", dtype=policy)
        if nested:
            source = keras.Input((32, 32, 3), name="inner_pixels")
            layer = keras.layers.TimeDistributed(keras.Model(source, layer(source), name="inner"), name="outer")
        source = keras.Input((1, 32, 32, 3) if nested else (32, 32, 3), name="pixels")
        return keras.Model(source, layer(source), name="base")

    base = built()
    mean, variance = np.float32([10, 20, 30]), np.float32([4, 9, 16])
    base.set_weights([mean, variance, *base.get_weights()[2:]])
    finalize_states(base)
    expected = (pixels - mean) / np.sqrt(variance)
    given = pixels[:, None] if nested else pixels
    base.save(tmp_path / "base.keras")
    mixed = built("mixed_bfloat16")
    mixed.set_weights(base.get_weights())
    started, average = built(), built()
    start_from(started, tmp_path / "base.keras")
    State(base, None, average).copy_to_average()
    for copy in (base, for_replicas(base, first_stream=2), started, average, in_float32(mixed)):
        np.testing.assert_allclose(np.reshape(copy(given), expected.shape), expected, rtol=1e-5, atol=1e-5)


def test_a_size_that_is_too_small() -> None:
    assert "Xception" in APPLICATIONS
    with pytest.raises(UsageError, match="Xception cannot take images of 32 px"):
        application("Xception", 32, 5, weights=None, fixed=False)
