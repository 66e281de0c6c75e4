"""The tutorial's way of measuring, and an honest one: one network and one set of photos, split in three ways.

    no copies             the photos are split
    copied, then split    17 rotated and mirrored copies of every photo are split: the tutorial's 99.3 %
    split, then copied    the photos are split, and each training photo becomes 17; the test photos stay as they are

The network, its loss and its five epochs are those of the preset `tutorial` in all three. They only differ in how much
of the test the network has seen in training.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from simimg.bench.bench_plots import GRAY, INK, OURS, PAPER, THEIRS, aligned
from simimg.input.readers.resident import load_examples
from simimg.input.split import open_split
from simimg.training import TrainConfig, train
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.split_assignment import SOURCE_SPLITS
from tfrecords.machine_limits import num_cores

__all__ = [
    "ANGLES",
    "PROTOCOLS",
    "TUTORIAL_CATEGORIES",
    "Protocol",
    "compare_protocols",
    "plot_protocols",
    "protocols_table",
    "seventeen",
]

TUTORIAL_CATEGORIES = ("brain", "BACKGROUND_Google", "crayfish", "helicopter", "okapi")

ANGLES = tuple(range(-20, 20, 5))
"""Degrees: Python's range(-20, 20, 5), as in the tutorial, which leaves out +20."""

PROTOCOLS = ("no copies", "copied, then split", "split, then copied")

_IMAGE_SIZE = 64
_TEST_SHARE = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of measuring, and its figures for the network.

    Attributes:
        name: one of `PROTOCOLS`.
        num_train: the number of training images.
        num_test: the number of test images.
        binary: per seed, the share of all outputs on the right side of 0.5, which Keras and the tutorial report.
        categorical: per seed, the share of the images whose most probable class is the right one.
        seconds: per seed, the time of training.
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
    """Measures each of `PROTOCOLS` with the seeds 0, 1, …, which split the photos and initialize the network.

    Args:
        image_dir: images, one folder per class; of Caltech 101, only the tutorial's five classes are used.
        num_seeds: at least 1.
        watch: takes the number of trainings and returns a function to call after each.

    Raises:
        UsageError: there are no images, or they cannot be split.
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
    """Returns an image, its rotations by each of `ANGLES`, and the mirrored rotations; corners are black."""
    turned = [image.rotate(angle) for angle in ANGLES]
    return [image, *turned, *map(ImageOps.mirror, turned)]


def _datasets(image_dir: Path, categories: tuple[str, ...], seed: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields each protocol with its dataset, at the tutorial's 64 px."""
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
    # Each copy is assigned to a split by itself, whichever photo it is of.
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
    """Writes 17 images per photo; returns path, class, the photo's split, and whether it is the photo itself."""
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


def protocols_table(protocols: Sequence[Protocol]) -> list[str]:
    """Returns a table of the protocols, with mean and standard deviation over the seeds."""
    rows = [("", "train", "test", "binary", "categorical", "per seed", "training")]
    rows += [
        (
            found.name,
            f"{found.num_train:,}",
            f"{found.num_test:,}",
            _mean(found.binary),
            _mean(found.categorical),
            " ".join(f"{value:.3f}" for value in found.categorical),
            f"{np.mean(found.seconds):,.0f} s",
        )
        for found in protocols
    ]
    return ["protocols: the preset `tutorial`, mean (deviation) over the seeds", *aligned(rows)]


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else "")


def plot_protocols(path: Path, protocols: Sequence[Protocol], machine: dict[str, str]) -> None:
    """Writes the accuracies of each protocol, one dot per seed, as PNG or SVG by the suffix of `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.0 + 0.8 * len(protocols)), dpi=160, facecolor=PAPER)
    above, below = 1.2 / figure.get_figheight(), 0.85 / figure.get_figheight()
    axes: Any = figure.add_axes((0.2, below, 0.74, 1 - above - below))
    for row, found in enumerate(protocols[::-1]):
        means = []
        # One figure above the line and one below it, because they may be close together.
        for values, color, above_by, side in (
            (found.binary, THEIRS, 0.2, "bottom"),
            (found.categorical, OURS, -0.22, "top"),
        ):
            mean = sum(values) / len(values)
            means.append(mean)
            axes.scatter(values, [row] * len(values), s=22, color=color, alpha=0.45, linewidths=0, zorder=3)
            axes.scatter([mean], [row], s=150, color=color, zorder=4, edgecolors=PAPER, linewidths=1.5)
            axes.text(mean, row + above_by, f"{mean:.3f}", ha="center", va=side, fontsize=11, color=INK, zorder=5)
        axes.plot(means, (row, row), color=THEIRS, linewidth=2, zorder=1)
    axes.set_yticks(range(len(protocols)), [found.name for found in protocols[::-1]], fontsize=12, color=INK)
    lowest = min(min(*found.binary, *found.categorical) for found in protocols)
    axes.set_xlim(min(0.6, lowest - 0.02), 1.0)
    axes.set_ylim(-0.6, len(protocols) - 0.4)
    axes.grid(axis="x", color="#e8e8ec", linewidth=0.8, zorder=0)
    axes.tick_params(axis="x", colors=GRAY, labelsize=9, length=0)
    axes.tick_params(axis="y", length=0, pad=8)
    for side in axes.spines.values():
        side.set_visible(False)
    inch = 1 / figure.get_figheight()
    figure.text(
        0.02, 1 - 0.12 * inch, "One network under three test protocols", va="top", fontsize=16, fontweight="bold"
    )
    what = "accuracy of the tutorial's network on the test images"
    figure.text(0.02, 1 - 0.5 * inch, what, va="top", fontsize=11, color=GRAY)
    for name, color in (("binary, of all outputs", THEIRS), ("categorical, of the images", OURS)):
        axes.scatter([], [], s=90, color=color, label=name)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=10.5, labelcolor=GRAY,
        handletextpad=0.2, borderaxespad=0,
    )  # fmt: skip
    seeds = len(protocols[0].binary)
    note = f"{seeds} seeds, one small dot per seed; each seed splits the photos differently. {machine['processor']}"
    figure.text(0.02, 0.1 * inch, note, va="bottom", fontsize=8.5, color=GRAY)
    figure.savefig(path, facecolor=PAPER)
