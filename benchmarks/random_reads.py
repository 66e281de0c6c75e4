"""Raw images read at random: `tfrecords.read`, and ArrayRecord as Grain reads it.

    python -m benchmarks.random_reads IMAGE_DIR FOLDER [--repeats=7] [--image_size=64]

The images are converted into FOLDER in both formats. All ways of reading then take turns in one process, in the
environment of the rival `grain`, with the files in the page cache. Each way delivers pixels as uint8 arrays and the
label. From an ArrayRecord they are cut out at fixed offsets, which is faster than any parser of an Example.

    one by one    `source[i]` of random i
    batches       64 random images at a time as one array
    epoch         every image once in a random order, in batches of 64
    grain epoch   the same by Grain: MapDataset.source, shuffle, map, to_iter_dataset, batch
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tfrecords
from simimg.bench.measurements import Run, estimate, take_turns, timed
from tfrecords.format.image_size import image_shape
from tfrecords.format.layout import Layout
from tfrecords.format.naming import FILE_FORMATS
from tfrecords.format.record import HEADER_BYTES, varints
from tfrecords.format.record_layout import INT_BYTES, Offsets

__all__ = ["WAYS", "main", "measure"]

BATCH = 64
_READS = 1000  # per call of one by one
WAYS = ("one by one", "batches", "epoch", "grain epoch")

_Rows = tuple[np.ndarray, np.ndarray]


class _ArrayRecords:
    """The train split of an ArrayRecord dataset of raw pixels, read as Grain reads it."""

    def __init__(self, dataset_dir: Path) -> None:
        import grain

        layout = Layout.load(dataset_dir)
        self._shape = image_shape(layout.image_size)
        at = Offsets.of("raw", layout.image_size)
        self._image = slice(at.image_offset - HEADER_BYTES, at.image_offset - HEADER_BYTES + math.prod(self._shape))
        self.source = grain.sources.ArrayRecordDataSource([str(dataset_dir / s.file) for s in layout.splits["train"]])

    def example(self, payload: bytes) -> _Rows:
        """Return pixels and label of a record."""
        data = np.frombuffer(payload, np.uint8)
        return data[self._image].reshape(self._shape), varints(data[-INT_BYTES:])

    def batch(self, places: np.ndarray) -> _Rows:
        """Return the records at `places`, read one by one: `__getitems__` starts threads for each call, and takes eight
        times as long for files in the page cache.
        """
        rows = [self.example(self.source[place]) for place in places.tolist()]
        return np.stack([image for image, _ in rows]), np.stack([label for _, label in rows])


def measure(raw_dir: Path, array_dir: Path, *, repeats: int, min_s: float = 1.0) -> dict[str, Any]:
    """Return, by way of reading, images/s of both readers, and how many times the processor time ArrayRecord takes.

    Each figure is a median over the rounds, with its 95 % interval; the ratio is computed within a round.
    """
    ours, theirs = tfrecords.read(raw_dir, "train"), _ArrayRecords(array_dir)
    assert len(ours) == len(theirs.source)
    for place in (0, len(ours) - 1):  # the same images in the same order
        image, label = theirs.example(theirs.source[place])
        assert np.array_equal(image, ours[place].image)
        assert int(label) == ours[place].label
    random = np.random.default_rng(0)

    def one_by_one(read: Callable[[int], Any]) -> Callable[[], int]:
        def once() -> int:
            for place in random.integers(0, len(ours), _READS).tolist():
                read(place)
            return _READS

        return once

    def batches(read: Callable[[np.ndarray], Any], places: Callable[[], np.ndarray]) -> Callable[[], int]:
        def once() -> int:
            order = places()
            for start in range(0, len(order), BATCH):
                read(order[start : start + BATCH])
            return len(order)

        return once

    def by_grain(source: Any, example: Callable[[Any], Any]) -> Callable[[], int]:
        import grain

        def once() -> int:
            data = grain.MapDataset.source(source).shuffle(seed=0).map(example).to_iter_dataset().batch(BATCH)
            return sum(len(labels) for _, labels in data)

        return once

    calls = {
        ("one by one", "ours"): one_by_one(ours.__getitem__),
        ("one by one", "array_record"): one_by_one(lambda place: theirs.example(theirs.source[place])),
        ("batches", "ours"): batches(ours.__getitem__, lambda: random.integers(0, len(ours), BATCH)),
        ("batches", "array_record"): batches(theirs.batch, lambda: random.integers(0, len(ours), BATCH)),
        ("epoch", "ours"): batches(ours.__getitem__, lambda: random.permutation(len(ours))),
        ("epoch", "array_record"): batches(theirs.batch, lambda: random.permutation(len(ours))),
        ("grain epoch", "ours"): by_grain(ours, lambda found: (found.image, np.int64(found.label))),
        ("grain epoch", "array_record"): by_grain(theirs.source, theirs.example),
    }
    tools: dict[str, Callable[[], Run]] = {
        " ".join(name): lambda call=call: timed(call, min_s=min_s, min_calls=1)  # type: ignore[misc]
        for name, call in calls.items()
    }
    runs, _ = take_turns(tools, repeats=repeats)
    found: dict[str, Any] = {}
    for way in WAYS:
        pair = runs[f"{way} ours"], runs[f"{way} array_record"]
        cpu = [
            (second.cpu_seconds / second.num_images) / max(1e-9, first.cpu_seconds / first.num_images)
            for first, second in zip(*pair, strict=True)
        ]
        found[way] = {
            "ours": dataclasses.asdict(estimate([run.images_per_s for run in pair[0]])),
            "array_record": dataclasses.asdict(estimate([run.images_per_s for run in pair[1]])),
            "cpu_ratio": dataclasses.asdict(estimate(cpu)),
        }
    return found


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield "| | tfrecords.read, images/s | ArrayRecord, images/s | its processor time |"
    yield "|---|---|---|---|"
    for way, figures in found.items():
        cells = []
        for name, digits in (("ours", ",.0f"), ("array_record", ",.0f"), ("cpu_ratio", ".1f")):
            interval = figures[name]["ci95"]
            shown = f" ({interval[0]:{digits}}-{interval[1]:{digits}})" if interval else ""
            cells.append(f"{figures[name]['median']:{digits}}{shown}")
        yield f"| {way} | {cells[0]} | {cells[1]} | {cells[2]} x |"


def main(arguments: list[str]) -> None:
    """Convert the images, measure in the environment of the rival, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image_dir")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--python", default="", help="an environment with Grain; by default it is made")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    folders = [given.folder / file_format / "random_reads" / "1.0.0" for file_format in FILE_FORMATS]
    if given.measure:
        found = measure(*folders, repeats=given.repeats)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        count = Layout.load(folders[0]).num_examples("train")
        text = [f"{count:,} images, {os.cpu_count()} cores, load {load}", "", *_lines(found), "", json.dumps(found)]
        sys.stdout.write("\n".join(text) + "\n")
        return
    # The other environment has none of these.
    from benchmarks.rivals import LOADERS
    from simimg.bench.virtualenvs import python_of
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig

    for folder, file_format in zip(folders, FILE_FORMATS, strict=True):
        convert(
            ConvertConfig(
                image_dir=given.image_dir,
                data_dir=folder.parents[1],
                name="random_reads",
                image_size=given.image_size,
                encoding="raw",
                format=file_format,
            )
        )
    grain = next(tool for name, tool in LOADERS["raw"].items() if name == "grain")
    python = given.python or python_of(grain, Path.home() / ".cache/simimg")
    command = [str(python), "-m", "benchmarks.random_reads", *arguments, "--measure"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})


if __name__ == "__main__":
    main(sys.argv[1:])
