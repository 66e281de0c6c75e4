"""Throughput of augmentation: each augmentation alone, all of them together, and the layers of Keras.

The limit is the least work that any of them has to do: read uint8 pixels and write float32 pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from simimg.augment import AugmentConfig, augment
from simimg.bench.measurements import Run, estimate, ratios, repeating, take_turns
from simimg.errors import UsageError

__all__ = ["AUGMENTATIONS", "NOTHING", "AugmentationCost", "AugmentationCosts", "measure_augmentations"]

NOTHING = AugmentConfig(rotation_degrees=0.0, horizontal_flip=False)
_LIMIT, _OURS, _KERAS = "uint8 to float32", "rotation and flip", "Keras RandomFlip, RandomRotation"
_BAR = 1.5  # times Keras
_BYTES_PER_VALUE = 1 + 4  # uint8 in, float32 out

AUGMENTATIONS = {
    _OURS: AugmentConfig(),
    "crop": dataclasses.replace(NOTHING, crop_min_area=0.35),
    "color": dataclasses.replace(NOTHING, colour_jitter=0.4),
    "blur": dataclasses.replace(NOTHING, blur=2.0),
    "JPEG quantization": dataclasses.replace(NOTHING, min_jpeg_quality=30),
    "cutout": dataclasses.replace(NOTHING, cutout=0.5),
    "all of them": AugmentConfig(
        vertical_flip=True,
        crop_min_area=0.35,
        colour_jitter=0.4,
        grayscale=0.2,
        blur=2.0,
        min_jpeg_quality=30,
        cutout=0.5,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationCost:
    """Throughput of one augmentation.

    Attributes:
        name: its name.
        is_ours: whether it is one of this project; the others are Keras's and the limit.
        images_per_s: the median throughput.
        ci95: its 95 % interval; None if there were fewer than five rounds.
        ratio_to_limit: its throughput as a share of the limit's.
        gb_per_s: bytes of pixels read and written, 10**9 per second.
        cores: seconds of processor time per second.
    """

    name: str
    is_ours: bool
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio_to_limit: float
    gb_per_s: float
    cores: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationCosts:
    """All measurements; `met` is whether rotation and flip are at least `aim` times as fast as Keras."""

    what: str
    augmentations: tuple[AugmentationCost, ...]
    ratio_to_keras: float
    ratio_to_keras_ci95: tuple[float, float] | None
    aim: float
    met: bool
    rounds: dict[str, list[Run]]


def measure_augmentations(
    image_size: int,
    batch_size: int,
    *,
    repeats: int,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> AugmentationCosts:
    """Measures on a batch of noise that is on the device already; the speed does not depend on the content of images.

    Raises:
        UsageError: a number is out of its range.
    """
    for name, value in (("image_size", image_size), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"--{name}={value}: should be 1 or more.")
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    with tf.device("GPU:0" if on_gpu else "CPU:0"):
        images, ids = tf.constant(pixels), tf.range(batch_size, dtype=tf.int64)
        layers = keras.Sequential(
            [
                keras.layers.RandomFlip("horizontal"),
                keras.layers.RandomRotation(AugmentConfig().rotation_degrees / 360, fill_mode="reflect"),
            ]
        )
        runs = {name: repeating(_ours(config, ids, images), batch_size) for name, config in AUGMENTATIONS.items()}
        runs[_KERAS] = repeating(_compiled(lambda: layers(tf.cast(images, tf.float32), training=True)), batch_size)
        runs[_LIMIT] = repeating(_compiled(lambda: tf.cast(images, tf.float32)), batch_size)
        rounds, failures = take_turns(runs, repeats=repeats, progress=watch(len(runs) * (repeats + 1)))
    assert not failures
    to_keras = estimate(ratios(rounds[_OURS], rounds[_KERAS]))
    return AugmentationCosts(
        what=f"batches of {batch_size}, {image_size} x {image_size}, on the {'GPU' if on_gpu else 'CPU'}",
        augmentations=tuple(_cost(name, found, rounds[_LIMIT], image_size) for name, found in rounds.items()),
        ratio_to_keras=to_keras.median,
        ratio_to_keras_ci95=to_keras.ci95,
        aim=_BAR,
        met=to_keras.median >= _BAR,
        rounds=rounds,
    )


def _cost(name: str, runs: list[Run], limit: list[Run], image_size: int) -> AugmentationCost:
    throughput = estimate([run.images_per_s for run in runs])
    return AugmentationCost(
        name=name,
        is_ours=name in AUGMENTATIONS,
        images_per_s=throughput.median,
        ci95=throughput.ci95,
        ratio_to_limit=estimate(ratios(runs, limit)).median,
        gb_per_s=throughput.median * image_size * image_size * 3 * _BYTES_PER_VALUE / 1e9,
        cores=estimate([run.cpu_seconds / run.seconds for run in runs]).median,
    )


def _ours(config: AugmentConfig, ids: tf.Tensor, images: tf.Tensor) -> Callable[[], tf.Tensor]:
    return _compiled(lambda: augment(config, 0, tf.constant(1, tf.int64), ids, images))


def _compiled(call: Callable[[], tf.Tensor]) -> Callable[[], tf.Tensor]:
    function: Callable[[], tf.Tensor] = tf.function(call)
    return function
