"""Augmentations beside the layers of Keras that have their names: throughput on the same batch, in one run.

Both take uint8 and give float32. Keras's layers choose some parameters per batch where this project's are per image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simimg.augment import augment_and_mix
from simimg.augment import operations as ops
from simimg.bench.augmentation_costs import NOTHING
from simimg.bench.measurements import Run, estimate, ratios, repeating, take_turns

_AIM = 3.0  # times the layer
_SEED = 1
_RANGE = (0, 255)

LAYERS: dict[str, tuple[dict[str, Any] | int, Callable[[], Any]]] = {
    "RandAugment": (
        {"rand_augment": "2,9"},
        lambda: keras.layers.RandAugment(_RANGE, num_ops=2, factor=9 / 30, seed=_SEED),
    ),
    "AugMix": ({"augmix": 3.0}, lambda: keras.layers.AugMix(_RANGE, factor=0.3, seed=_SEED)),
    "MixUp": ({"mixup": 0.2}, lambda: keras.layers.MixUp(alpha=0.2, seed=_SEED)),
    "CutMix": ({"cutmix": 1.0}, lambda: keras.layers.CutMix(factor=1.0, seed=_SEED)),
    "RandomErasing": ({"erase": 1.0}, lambda: keras.layers.RandomErasing(factor=1.0, value_range=_RANGE, seed=_SEED)),
    "Equalization": (ops.EQUALIZE, lambda: keras.layers.Equalization(_RANGE)),
    "AutoContrast": (ops.AUTOCONTRAST, lambda: keras.layers.AutoContrast(_RANGE)),
    "RandomPosterization": (ops.POSTERIZE, lambda: keras.layers.RandomPosterization(4, _RANGE, seed=_SEED)),
    "Solarization": (ops.SOLARIZE, lambda: keras.layers.Solarization(0.0, 0.5, _RANGE, seed=_SEED)),
}
"""Ours, as options or as an operation of `simimg.augment.operations`, and Keras's, by the name of Keras's layer."""

_ARGUMENTS = {ops.POSTERIZE: 4.0, ops.SOLARIZE: 128.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSpeed:
    """Throughput of an augmentation and of Keras's layer of this name.

    Attributes:
        name: the layer.
        images_per_s: the median throughput of ours.
        keras_images_per_s: that of the layer.
        ratio: how many times as fast ours is: the median over the rounds.
        ratio_ci95: its 95 % interval; None if there were fewer than five rounds.
        met: whether the ratio is the aim or more.
    """

    name: str
    images_per_s: float
    keras_images_per_s: float
    ratio: float
    ratio_ci95: tuple[float, float] | None
    met: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSpeeds:
    """All measurements; each ratio should be `aim` or more."""

    what: str
    layers: tuple[LayerSpeed, ...]
    aim: float
    rounds: dict[str, list[Run]]


def measure_layers(
    image_size: int,
    batch_size: int,
    *,
    repeats: int,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> LayerSpeeds:
    """Measures on a batch that is on the device already. Its images are noise, each with a range of values of its own.

    `batch_size` is even, or the last image is left out.
    """
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    batch_size -= batch_size % 2
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    with tf.device("GPU:0" if on_gpu else "CPU:0"):
        images, ids = tf.constant(noise // 2 + 40), tf.range(batch_size, dtype=tf.int64)
        runs = {}
        for name, (ours, layer) in LAYERS.items():
            runs[name] = repeating(ours_of(ours, ids, images, on_gpu=on_gpu), batch_size)
            runs[f"Keras {name}"] = repeating(_theirs(layer(), images), batch_size)
        rounds, failures = take_turns(runs, repeats=repeats, progress=watch(len(runs) * (repeats + 1)))
    assert not failures
    return LayerSpeeds(
        what=f"batches of {batch_size}, {image_size} x {image_size}, on the {'GPU' if on_gpu else 'CPU'}",
        layers=tuple(_speed(name, rounds[name], rounds[f"Keras {name}"]) for name in LAYERS),
        aim=_AIM,
        rounds=rounds,
    )


def ours_of(
    ours: dict[str, Any] | int, ids: tf.Tensor, images: tf.Tensor, *, on_gpu: bool = False
) -> Callable[[], tf.Tensor]:
    """Returns a function that augments the images as one of `LAYERS` says, and returns float32 pixels."""
    if isinstance(ours, dict):
        config = dataclasses.replace(NOTHING, **ours)
        return _compiled(lambda: augment_and_mix(config, 0, tf.constant(1, tf.int64), ids, images)[0])
    compiled = (lambda function: function) if on_gpu else lambda function: tf.function(function, jit_compile=True)
    kind = tf.fill([len(ids), 1], tf.constant(ours, tf.int64))
    operations = ops.Operations(kind, tf.fill([len(ids), 1], _ARGUMENTS.get(ours, 1.0)))
    operate = ops.operator({ours}, compiled)
    counted = compiled(functools.partial(ops.histogram, index=tf.int64 if on_gpu else tf.int32))
    needs_counts = ours in (ops.EQUALIZE, ops.AUTOCONTRAST)
    counts = tf.zeros([len(ids), 3, 256])
    return _compiled(lambda: operate(operations, counted(images) if needs_counts else counts, images))


def _theirs(layer: Any, images: tf.Tensor) -> Callable[[], tf.Tensor]:
    labels = tf.one_hot(tf.range(len(images)) % 10, 10)
    if isinstance(layer, keras.layers.MixUp | keras.layers.CutMix):
        return _compiled(
            lambda: layer({"images": tf.cast(images, tf.float32), "labels": labels}, training=True)["images"]
        )
    return _compiled(lambda: layer(tf.cast(images, tf.float32), training=True))


def _compiled(call: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    function: Callable[[], tf.Tensor] = tf.function(call)
    return function


def _speed(name: str, ours: list[Run], theirs: list[Run]) -> LayerSpeed:
    ratio = estimate(ratios(ours, theirs))
    return LayerSpeed(
        name=name,
        images_per_s=estimate([run.images_per_s for run in ours]).median,
        keras_images_per_s=estimate([run.images_per_s for run in theirs]).median,
        ratio=ratio.median,
        ratio_ci95=ratio.ci95,
        met=ratio.median >= _AIM,
    )
