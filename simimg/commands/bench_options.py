"""Options of `simimg bench`: the stage to measure, its images or records, and the tools to compare with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.bench.loaders import RIVALS as LOADERS
from simimg.commands.console import quiet_tensorflow
from simimg.presets import PRESETS
from tfrecords.options import option

with quiet_tensorflow():
    from simimg.input import READERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `bench`."""

    stage: str = option(
        "What to measure.",
        choices=(
            *("convert", "input", "crops", "growth", "augment", "train", "loop", "gpu", "embedding", "search"),
            *("duplicates", "protocols"),
        ),
    )
    image_dir: Path | None = option("Images to use, one folder per class; by default the sample images.", None)
    out_dir: Path = option("Folder of the dated results.", Path("bench_results"))
    rivals: tuple[str, ...] = option("Tools to compare with, or none; by default all that --stage knows.", ())
    repeats: int = option("Measured rounds; the intervals need 5 or more.", 9)
    quick: bool = option("gpu: use tiny sizes, to try the command without a GPU; no target is checked.", False)
    replicate: int = option(
        "convert: also measure this many times as many images, 1 to 8.", 4, group="sizes", words={"off": 1}
    )
    megapixels: int = option(
        "convert: measure images of this many megapixels instead, against the tutorial; a camera has about 12.",
        0,
        group="sizes",
        words={"off": 0},
    )
    num_large: int = option(
        "convert: number of images of --megapixels; at 12 they take 5 MB each in --cache_dir.", 200, group="sizes"
    )
    encoding: str = option(
        "input, growth, train, loop: encoding of the records.", "raw", choices=tuple(LOADERS), group="data"
    )
    image_size: int = option("All but convert: side of the images in px.", 64, group="sizes")
    batch_size: int = option("All but convert: images per batch.", 256, group="sizes")
    num_images: int = option(
        "input, crops, growth, train, loop: number of records; for crops 2,000 at most.", 60_000, group="sizes"
    )
    num_vectors: int = option("search: vectors to search, which take 2 KB of memory each.", 1_000_000, group="sizes")
    num_queries: int = option("search: images to search for, one after the other.", 28, group="sizes")
    num_indexed: int = option(
        "embedding: images of the large index that is searched, most of them random vectors.", 100_000, group="sizes"
    )
    num_originals: int = option("duplicates: images to edit, in five ways each.", 300, group="sizes")
    dataset_dir: Path | None = option(
        "train, loop: a dataset to use instead of one converted from --image_dir.", None, group="data"
    )
    before: Path | None = option(
        "embedding, duplicates: a clone of an earlier version, which is measured, too.", None, group="data"
    )
    preset: str = option(
        "train, loop: the preset, which sets network, augmentation and optimizer.",
        "small",
        choices=PRESETS,
        group="training",
    )
    reader: str = option("train, loop: how to read shards.", "auto", choices=READERS, group="training")
    profile: bool = option("train: also write a trace of 20 steps for TensorBoard.", False, group="training")
    cache_dir: Path = option(
        "Folder that keeps the environments of other tools, and the images.", Path("~/.cache/simimg")
    )
