"""The tutorial's way of measuring beside the honest one: one network, one set of photos, three ways of dealing them.

    no copies             photos are split
    copied, then split    every photo becomes 17, turned and mirrored, and the copies are split: the tutorial's 99.3 %
    split, then copied    photos are split, and the ones to train on become 17; tested on the others as they are

The network, its loss and its five epochs are those of the preset `tutorial` in all three, so what differs is what the
test knows already.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from simimg.input.readers.resident import load_examples
from simimg.input.split import open_split
from simimg.training import TrainConfig, train
from tfrecords.convert import ConvertConfig, convert
from tfrecords.convert.plan.split_assignment import SOURCE_SPLITS
from tfrecords.convert.workers.pool import num_cores

__all__ = ["ANGLES", "PROTOCOLS", "TUTORIAL_CATEGORIES", "Protocol", "compare_protocols", "seventeen"]

TUTORIAL_CATEGORIES = ("brain", "BACKGROUND_Google", "crayfish", "helicopter", "okapi")

ANGLES = tuple(range(-20, 20, 5))
"""Degrees: Python's range(-20, 20, 5), as a tutorial writes it, which leaves out +20."""

PROTOCOLS = ("no copies", "copied, then split", "split, then copied")

_IMAGE_SIZE = 64
_TEST_SHARE = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of measuring, and what it says of the network.

    Attributes:
        name: one of `PROTOCOLS`.
        num_train: pictures that were trained on.
        num_test: pictures that were tested on.
        binary: a seed each, the share of all outputs on the right side of 0.5; what Keras and the tutorial report.
        categorical: a seed each, the share of the pictures whose most probable class is the right one.
        seconds: of training, a seed each.
    """

    name: str
    num_train: int
    num_test: int
    binary: tuple[float, ...]
    categorical: tuple[float, ...]
    seconds: tuple[float, ...]


def compare_protocols(
    image_dir: Path,
    *,
    num_seeds: int,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> tuple[Protocol, ...]:
    """Returns what each of `PROTOCOLS` says, seeds 0, 1, ... dealing the photos and starting the network.

    Args:
        image_dir: pictures, a folder a class; of Caltech 101 the tutorial's five.
        num_seeds: at least 1.
        watch: told how many trainings there will be; what it returns is called after each.

    Raises:
        UsageError: there are no pictures, or they cannot be split.
    """
    there = all((image_dir / name).is_dir() for name in TUTORIAL_CATEGORIES)
    categories = TUTORIAL_CATEGORIES if there else ()
    advance = watch(len(PROTOCOLS) * num_seeds)
    runs: dict[str, list[tuple[int, int, float, float, float]]] = {name: [] for name in PROTOCOLS}
    for seed in range(num_seeds):
        with tempfile.TemporaryDirectory(prefix="protocols-") as folder:
            for name, dataset_dir in _datasets(image_dir, categories, seed, Path(folder)):
                given = {"dataset_dir": dataset_dir, "model_dir": Path(folder) / "runs" / name, "seed": seed}
                result = train(TrainConfig.with_preset({"preset": "tutorial", **given}))
                test = result.figures["test"]
                num_train, num_test = (open_split(dataset_dir, split).num_examples for split in ("train", "test"))
                figures = (test["binary_accuracy"], test["accuracy"], result.seconds)
                runs[name].append((num_train, num_test, *figures))
                advance()
    return tuple(_protocol(name, of_seeds) for name, of_seeds in runs.items())


def seventeen(image: Image.Image) -> list[Image.Image]:
    """Returns a picture, and it turned by each of `ANGLES`, and each of those mirrored; corners are black."""
    turned = [image.rotate(angle) for angle in ANGLES]
    return [image, *turned, *map(ImageOps.mirror, turned)]


def _datasets(image_dir: Path, categories: tuple[str, ...], seed: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields each protocol with its data set, at the tutorial's 64 px."""
    common: dict[str, Any] = {"data_dir": folder, "image_size": _IMAGE_SIZE, "seed": seed}
    photos = convert(
        ConvertConfig(
            image_dir=str(image_dir),
            name="photos",
            categories=categories,
            splits=f"train={1 - _TEST_SHARE},test={_TEST_SHARE}",
            **common,
        )
    ).dataset_dir
    yield PROTOCOLS[0], photos
    copies = _write_copies(photos, folder / "copies")
    # Of the copies each is dealt by itself, whichever photo it is of.
    dealt = np.random.default_rng(seed).permutation(len(copies)) < _TEST_SHARE * len(copies)
    rows = {
        "copied": [
            (path, label, "test" if test else "train") for (path, label, _, _), test in zip(copies, dealt, strict=True)
        ],
        "split": [(path, label, split) for path, label, split, is_photo in copies if split == "train" or is_photo],
    }
    for protocol, (name, found) in zip(PROTOCOLS[1:], rows.items(), strict=True):
        table = folder / f"{name}.csv"
        with open(table, "w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *found])
        source: dict[str, Any] = {"table": str(table), "image_dir": str(folder / "copies"), "splits": SOURCE_SPLITS}
        yield protocol, convert(ConvertConfig(name=name, copies="ignore", **source, **common)).dataset_dir


def _write_copies(dataset_dir: Path, folder: Path) -> list[tuple[str, str, str, bool]]:
    """Writes seventeen of each photo; returns each one's path, class, its photo's split, whether it is the photo."""
    folder.mkdir()
    rows = []
    for name in ("train", "test"):
        split = open_split(dataset_dir, name)
        examples = load_examples(split, num_threads=num_cores())
        for pixels, label, id in zip(examples.images, examples.labels, examples.ids, strict=True):
            for number, copy in enumerate(seventeen(Image.fromarray(pixels))):
                path = f"{id}-{number}.png"
                copy.save(folder / path, compress_level=1)
                rows.append((path, split.class_names[label], name, number == 0))
    return rows


def _protocol(name: str, runs: list[tuple[int, int, float, float, float]]) -> Protocol:
    num_train, num_test, binary, categorical, seconds = zip(*runs, strict=True)
    return Protocol(
        name=name,
        num_train=num_train[0],
        num_test=num_test[0],
        binary=binary,
        categorical=categorical,
        seconds=seconds,
    )
