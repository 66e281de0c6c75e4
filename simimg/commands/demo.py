"""Run the whole pipeline on sample images and write a report.

Runs the other commands one after another, prints each as you would type it, and writes OUT_DIR/report.html. It takes a
few minutes on two cores. With --image_dir it runs on your images, in one folder per class. If it is interrupted, the
same command resumes it.

Example: simimg demo --image_dir=photos
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from pathlib import Path
from typing import Any

from simimg.cli import run_command
from simimg.commands.console import Result, note, progress_bar
from simimg.report.demo_report import Stage
from simimg.sample import draw_sample
from tfrecords.format.layout import Layout
from tfrecords.options import option

JSON_KEYS = "dataset_dir model_dir index_dir report accuracy"

_PRESET = "lite0"  # on two cores, a few epochs of it take less time and learn more than twelve of `small`
_RESOLUTION = 128  # takes a third of the time of the preset's 224 px
_EPOCHS = 3
_NUM_STAGES = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `demo`."""

    out_dir: Path = option("Folder of everything that the demo writes.", Path("simimg-demo"))
    image_dir: Path | None = option("Your images, one folder per class; by default the sample images.", None)
    epochs: int = option("Passes of training over the images.", _EPOCHS)
    seed: int = option("Seed of the splits, the order, the augmentation and the initial weights.", 0)


def run(options: Options) -> Result:
    """Run the stages and writes the report."""
    start = time.perf_counter()
    image_dir = options.image_dir or _draw(options)
    model_dir, index_dir = options.out_dir / "model", options.out_dir / "index"
    stages: list[Stage] = []

    def stage(name: str, figure: str, shown: dict[str, Any], **hidden: Any) -> dict[str, Any]:
        """Run a command, print it and its result, and return its values.

        `figure` is a format of the values; `shown` are the flags to print, `images` being without one.
        """
        arguments = [str(value) if flag == "images" else f"--{flag}={value}" for flag, value in shown.items()]
        command = " ".join(["simimg", name, *arguments])
        note(f"\n[{len(stages) + 1}/{_NUM_STAGES}] {command}")
        module = importlib.import_module(f"simimg.commands.{name}")  # imports TensorFlow, which takes seconds
        begun = time.perf_counter()
        result = run_command(module, {**shown, **hidden})
        seconds = time.perf_counter() - begun
        stages.append(Stage(name=name, command=command, seconds=seconds, figure=figure.format(**result.values)))
        if name != "search":  # many lines, which the report shows
            note(result.text)
        return result.values

    speed, examples, images = "{images_per_s:,.0f} images/s", "{num_examples:,} examples", "{num_images:,} images"
    flags: dict[str, Any] = {"image_dir": str(image_dir), "data_dir": options.out_dir / "data"}
    converted = stage("convert", speed, flags, seed=options.seed)
    dataset_dir = Path(converted["dataset_dir"])
    stage("verify", examples, {"dataset_dir": dataset_dir})
    flags = {"dataset_dir": dataset_dir, "model_dir": model_dir, "preset": _PRESET, "resolution": _RESOLUTION}
    stage("train", speed, {**flags, "epochs": options.epochs}, seed=options.seed)
    splits = Layout.load(dataset_dir).splits
    split = "test" if "test" in splits else next(iter(splits))
    flags = {"dataset_dir": dataset_dir, "model_dir": model_dir, "split": split}
    evaluated = stage("evaluate", "{num_examples:,} images", flags)
    stage("index", images, {"image_dir": image_dir, "index_dir": index_dir})
    stage("audit", images, {"index_dir": index_dir, "report": options.out_dir / "audit.html"})

    from simimg.commands.demo_content import edited_copies, write_demo_report

    copies_dir = options.out_dir / "edited"
    originals = edited_copies(image_dir, index_dir, copies_dir, options.seed)
    what = f"{len(originals):,} edited copies"
    found = stage("search", what, {"index_dir": index_dir, "images": copies_dir}, images=tuple(originals))

    report = options.out_dir / "report.html"
    recalls = write_demo_report(
        report,
        dataset_dir=dataset_dir,
        model_dir=model_dir,
        split=split,
        stages=stages,
        results=found["results"],
        originals=originals,
        drawn=options.image_dir is None,
    )
    paths = {"dataset_dir": dataset_dir, "model_dir": model_dir, "index_dir": index_dir, "report": report}
    values = {**{name: str(path) for name, path in paths.items()}, "accuracy": evaluated["accuracy"]}
    text = (
        f"accuracy {evaluated['accuracy']:.3f} on {evaluated['num_examples']:,} images that were not trained on; "
        f"the original was the first match for {sum(first for first, _ in recalls.values()):,} of "
        f"{len(found['results']):,} edited copies\n"
        f"{time.perf_counter() - start:.0f} s; report: {report.resolve().as_uri()}"
    )
    num_skipped = 0 if options.image_dir is None else converted["num_refused"]
    return Result(values=values, text=text, num_skipped=num_skipped)


def _draw(options: Options) -> Path:
    image_dir = options.out_dir / "sample"
    note("writing the sample images")
    with progress_bar(None, "writing") as bar:
        draw_sample(image_dir, progress=lambda num_files: bar.update(num_files - bar.n) and None)
    return image_dir
