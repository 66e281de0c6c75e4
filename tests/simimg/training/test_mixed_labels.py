"""Mixup and CutMix in a training step: losses, scores and gradients are those of mixed labels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import augment_and_mix, partners
from simimg.errors import UsageError
from simimg.input import PADDING_ID, Batch
from simimg.models.heads import TARGETS
from simimg.training import TrainConfig, Watcher, train
from simimg.training.train_step import _label_gradients

pytestmark = pytest.mark.own_process

ZERO = tf.constant(0, tf.int64)
STILL: dict[str, Any] = {"rotation_degrees": 0.0, "horizontal_flip": False, "crop_min_area": 1.0, "colour_jitter": 0.0}


def linear(num_outputs: int, activation: str | None) -> keras.Model:
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.Dense(num_outputs, activation=activation)(x)
    return keras.Model(pixels, keras.layers.Rescaling([2.0] * num_outputs, name=TARGETS)(x) if not activation else x)


def batch(label: Any) -> Batch:
    ids = tf.constant([5, 2, 9, 4, 7, PADDING_ID, 1, 3], tf.int64)  # neither 7 nor the skipped record is mixed
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8))
    return Batch(images, tf.constant(label), ids)


@pytest.mark.parametrize("objective", ["categorical", "binary", "multilabel", "regression"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_label_is_learned(objective: str, smoothing: float) -> None:
    rng = np.random.default_rng(1)
    classes = objective in ("categorical", "binary")
    labels = {"multilabel": rng.integers(0, 2, (8, 3)).astype(np.float32), "regression": rng.normal(size=(8, 3))}
    label = np.array([0, 1, 2, 0, 1, 1, 2, 2]) if classes else labels[objective].astype(np.float32)
    options = {"loss": objective} if classes else {"objective": objective}
    config = TrainConfig(dataset_dir=Path(), mixup=0.4, cutmix=1.0, label_smoothing=smoothing, **STILL, **options)
    activation = {"categorical": "softmax", "regression": None}.get(objective, "sigmoid")
    model = linear(3, activation)
    state = SimpleNamespace(model=model, optimizer=SimpleNamespace(scale_loss=lambda loss: loss))
    given = batch(label)
    order = SimpleNamespace(global_batch_size=8)
    gradients, sums = _label_gradients(config, state, order, None)(given, ZERO, ZERO, ZERO)

    images, shares = augment_and_mix(config.augmentation, 0, ZERO, given.id, given.image)
    share = shares.numpy()[:, None].astype(np.float64)
    assert share[4:6, 0].tolist() == [1, 1]
    assert (share < 1).sum() >= 4
    own = np.eye(3)[label] if classes else label.astype(np.float64)
    target = share * own + (1 - share) * partners(tf.constant(own)).numpy()
    there = np.array([1, 1, 1, 1, 1, 0, 1, 1])
    with tf.GradientTape() as tape:
        outputs = model(images)
        if objective == "categorical":
            target = target * (1 - smoothing) + smoothing / 3
            losses = -tf.reduce_sum(target * tf.math.log(tf.cast(outputs, tf.float64)), axis=1)
        elif objective == "regression":
            losses = tf.reduce_mean(((tf.cast(outputs, tf.float64) - target) / 2) ** 2, axis=1)
        else:
            target, p = target * (1 - smoothing) + smoothing / 2, tf.cast(outputs, tf.float64)
            losses = -tf.reduce_mean(target * tf.math.log(p) + (1 - target) * tf.math.log(1 - p), axis=1)
        loss = tf.reduce_sum(there * losses) / 8
    for mine, theirs in zip(gradients, tape.gradient(loss, model.trainable_variables), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    if objective != "regression":  # there, the losses differ by a constant
        np.testing.assert_allclose(sums[0], 8 * loss, rtol=1e-4)
    assert sums[2] == 7

    def scores(of: np.ndarray) -> np.ndarray:
        if classes:
            return outputs.numpy().argmax(axis=1) == of.argmax(axis=1)
        if objective == "multilabel":
            return ((outputs.numpy() > 0.5) == (of > 0.5)).mean(axis=1)
        return np.abs(outputs.numpy() - of).mean(axis=1)

    others = partners(tf.constant(own)).numpy()
    expected = there * (share[:, 0] * scores(own) + (1 - share[:, 0]) * scores(others))
    np.testing.assert_allclose(sums[1], expected.sum(), rtol=1e-5)


def test_classes_keep_their_weights() -> None:
    """Each of the two labels counts with the weight of its class."""
    config = TrainConfig(dataset_dir=Path(), mixup=0.4, label_smoothing=0.0, **STILL)
    model = linear(3, "softmax")
    state = SimpleNamespace(model=model, optimizer=SimpleNamespace(scale_loss=lambda loss: loss))
    given, weights = batch([0, 1, 2, 0, 1, 1, 2, 2]), np.array([0.5, 1.0, 3.0])
    order = SimpleNamespace(global_batch_size=8)
    _, sums = _label_gradients(config, state, order, tf.constant(weights, tf.float32))(given, ZERO, ZERO, ZERO)
    images, shares = augment_and_mix(config.augmentation, 0, ZERO, given.id, given.image)
    entropies, share = -np.log(model(images).numpy().astype(np.float64)), shares.numpy()
    own, other = given.label.numpy(), partners(given.label).numpy()
    rows = np.arange(8)
    each = share * weights[own] * entropies[rows, own] + (1 - share) * weights[other] * entropies[rows, other]
    np.testing.assert_allclose(sums[0], np.delete(each, 5).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"rand_augment": "2,9", "three_augment": True, "erase": 0.5}, {"augmix": 3.0, "noise": 9.0}]
)
def test_two_replicas_mix_as_one(
    tiny: dict[str, Path], tiny_model: None, base: dict[str, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    losses = {}
    for num_devices in (1, 2):
        seen: list[float] = []
        given = {**base, "dataset_dir": tiny["two"], "model_dir": tmp_path / str(num_devices), "optimizer": "sgd"}
        given |= {"global_batch_size": 16, "epochs": 2, "num_devices": num_devices}
        given |= {"mixup": 0.4, "cutmix": 1.0, **options}
        train(TrainConfig.with_preset(given), Watcher(step=lambda info, seen=seen: seen.append(info.loss)))
        losses[num_devices] = seen
    assert len(set(losses[1])) == 2
    np.testing.assert_allclose(losses[1], losses[2], atol=1e-5)


def test_what_cannot_be_mixed(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--mixup=0\.2 mixes pairs of images, but a replica has 3 at a time, which is"
    ):
        run(tiny["two"], tmp_path / "odd", mixup=0.2, global_batch_size=6, num_devices=2)
    with pytest.raises(UsageError, match=r"--cutmix=1 mixes pairs of images, but a replica has 1 at a time"):
        run(tiny["two"], tmp_path / "odd", cutmix=1.0, global_batch_size=4, accumulate=4)
    assert not (tmp_path / "odd").exists()
    with pytest.raises(
        UsageError, match=r"--cutmix=1\.0 is for classifiers\. Leave it out with --objective=similarity"
    ):
        TrainConfig(dataset_dir=Path(), objective="similarity", cutmix=1.0)
