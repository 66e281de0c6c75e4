"""What `simimg bench --stage=gpu` measures, one task after the other, in a process that has the devices to itself.

    python -P -m simimg.bench.gpu_tasks

A task is an object with `kind`, the name of one of the functions below, and its arguments. It returns the runs of each
tool, `[{"seconds": s, "num_images": n}, ...]`, which took turns. Nothing that is timed copies pixels to the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simimg.augment import FORMULATIONS, AugmentConfig, augment, measure_formulations
from simimg.bench.augmentation_costs import AUGMENTATIONS, NOTHING
from simimg.bench.loop_overhead import loop_turn
from simimg.bench.measurements import Run, take_turns, timed
from simimg.child_process import serve_tasks
from simimg.input import Batch, Order, Reader, open_reader
from simimg.input.readers.resident import ResidentReader
from simimg.models.gpu_memory import grow_gpu_memory
from simimg.presets import preset_options
from simimg.similarity.embeddings import load_embedder
from simimg.training.strategy import make_strategy
from simimg.training.train_config import TrainConfig
from tfrecords.format.image_size import image_shape

__all__ = ["MAIN", "SOURCES", "SYNTHETIC", "augmentation_of"]

MAIN = "preset small"
SYNTHETIC = "synthetic"
# By name, the encoding of the records and the options of their reader.
SOURCES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "device": ("raw", {"cache": "device"}),
    "resident": ("raw", {"kind": "resident"}),
    "mapped": ("raw", {"kind": "mapped"}),
    "JPEG": ("jpeg", {"kind": "mapped"}),
}
_KERAS: Mapping[str, Callable[[], keras.layers.Layer]] = {
    "Keras RandomFlip": lambda: keras.layers.RandomFlip("horizontal"),
    "Keras RandomRotation": lambda: keras.layers.RandomRotation(
        AugmentConfig().rotation_degrees / 360, fill_mode="reflect"
    ),
}
_WARM_UP_TURNS = 2  # the first compiles; the second finds how many steps a call should have

_Runs = dict[str, list[dict[str, float]]]


def augmentation_of(name: str) -> AugmentConfig:
    """Returns the augmentation of a name: that of a preset, one alone, or all of them."""
    if name == MAIN:
        return AugmentConfig.from_options(preset_options("small"))
    if name in AUGMENTATIONS:
        return AUGMENTATIONS[name]
    return AugmentConfig.from_options({**vars(NOTHING), name.replace(" ", "_"): 0.3})


def memory_bandwidth(*, num_bytes: int, repeats: int, min_s: float) -> _Runs:
    """Copies a buffer on the device; an `image` of a run is a byte that is read and written."""
    with tf.device(_device()):
        buffer = tf.ones([num_bytes // 4], tf.float32)

        @tf.function
        def copied() -> tuple[tf.Tensor, tf.Tensor]:
            copy = tf.raw_ops.DeepCopy(x=buffer)
            return copy, copy[:1]

        return _rounds({"copy": _turn(copied, num_bytes, min_s)}, repeats)


def augmentation(*, name: str, batch_size: int, image_size: int, repeats: int, min_s: float) -> _Runs:
    """Augments a batch of noise that is on the device, by each formulation, or by the layer of Keras of this name."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    with tf.device(_device()):
        images, ids, epoch = tf.constant(pixels), tf.range(batch_size, dtype=tf.int64), tf.constant(1, tf.int64)
        calls: dict[str, Callable[[], tf.Tensor]] = {}
        if name in _KERAS:
            layer = _KERAS[name]()
            calls["keras"] = lambda: layer(tf.cast(images, tf.float32), training=True)
        else:
            for formulation in FORMULATIONS[1:]:
                config = dataclasses.replace(augmentation_of(name), augment_with=formulation)
                calls[formulation] = functools.partial(augment, config, 0, epoch, ids, images)

        def compiled(call: Callable[[], tf.Tensor]) -> Callable[[], tuple[tf.Tensor, tf.Tensor]]:
            @tf.function
            def augmented() -> tuple[tf.Tensor, tf.Tensor]:
                pixels = call()
                return pixels, pixels[:1, :1, :1]

            return augmented

        tools = {tool: _turn(compiled(call), batch_size, min_s) for tool, call in calls.items()}
        return _rounds(tools, repeats)


def training(
    *,
    preset: str,
    precision: str,
    dataset_dirs: dict[str, str],
    sources: Sequence[str],
    num_devices: int,
    batch_size: int,
    repeats: int,
    min_s: float,
) -> dict[str, Any]:
    """Trains with synthetic batches and with those of each source; `batch_size` images per device and step.

    Returns the runs; the share of the time that each source lets the step wait; and the most memory of a device that
    training with synthetic batches takes.
    """
    strategy = make_strategy(num_devices)
    measure_formulations()  # as training does, which then uses the faster one
    given = {"preset": preset, "precision": precision, "dataset_dir": Path(dataset_dirs["raw"])}
    given |= {"global_batch_size": batch_size * num_devices, "probe": False, "epochs": 1}
    config = TrainConfig.with_preset(given).resolved(num_devices)
    turns, runners = {}, {}
    _forget_peak()
    peak = None
    for source in (SYNTHETIC, *sources):
        with strategy.scope():
            reader = _reader(source, dataset_dirs, batch_size)
        turns[source], runners[source] = loop_turn(config, reader, strategy, min_s=min_s, min_calls=1)
        for _ in range(_WARM_UP_TURNS):
            turns[source]()
        peak = _peak() if source == SYNTHETIC else peak
    runs = _rounds(turns, repeats)
    for source, runner in runners.items():  # after the rounds, because a GPU is slower while its waiting is measured
        runner.time_each_call()
        for _ in range(_WARM_UP_TURNS):
            turns[source]()
    shares = {source: runner.input_share or 0.0 for source, runner in runners.items()}
    return {"rounds": runs, "input_shares": shares, "peak_bytes": peak}


def embedding(*, batch_size: int, repeats: int, min_s: float) -> dict[str, Any]:
    """Embeds batches of noise as `index` does; returns the runs and the engine."""
    embedder = load_embedder("lite0", many=True)
    shape = (batch_size or embedder.batch_size, *image_shape(embedder.image_size))
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def once() -> int:
        return len(embedder.embed(images))

    once()
    _forget_peak()
    runs = _rounds({"embedding": lambda: timed(once, min_s=min_s, min_calls=1)}, repeats)
    return {"rounds": runs, "engine": str(embedder.engine), "batch_size": len(images), "peak_bytes": _peak()}


class SyntheticReader(Reader):
    """Delivers the same images again and again, which are on the device already: the speed without any input.

    Made in the scope of the strategy that trains. Ids differ, so that the images are augmented anew in each step.
    """

    kind = SYNTHETIC

    def __init__(self, reader: ResidentReader, batch_size: int) -> None:
        super().__init__(reader.split)
        places = tf.range(batch_size, dtype=tf.int64) % reader.split.num_examples
        image, label, _ = reader.gather(places)
        self._image = tf.Variable(image, trainable=False)
        self._label = tf.Variable(tf.cast(label, tf.int64), trainable=False)

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of places, int64 `[per_replica_batch_size]`, of which only the ids are used."""
        return order.indices()

    def batch(self, places: tf.Tensor) -> Batch:
        """Returns the same images and labels for any places."""
        return Batch(self._image.read_value(), tf.cast(self._label.read_value(), tf.int32), places)


def _reader(source: str, dataset_dirs: dict[str, str], batch_size: int) -> Reader:
    if source == SYNTHETIC:
        resident, _ = open_reader(Path(dataset_dirs["raw"]), "train", "resident")
        assert isinstance(resident, ResidentReader)
        return SyntheticReader(resident, batch_size)
    encoding, options = SOURCES[source]
    return open_reader(Path(dataset_dirs[encoding]), "train", **options)[0]


def _device() -> str:
    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def _turn(call: Callable[[], tuple[tf.Tensor, tf.Tensor]], num_images: int, min_s: float) -> Callable[[], Run]:
    """Returns a function that times one turn of `call`, whose second result is small and waited for."""
    last: list[tf.Tensor] = []

    def once() -> int:
        last[:] = call()
        return num_images

    return lambda: timed(once, lambda: last[-1].numpy(), min_s=min_s)


def _rounds(tools: Mapping[str, Callable[[], Run]], repeats: int) -> _Runs:
    rounds, failures = take_turns(tools, repeats=repeats)
    assert not failures
    return {
        name: [{"seconds": run.seconds, "num_images": run.num_images} for run in runs] for name, runs in rounds.items()
    }


def _forget_peak() -> None:
    for device in tf.config.list_logical_devices("GPU"):
        tf.config.experimental.reset_memory_stats(device.name)


def _peak() -> int | None:
    """Returns the most memory that TensorFlow has used of a GPU, in bytes; None without a GPU."""
    gpus = tf.config.list_logical_devices("GPU")
    return max((tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus), default=None)


_KINDS = {function.__name__: function for function in (memory_bandwidth, augmentation, training, embedding)}


def main() -> None:
    """Measure the tasks on standard input."""
    grow_gpu_memory()

    def measure(task: dict[str, Any]) -> Any:
        arguments = {name: value for name, value in task.items() if name != "kind"}
        return _KINDS[task["kind"]](**arguments)

    serve_tasks(measure)


if __name__ == "__main__":
    main()
