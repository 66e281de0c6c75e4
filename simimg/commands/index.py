"""Create or update a search index of images.

Each image becomes an embedding, a vector of numbers, by `lite0`, a pretrained network that needs no training, or by a
model of your own or of others. A second run embeds only new and changed files and drops removed ones; an interrupted
run resumes. Files that cannot be decoded are skipped with a reason each.

Example: simimg index --image_dir=photos --index_dir=indexes/photos
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from simimg import api
from simimg.commands.console import Result, note, progress_bar, showing
from simimg.commands.engine_options import EngineOptions
from simimg.errors import UsageError
from simimg.image_files import check_max_pixels
from simimg.inference.inference_engine import PRECISIONS
from tfrecords.convert.image.image_formats import MAX_PIXELS
from tfrecords.convert.sources import EXCLUDE_FROM_HELP, EXCLUDE_HELP, INCLUDE_HELP, check_patterns
from tfrecords.locations import location_text
from tfrecords.machine_limits import keep_freed_memory
from tfrecords.options import option

JSON_KEYS = "index_dir num_images num_embedded num_removed num_refused num_other_names dim seconds recall_at_10"

_REFUSALS_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(EngineOptions):
    """Options of `index`. Raises UsageError unless exactly one source is given, and for a precision not listed."""

    image_dir: Path | None = option(
        "Image folder, searched at any depth; its class folders, as in convert, are the labels.", None
    )
    dataset_dir: Path | None = option(
        "Dataset folder or URL, instead of --image_dir; all splits are indexed.", None, url=True
    )
    model: str = option(
        "Folder of a finished training run or of imported weights, the name of a shipped model, or an ONNX file (extra "
        "`onnx`) and what it does not say, such as FILE.onnx,size=224,range=imagenet.",
        "lite0",
    )
    index_dir: Path = option("Folder or URL of the index; an existing index is updated.", url=True)
    precision: str = option(
        "Of the embeddings. bfloat16 takes half the time on processors that have it (extra `fast`); auto is the "
        "existing index's; a new one of 500 images or more gets what is measured to be faster on this machine.",
        "auto",
        choices=("auto", *PRECISIONS),
    )
    include: tuple[str, ...] = option(INCLUDE_HELP, (), repeated="GLOB")
    exclude: tuple[str, ...] = option(EXCLUDE_HELP, (), repeated="GLOB")
    exclude_from: Path | None = option(EXCLUDE_FROM_HELP, None)
    max_pixels: int = option(
        f"Skip files with more pixels; auto is the limit of the model's dataset, or {MAX_PIXELS}.",
        0,
        words={"auto": 0},
    )
    num_gpus_per_worker: float = option(
        "GPUs of each task on Ray, also a fraction; without, a task computes on a core.", 0.0, group="workers"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_gpus_per_worker and self.engine != "ray":
            raise UsageError(f"--num_gpus_per_worker={self.num_gpus_per_worker} needs --engine=ray.")
        if self.num_gpus_per_worker < 0:
            raise UsageError(f"--num_gpus_per_worker={self.num_gpus_per_worker}: should be 0 or more.")
        check_max_pixels(self.max_pixels)
        if (self.image_dir is None) == (self.dataset_dir is None):
            raise UsageError("name one source: --image_dir=PATH or --dataset_dir=PATH.")
        check_patterns(self.include, self.exclude)


def run(options: Options) -> Result:
    """Create or update the index, with a progress bar."""
    start = time.perf_counter()
    keep_freed_memory()
    with progress_bar(None, "indexing") as bar:
        update = api.index(
            options.image_dir,
            options.index_dir,
            dataset_dir=options.dataset_dir,
            model=options.model,
            precision=options.precision,
            include=options.include,
            exclude=options.exclude,
            exclude_from=options.exclude_from,
            max_pixels=options.max_pixels,
            engine=options.engine,
            ray_address=options.ray_address,
            num_gpus_per_worker=options.num_gpus_per_worker,
            progress=showing(bar),
        )
    seconds, where = time.perf_counter() - start, location_text(options.index_dir)
    for text in update.notes:
        note(f"note: {text}")
    for path, refusal in update.refused[:_REFUSALS_SHOWN]:
        note(f"skipped {path}: {refusal}")
    if len(update.refused) > _REFUSALS_SHOWN:
        note(f"… and {len(update.refused) - _REFUSALS_SHOWN:,} more")
    if update.other_names:
        name, indexed = update.other_names[0]
        note(f"{len(update.other_names):,} names of files that are indexed by another name, e.g. {name}: {indexed}")
    if update.outdated:
        note(
            f"the threshold that `simimg calibrate` chose is kept, but the images have changed much since. "
            f"Measure again: simimg calibrate --index_dir={where}"
        )
    index = update.index
    dim = index.vectors["copy"].shape[1]
    values = {
        "index_dir": where,
        "num_images": len(index.images),
        "num_embedded": update.num_embedded,
        "num_removed": update.num_removed,
        "num_refused": len(update.refused),
        "num_other_names": len(update.other_names),
        "dim": dim,
        "seconds": round(seconds, 3),
    }
    text = f"{len(index.images):,} images as vectors of {dim} numbers in {where}\n{seconds:.1f} s"
    if update.num_embedded:
        text += f", {update.num_embedded / seconds:,.0f} images/s including the start of the model"
    if update.num_embedded < len(index.images):
        text += f"\n{update.num_embedded:,} embedded, the others were unchanged"
    if update.num_removed:
        text += f"\n{update.num_removed:,} removed, since their files no longer exist"
    if (compressed := index.compressed.get("copy")) is not None:
        values["recall_at_10"] = compressed.recall
        text += (
            f"\nsearched by compressed vectors, of which {compressed.num_compared:,} per query are compared exactly: "
            f"finds {compressed.recall:.1%} of the ten nearest images that an exact search finds"
        )
    if update.refused:
        text += f"\n{len(update.refused):,} skipped"
    return Result(values=values, text=text, num_skipped=len(update.refused))
