"""See it all: draw pictures, convert, train, evaluate, index, search, and write a report.

Runs the other commands one after the other, shows each as you would type it, and writes OUT_DIR/report.html. Takes a
few minutes on two cores. With --image_dir it runs on your pictures, one folder a class. Given again, it goes on where
it stopped.

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

_PRESET = "lite0"  # on two cores a few epochs of it take less time, and learn more, than twelve of `small`
_RESOLUTION = 128  # a third of the time that the preset's 224 px would take
_EPOCHS = 3
_NUM_STAGES = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `demo` can be told."""

    out_dir: Path = option("Everything that the demo makes goes here.", Path("simimg-demo"))
    image_dir: Path | None = option("Your pictures, one folder a class; by default they are drawn.", None)
    epochs: int = option("Times that the model sees every training picture.", _EPOCHS)
    seed: int = option("Deals, orders, augments and starts.", 0)


def run(options: Options) -> Result:
    """Runs the stages and writes the report."""
    start = time.perf_counter()
    image_dir = options.image_dir or _draw(options)

    # TensorFlow takes seconds to import, so there is something to see before.
    converted, converting = _run_stage(
        1,
        "convert",
        convert.run,
        convert.Options(image_dir=str(image_dir), data_dir=options.out_dir / "data", seed=options.seed),
        {"image_dir": image_dir, "data_dir": options.out_dir / "data"},
    )
    from simimg.commands import evaluate, index, search, train, verify
    from simimg.commands.demo_content import edited_copies, write_demo_report
    from simimg.report import Stage

    dataset_dir = Path(converted["dataset_dir"])
    model_dir, index_dir = options.out_dir / "model", options.out_dir / "index"
    _, verifying = _run_stage(
        2, "verify", verify.run, verify.Options(dataset_dir=dataset_dir), {"dataset_dir": dataset_dir}
    )
    train_flags: dict[str, Any] = {
        "dataset_dir": dataset_dir,
        "model_dir": model_dir,
        "preset": _PRESET,
        "resolution": _RESOLUTION,
        "epochs": options.epochs,
    }
    trained, training = _run_stage(
        3, "train", train.run, train.resolve({**train_flags, "seed": options.seed}), train_flags
    )
    evaluate_flags: dict[str, Any] = {
        "dataset_dir": dataset_dir,
        "model_dir": model_dir,
        "split": _test_split(dataset_dir),
    }
    evaluated, evaluating = _run_stage(4, "evaluate", evaluate.run, evaluate.Options(**evaluate_flags), evaluate_flags)
    index_flags: dict[str, Any] = {"image_dir": image_dir, "index_dir": index_dir}
    indexed, indexing = _run_stage(5, "index", index.run, index.Options(**index_flags), index_flags)
    originals = edited_copies(image_dir, index_dir, options.out_dir / "edited", options.seed)
    search_flags: dict[str, Any] = {"index_dir": index_dir}
    found, searching = _run_stage(
        6,
        "search",
        search.run,
        search.Options(**search_flags, images=tuple(originals)),
        {**search_flags, "": options.out_dir / "edited"},
        quiet=True,
    )

    stages = [
        Stage(
            name="convert",
            command=converting[0],
            seconds=converting[1],
            figure=f"{converted['images_per_s']:,.0f} images/s",
        ),
        Stage(
            name="verify", command=verifying[0], seconds=verifying[1], figure=f"{converted['num_examples']:,} examples"
        ),
        Stage(
            name="train", command=training[0], seconds=training[1], figure=f"{trained['images_per_s']:,.0f} images/s"
        ),
        Stage(
            name="evaluate",
            command=evaluating[0],
            seconds=evaluating[1],
            figure=f"{evaluated['num_examples']:,} photos",
        ),
        Stage(name="index", command=indexing[0], seconds=indexing[1], figure=f"{indexed['num_images']:,} pictures"),
        Stage(
            name="search", command=searching[0], seconds=searching[1], figure=f"{len(found['results']):,} edited copies"
        ),
    ]
    report = options.out_dir / "report.html"
    recalls = write_demo_report(
        report,
        dataset_dir=dataset_dir,
        model_dir=model_dir,
        split=evaluate_flags["split"],
        stages=stages,
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
        f"accuracy {evaluated['accuracy']:.3f} on {evaluated['num_examples']:,} pictures that were not trained on; "
        f"{sum(first for first, _ in recalls.values()):,} of {len(found['results']):,} edited copies found their "
        "original first\n"
        f"{time.perf_counter() - start:.0f} s; the report is {report.resolve().as_uri()}"
    )
    exit_code = 2 if options.image_dir is not None and converted["num_refused"] else 0
    return Result(values=values, text=text, exit_code=exit_code)


def _draw(options: Options) -> Path:
    image_dir = options.out_dir / "sample"
    note("writing the sample images")
    with progress_bar(None, "writing") as bar:
        draw_sample(image_dir, progress=lambda num_files: bar.update(num_files - bar.n) and None)
    return image_dir


def _run_stage(
    number: int,
    name: str,
    run_command: Callable[[Any], Result],
    options: Any,
    shown: dict[str, Any],
    *,
    quiet: bool = False,
) -> tuple[dict[str, Any], tuple[str, float]]:
    """Runs a command; returns its values, and how it would be typed with the seconds that it took."""
    arguments = " ".join(f"--{flag}={value}" if flag else str(value) for flag, value in shown.items())
    command = f"simimg {name} {arguments}"
    note(f"\n[{number}/{_NUM_STAGES}] {command}")
    start = time.perf_counter()
    result = run_command(options)
    if not quiet:
        note(result.text)
    return result.values, (command, time.perf_counter() - start)


def _test_split(dataset_dir: Path) -> str:
    splits = Layout.load(dataset_dir).splits
    return "test" if "test" in splits else next(iter(splits))
