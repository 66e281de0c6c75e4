"""Keras layers on fused kernels: the pixels of Keras's layers for the same draw, anywhere that Keras's layers work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import simimg.augment
from simimg.errors import UsageError

pytestmark = pytest.mark.own_process

IMAGES = np.random.default_rng(0).uniform(0, 255, (6, 21, 17, 3)).astype(np.float32)
MOVING: dict[str, list[dict[str, Any]]] = {
    "RandomRotation": [{"factor": 0.3}, {"factor": (0.1, 0.1), "fill_mode": "constant", "fill_value": 7.0}],
    "RandomTranslation": [{"height_factor": 0.4, "width_factor": (-0.7, 0.1)}],
    "RandomZoom": [{"height_factor": (-0.4, 0.6)}, {"height_factor": 0.2, "width_factor": (-0.3, 0.1)}],
    "RandomShear": [{"x_factor": 0.5, "y_factor": (0.1, 0.3)}],
}
OTHERS: dict[str, list[dict[str, Any]]] = {
    "RandomFlip": [{"mode": "horizontal"}, {"mode": "vertical"}],
    "RandomBrightness": [{"factor": 0.4}, {"factor": (-0.2, 0.1), "value_range": (20, 200)}],
    "RandomContrast": [{"factor": 0.6}],
}
CASES = [(name, options) for kinds in (MOVING, OTHERS) for name, all in kinds.items() for options in all]
CASES += [(name, {**MOVING[name][0], "fill_mode": "nearest"}) for name in MOVING]
CASES += [("RandomRotation", {"factor": 0.2, "fill_mode": "wrap"}), ("RandomZoom", {"height_factor": 0.2,
          "interpolation": "nearest"}), ("RandomRotation", {"factor": 0.2, "data_format": "channels_first"}),
          ("RandomFlip", {"mode": "horizontal", "data_format": "channels_first"})]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES)
def test_pixels_are_those_of_keras(name: str, options: dict[str, Any]) -> None:
    ours = getattr(simimg.augment, name)(**options, seed=3)
    theirs = getattr(keras.layers, name)(**options, seed=3)
    images = np.transpose(IMAGES, [0, 3, 1, 2]) if "data_format" in options else IMAGES
    for given in (images, images[0], images.astype(np.uint8)):
        found, expected = ours(given), theirs(given.astype(np.float32))
        assert found.dtype == expected.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.array_equal(ours(images, training=False), images)
    assert ours.supports_jit == ("wrap" not in options.values() and options.get("interpolation") != "nearest")


@pytest.mark.parametrize("name", [*MOVING, *OTHERS, "RandomAugmentation"])
def test_layers_are_saved_and_restored(name: str) -> None:
    options = {"rotation_degrees": 7, "cutout": 0.3} if name == "RandomAugmentation" else (MOVING | OTHERS)[name][0]
    layer = getattr(simimg.augment, name)(**options, seed=5, name="here")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert np.array_equal(again(IMAGES), layer(IMAGES))


def test_both_directions_are_drawn_one_by_one() -> None:
    same = np.repeat(IMAGES[:1], 200, axis=0)
    wanted = [same[0], same[0][:, ::-1], same[0][::-1], same[0][::-1, ::-1]]
    found = simimg.augment.RandomFlip(seed=1)(same).numpy()
    assert all(sum(np.array_equal(one, form) for one in found) > 25 for form in wanted)
    boxes = {"boxes": np.full((200, 1, 4), (0.1, 0.2, 0.4, 0.6), np.float32), "labels": np.zeros((200, 1))}
    layer = simimg.augment.RandomFlip(seed=1, bounding_box_format="rel_xyxy")
    out = layer({"images": same, "bounding_boxes": boxes})
    for image, box in zip(out["images"].numpy(), out["bounding_boxes"]["boxes"].numpy()[:, 0], strict=True):
        form = next(number for number, one in enumerate(wanted) if np.array_equal(image, one))
        x = (0.6, 0.9) if form % 2 else (0.1, 0.4)
        y = (0.4, 0.8) if form >= 2 else (0.2, 0.6)
        np.testing.assert_allclose(box, [x[0], y[0], x[1], y[1]], atol=1e-6)


@pytest.mark.parametrize("name", ["RandomRotation", "RandomFlip", "RandomBrightness", "RandomAugmentation"])
def test_replicas_draw_different_numbers(name: str) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    options = {} if name == "RandomAugmentation" else (MOVING | OTHERS)[name][0]
    images = np.repeat(IMAGES, 3, axis=0)
    with strategy.scope():
        layer = getattr(simimg.augment, name)(**options, seed=2)

    @tf.function
    def both() -> Any:
        return strategy.run(lambda: layer(tf.constant(images)))

    first, second = strategy.experimental_local_results(both())
    assert not np.array_equal(first, second)
    third, _ = strategy.experimental_local_results(both())
    assert not np.array_equal(first, third)


def test_layers_work_in_models_and_in_the_input(tmp_path: Path) -> None:
    flip, rotate = simimg.augment.RandomFlip(seed=1), simimg.augment.RandomRotation(0.1, seed=1)
    all_at_once = simimg.augment.RandomAugmentation(seed=1, color_jitter=0.2)
    model = keras.Sequential(
        [keras.layers.Input((21, 17, 3)), flip, rotate, all_at_once, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    for jit_compile in (False, True):
        model.compile("sgd", "mse", jit_compile=jit_compile)
        history = model.fit(IMAGES / 255, np.zeros((6, 2)), verbose=0).history
        assert np.isfinite(history["loss"]).all()
    inputs = keras.layers.Input((21, 17, 3))
    keras.Model(inputs, simimg.augment.RandomZoom(0.1)(rotate(inputs))).predict(IMAGES, verbose=0)
    plain = model.layers[-1](model.layers[-2](IMAGES))
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), plain, rtol=1e-4, atol=1e-2)  # as if there were none
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    one_by_one = tf.data.Dataset.from_tensor_slices(IMAGES.astype(np.uint8))
    for layer in (flip, rotate, all_at_once, simimg.augment.RandomContrast(0.3)):
        for dataset in (one_by_one, one_by_one.batch(3), one_by_one.batch(4)):
            found = list(dataset.map(layer, num_parallel_calls=2))
            assert [image.shape for image in found] == [image.shape for image in dataset]
            assert found[0].dtype == tf.float32


def test_all_augmentations_are_one_layer() -> None:
    first, second = (simimg.augment.RandomAugmentation(seed=2, rotation_degrees=30) for _ in range(2))
    found = first(IMAGES)
    assert np.array_equal(found, second(IMAGES))
    assert not np.array_equal(found, first(IMAGES))  # the next step
    repeated = first(np.repeat(IMAGES[:1], 2, axis=0))
    assert not np.array_equal(repeated[0], repeated[1])
    assert first(IMAGES[0].astype(np.uint8)).shape == IMAGES[0].shape
    assert np.array_equal(first(IMAGES, training=False), IMAGES)
    mixed = simimg.augment.RandomAugmentation(dtype="mixed_bfloat16")
    assert mixed(IMAGES).dtype == tf.bfloat16
    with pytest.raises(UsageError, match="--blur=99"):
        simimg.augment.RandomAugmentation(blur=99)
    with pytest.raises(UsageError, match=r"RandomAugmentation: {'rotate': 9}. The options are: rotation_degrees"):
        simimg.augment.RandomAugmentation(rotate=9)
    with pytest.raises(UsageError, match=r"1 or 3 channels. Received the shape \(2, 8, 8, 4\)"):
        first(np.zeros((2, 8, 8, 4), np.float32))
    assert first(IMAGES[..., :1]).shape == IMAGES[..., :1].shape


@pytest.mark.parametrize("formulation", ["operations", "xla"])
def test_policies_round_images_of_other_types(formulation: str) -> None:
    """As those that another layer has moved are: their tables have 256 values."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 7, 3)).astype(np.uint8)
    others = np.where(pixels == 255, 300.0, np.where(pixels == 0, -40.0, pixels - 0.4))
    options: dict[str, Any] = {"rand_augment": "2,9", "augment_with": formulation, "seed": 2}
    expected = simimg.augment.RandomAugmentation(**options)(pixels)
    for dtype in (np.float32, np.float64, np.int32):
        given = (others if dtype is not np.int32 else np.round(others)).astype(dtype)
        assert np.array_equal(simimg.augment.RandomAugmentation(**options)(given), expected)


def test_a_layer_does_not_mix_images_whose_labels_it_does_not_see() -> None:
    with pytest.raises(UsageError, match="mixup and cutmix change labels"):
        simimg.augment.RandomAugmentation(mixup=0.2)


def test_batches_of_a_length_that_is_not_known() -> None:
    layers = [
        simimg.augment.RandomAugmentation(seed=2, rand_augment="2,9", augment_with="operations") for _ in range(2)
    ]
    any_length = tf.function(layers[0], input_signature=[tf.TensorSpec([None, *IMAGES.shape[1:]], tf.float32)])
    assert np.array_equal(any_length(IMAGES), layers[1](IMAGES))
