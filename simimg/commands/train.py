"""Train a model on a data set, on every GPU there is.

The run goes to MODEL_DIR: config.json, checkpoints, figures for TensorBoard, and at the end model.keras and
report.html. With --objective=similarity it learns from the photos alone, without labels, to find copies of them;
`simimg index --model=MODEL_DIR` then uses it. If it is stopped (Ctrl-C, SIGTERM, a crash), the same command goes on
from where it was. The split `test` is measured after each epoch and decides nothing.

Several machines train together if each is given the same command and a TF_CONFIG of its own, see
simimg/training/strategy.py. If one of them is lost, start its command again: the others come back by themselves.

A run is repeated by the config.json in its folder: give --config, and a --model_dir of your own.

Example: simimg train --dataset_dir=data/photos/1.0.0 --preset=lite0
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow
from simimg.commands.run_report import write_run_report

with quiet_tensorflow():
    from simimg.errors import UsageError, WorkerLost
    from simimg.training import StepInfo, TrainConfig, TrainResult, Watcher, train, workers

from tfrecords.format.atomic_files import read_json
from tfrecords.options import from_json, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TrainConfig):
    """What `train` can be told: all that a training run can, or the file that has it."""

    dataset_dir: Path = option("Data set folder, DATA_DIR/NAME/VERSION. Required without --config.", Path())
    config: Path | None = option("The config.json of a run to repeat; flags override what is in it.", None)


def resolve(given: dict[str, Any]) -> TrainConfig:
    """Returns the configuration of the file, if one is given, else of the preset; overridden by the flags."""
    file = given.pop("config", None)
    if file is None:
        if "dataset_dir" not in given:
            raise UsageError("--dataset_dir=PATH is required: data set folder, DATA_DIR/NAME/VERSION.")
        return TrainConfig.with_preset(given)
    if not file.is_file():
        raise UsageError(f"--config={file} does not exist. Name the config.json of a run.")
    values = read_json(file, "the configuration of a run")
    values = values.get("config", values) if isinstance(values, dict) else values
    told = from_json(TrainConfig, values, f"--config={file}")
    if "model_dir" not in given and told.model_dir:
        given["model_dir"] = told.model_dir.with_name(f"{told.model_dir.name}-again")
    return dataclasses.replace(told, **given)


def run(options: TrainConfig) -> Result:
    """Trains with a progress bar."""
    try:
        result = train_with_progress(options)
    except WorkerLost as error:
        # What TensorFlow keeps of the others in this process cannot be mended; a new one waits for them to come back.
        note(f"{error}\nstarting again, to wait for the other workers")
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    values: dict[str, Any] = {
        "model_dir": str(result.model_dir),
        "steps": result.steps,
        "seconds": result.seconds,
        "images_per_s": result.images_per_s,
        "input_share": result.input_share,
        "epoch": result.epoch,
    }
    names: tuple[str, ...] = ("validation_accuracy", "train_accuracy", "test_accuracy", "test_binary_accuracy")
    words = options.objective_info.words
    train_score, test_score = (result.score(options.objective_info, split) for split in ("train", "test"))
    if options.objective == "similarity":
        names = ("train_recall", "validation_recall", "test_recall")
    values |= {name: result.to_json()[name] for name in names}
    lines = [
        f"the softmax fitted in {result.seconds:.1f} s, {result.images_per_s:,.0f} views/s"
        if not result.steps
        else f"{result.steps:,} steps in {result.seconds:.1f} s, {result.images_per_s:,.0f} images/s"
        + ("" if result.input_share is None else f", {result.input_share:.1%} of the time spent waiting for input"),
        ", ".join(
            f"{split} {words} {score:.4f}"
            for split, score in (("training", train_score), ("test", test_score))
            if score is not None
        ),
        f"the model is in {result.model_dir}",
    ]
    if workers().is_chief:
        report = write_run_report(result, options)
        values["report"] = str(report)
        lines.append(f"report: {report}")
    return Result(values=values, text="\n".join(lines))


def train_with_progress(config: TrainConfig) -> TrainResult:
    """Trains, showing a progress bar and a line an epoch."""
    with progress_bar(None, "training", unit="step") as bar:

        def show(info: StepInfo) -> None:
            bar.total = info.num_steps
            bar.set_postfix_str(
                f"loss {info.loss:.3f}, {config.objective_info.words} {info.score:.3f}, "
                f"{info.images_per_s:,.0f} img/s, waiting for input {info.input_share:.0%}",
                refresh=False,
            )
            bar.update(info.step - bar.n)

        return train(config, Watcher(note=note, step=show))
