"""`keras.Model.fit` with the input of simimg, and with the usual ones; and the augmentation layers against Keras's.

    python -m benchmarks.fit_input IMAGE_DIR FOLDER [--repeats=5] [--image_size=64] [--batch_size=256] [--times=8]

The model is a mean of the pixels and one dense layer, so that `fit` waits for its input. Each way trains one epoch of
all images per round, and the ways take turns. Each file is there several times, so that an epoch takes a while. All
images are in the page cache, and each epoch has a new order.

    simimg              raw shards: `simimg.load(…, shuffle=True)`
    files               tf.data over the original files: shuffle, `map` of decode_jpeg and resize, batch, prefetch
    directory           `keras.utils.image_dataset_from_directory` over the original files
    small jpeg          as `files`, over files that are JPEGs of the right size already (quality 90), without a resize
    small png           the same as PNGs
    small directory     as `directory`, over the small JPEGs

`map` has num_parallel_calls and `prefetch` has its size from AUTOTUNE. Images and labels stay uint8 and int32 where the
way allows it; Keras's own gives float32.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from PIL import Image

import simimg
import simimg.augment
from simimg.bench.measurements import Run, estimate, ratios, repeating, take_turns
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

__all__ = ["WAYS", "main", "measure_fit", "measure_layers", "prepare"]

WAYS = ("simimg", "files", "directory", "small jpeg", "small png", "small directory")
_LAYERS: dict[str, dict[str, Any]] = {
    "RandomRotation": {"factor": 0.1},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "RandomShear": {"x_factor": 0.1, "y_factor": 0.1},
    "RandomFlip": {"mode": "horizontal"},
    "RandomBrightness": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2},
}


def prepare(image_dir: Path, folder: Path, image_size: int, times: int) -> tuple[Path, int]:
    """Write the dataset, and all files, each that many times; return the dataset and the number of images."""
    files = sorted(path for path in image_dir.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for path in files:
        _linked(folder / "originals" / path.parent.name / path.name, path, times)
        for kind in ("jpeg", "png"):
            small = folder / f"one_{kind}" / path.parent.name / f"{path.stem}.{kind}"
            small.parent.mkdir(parents=True, exist_ok=True)
            if not small.exists():
                with Image.open(path) as image:
                    image.convert("RGB").resize((image_size, image_size)).save(small, quality=90)
            _linked(folder / kind / path.parent.name / small.name, small, times)
    config = ConvertConfig(
        image_dir=str(folder / "originals"), data_dir=folder / "data", name="fit", image_size=image_size,
        encoding="raw", splits="train=1", copies="ignore",
    )  # fmt: skip
    return convert(config).dataset_dir, times * len(files)


def _linked(name: Path, path: Path, times: int) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    for number in range(times):
        link = name.with_name(f"{number}_{name.name}")
        if not link.exists():
            link.symlink_to(path.resolve())


def inputs(dataset_dir: Path, folder: Path, image_size: int, batch_size: int) -> dict[str, tf.data.Dataset]:
    """Return the dataset of each way."""

    def directory(kind: str) -> tf.data.Dataset:
        made = keras.utils.image_dataset_from_directory(
            folder / kind, image_size=(image_size, image_size), batch_size=batch_size, seed=0, verbose=False
        )
        return made.prefetch(tf.data.AUTOTUNE)

    return {
        "simimg": simimg.load(dataset_dir, "train", batch_size=batch_size, shuffle=True),
        "files": _decoded(folder / "originals", batch_size, tf.io.decode_jpeg, image_size),
        "directory": directory("originals"),
        "small jpeg": _decoded(folder / "jpeg", batch_size, tf.io.decode_jpeg),
        "small png": _decoded(folder / "png", batch_size, tf.io.decode_png),
        "small directory": directory("jpeg"),
    }


def _decoded(folder: Path, batch_size: int, decode: Callable[..., tf.Tensor], image_size: int = 0) -> tf.data.Dataset:
    names = sorted(path.name for path in folder.iterdir())
    paths = sorted(folder.glob("*/*"))
    labels = [names.index(path.parent.name) for path in paths]

    def example(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode(tf.io.read_file(path), channels=3)
        return (tf.image.resize(image, [image_size, image_size]) if image_size else image), label

    dataset = tf.data.Dataset.from_tensor_slices((list(map(str, paths)), labels)).shuffle(len(paths), seed=0)
    return (
        dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def measure_fit(datasets: dict[str, tf.data.Dataset], image_size: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Return images per second of each way, and how many times as fast simimg is, with intervals."""

    def network() -> keras.Model:
        model = keras.Sequential(
            [
                keras.layers.Input((image_size, image_size, 3)),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(512, activation="softmax"),
            ]
        )
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
        return model

    def once(model: keras.Model, dataset: tf.data.Dataset) -> Run:
        start, processor = time.perf_counter(), time.process_time()
        model.fit(dataset, epochs=1, verbose=0)
        seconds = time.perf_counter() - start
        return Run(seconds, len(dataset) * batch_size, 0, time.process_time() - processor)

    tools = {name: functools.partial(once, network(), dataset) for name, dataset in datasets.items()}
    runs, _ = take_turns(tools, repeats=repeats)
    return _found(runs, "simimg")


def measure_layers(repeats: int) -> dict[str, dict[str, Any]]:
    """Return images per second of each layer of simimg's and Keras's, batches of 256 images of 64 px, float32."""
    images = tf.random.stateless_uniform([256, 64, 64, 3], [0, 0], 0, 255)
    found = {}
    for name, options in _LAYERS.items():
        tools = {}
        for who, module in (("simimg", simimg.augment), ("Keras", keras.layers)):
            layer = tf.function(getattr(module, name)(**options, seed=0))
            tools[who] = repeating(functools.partial(layer, images), 256)
        runs, _ = take_turns(tools, repeats=repeats)
        found[name] = _found(runs, "simimg")
    return found


def _found(runs: dict[str, list[Run]], ours: str) -> dict[str, Any]:
    def interval(values: list[float]) -> dict[str, Any]:
        made = estimate(values)
        return {"median": made.median, "ci95": made.ci95}

    return {
        name: {
            "images_per_s": interval([run.images_per_s for run in mine]),
            "ratio": interval(ratios(runs[ours], mine)),
        }
        for name, mine in runs.items()
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    def shown(value: dict[str, Any], digits: str) -> str:
        interval = value["ci95"]
        return f"{value['median']:{digits}}" + (f" ({interval[0]:{digits}}-{interval[1]:{digits}})" if interval else "")

    yield "| | images/s (95 % interval) | simimg's speed relative to it (95 % interval) |"
    yield "|---|---|---|"
    for name, figures in found.items():
        yield f"| {name} | {shown(figures['images_per_s'], ',.0f')} | {shown(figures['ratio'], '.2f')} x |"


def main(arguments: list[str]) -> None:
    """Write the files, measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image_dir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--times", type=int, default=8, help="how often each file is there")
    given = parser.parse_args(arguments)
    dataset_dir, count = prepare(given.image_dir, given.folder, given.image_size, given.times)
    datasets = inputs(dataset_dir, given.folder, given.image_size, given.batch_size)
    found = {"fit": measure_fit(datasets, given.image_size, given.batch_size, given.repeats)}
    found |= measure_layers(given.repeats)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    text = [f"{count:,} images, {os.cpu_count()} cores, load {load}", ""]
    for name, figures in found.items():
        text += [name, "", *_lines(figures), ""]
    sys.stdout.write("\n".join([*text, json.dumps(found)]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
