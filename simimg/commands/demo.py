"""Run the whole pipeline on sample images and write a report.

Runs the other commands one after another, prints each as you would type it, and writes OUT_DIR/report.html. It takes a
few minutes on two cores. With --image_dir it runs on your images, in one folder per class. If it is interrupted, the
same command resumes it.

Example: simimg demo --image_dir=photos
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simimg.commands import convert
from simimg.commands.console import Result, note, progress_bar
from simimg.sample import draw_sample
from tfrecords.format.layout import Layout
from tfrecords.options import option

JSON_KEYS = "dataset_dir model_dir index_dir report accuracy"

_PRESET = "lite0"  # on two cores, a few epochs of it take less time and learn more than twelve of `small`
_RESOLUTION = 128  # takes a third of the time of the preset's 224 px
_EPOCHS = 3
_NUM_STAGES = 6


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
    stages: list[dict[str, Any]] = []

    def stage(name: str, run_command: Callable[[Any], Result], given: Any, quiet: bool = False, **shown: Any) -> Any:
        """Run a command and returns its values; `shown` are the flags to print, `images` being without one."""
        arguments = [str(value) if flag == "images" else f"--{flag}={value}" for flag, value in shown.items()]
        command = " ".join(["simimg", name, *arguments])
        note(f"\n[{len(stages) + 1}/{_NUM_STAGES}] {command}")
        begun = time.perf_counter()
        result = run_command(given)
        stages.append({"name": name, "command": command, "seconds": time.perf_counter() - begun})
        if not quiet:
            note(result.text)
        return result.values

    flags: dict[str, Any] = {"image_dir": image_dir, "data_dir": options.out_dir / "data"}
    given = convert.Options(**{**flags, "image_dir": str(image_dir)}, seed=options.seed)
    converted = stage("convert", convert.run, given, **flags)

    # Importing TensorFlow takes seconds, so the first stage runs before.
    from simimg.commands import evaluate, index, search, train, verify
    from simimg.commands.demo_content import edited_copies, write_demo_report
    from simimg.report import Stage

    dataset_dir = Path(converted["dataset_dir"])
    stage("verify", verify.run, verify.Options(dataset_dir=dataset_dir), dataset_dir=dataset_dir)
    flags = {"dataset_dir": dataset_dir, "model_dir": model_dir, "preset": _PRESET, "resolution": _RESOLUTION}
    flags["epochs"] = options.epochs
    trained = stage("train", train.run, train.resolve({**flags, "seed": options.seed}), **flags)
    split = _test_split(dataset_dir)
    flags = {"dataset_dir": dataset_dir, "model_dir": model_dir, "split": split}
    evaluated = stage("evaluate", evaluate.run, evaluate.Options(**flags), **flags)
    flags = {"image_dir": image_dir, "index_dir": index_dir}
    indexed = stage("index", index.run, index.Options(**flags), **flags)
    copies_dir = options.out_dir / "edited"
    originals = edited_copies(image_dir, index_dir, copies_dir, options.seed)
    queries = search.Options(index_dir=index_dir, images=tuple(originals))
    found = stage("search", search.run, queries, quiet=True, index_dir=index_dir, images=copies_dir)

    figures = (
        f"{converted['images_per_s']:,.0f} images/s",
        f"{converted['num_examples']:,} examples",
        f"{trained['images_per_s']:,.0f} images/s",
        f"{evaluated['num_examples']:,} images",
        f"{indexed['num_images']:,} images",
        f"{len(found['results']):,} edited copies",
    )
    report = options.out_dir / "report.html"
    recalls = write_demo_report(
        report,
        dataset_dir=dataset_dir,
        model_dir=model_dir,
        split=split,
        stages=[Stage(**one, figure=figure) for one, figure in zip(stages, figures, strict=True)],
        results=found["results"],
        originals=originals,
        drawn=options.image_dir is None,
    )
    values = {
        "dataset_dir": str(dataset_dir),
        "model_dir": str(model_dir),
        "index_dir": str(index_dir),
        "report": str(report),
        "accuracy": evaluated["accuracy"],
    }
    text = (
        f"accuracy {evaluated['accuracy']:.3f} on {evaluated['num_examples']:,} images that were not trained on; "
        f"{sum(first for first, _ in recalls.values()):,} of {len(found['results']):,} edited copies found their "
        "original first\n"
        f"{time.perf_counter() - start:.0f} s; report: {report.resolve().as_uri()}"
    )
    exit_code = 2 if options.image_dir is not None and converted["num_refused"] else 0
    return Result(values=values, text=text, exit_code=exit_code)


def _draw(options: Options) -> Path:
    image_dir = options.out_dir / "sample"
    note("writing the sample images")
    with progress_bar(None, "writing") as bar:
        draw_sample(image_dir, progress=lambda num_files: bar.update(num_files - bar.n) and None)
    return image_dir


def _test_split(dataset_dir: Path) -> str:
    splits = Layout.load(dataset_dir).splits
    return "test" if "test" in splits else next(iter(splits))
