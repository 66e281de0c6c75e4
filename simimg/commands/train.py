"""Train a model on a data set, on every GPU there is.

The run goes to MODEL_DIR: config.json, checkpoints, figures for TensorBoard, and at the end model.keras and
report.html. If it is stopped (Ctrl-C, SIGTERM, a crash), the same command goes on from where it was. The split `test`
is measured after each epoch and decides nothing.

Several machines train together if each is given the same command and a TF_CONFIG of its own, see
simimg/training/strategy.py. If one of them is lost, start its command again: the others come back by themselves.

Example: simimg train --dataset_dir=data/photos/1.0.0 --preset=lite0
"""

from __future__ import annotations

import os
import sys
from typing import Any

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import WorkerLost
    from simimg.training import StepInfo, TrainConfig, TrainResult, Watcher, train

Options = TrainConfig
resolve = TrainConfig.with_preset


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
        "validation_accuracy": result.validation_accuracy,
        "train_accuracy": result.train_accuracy,
        "test_accuracy": result.test_accuracy,
        "test_binary_accuracy": result.test_binary_accuracy,
    }
    lines = [
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.images_per_s:,.0f} images/s, "
        f"{result.input_share:.1%} of the time spent waiting for input",
        f"training accuracy {result.train_accuracy:.4f}"
        + ("" if result.test_accuracy is None else f", test accuracy {result.test_accuracy:.4f}"),
        f"the model is in {result.model_dir}",
    ]
    return Result(values=values, text="\n".join(lines))


def train_with_progress(config: TrainConfig) -> TrainResult:
    """Trains, showing a progress bar and a line an epoch."""
    with progress_bar(None, "training", unit="step") as bar:

        def show(info: StepInfo) -> None:
            bar.total = info.num_steps
            bar.set_postfix_str(
                f"loss {info.loss:.3f}, accuracy {info.accuracy:.3f}, {info.images_per_s:,.0f} img/s, "
                f"waiting for input {info.input_share:.0%}",
                refresh=False,
            )
            bar.update(info.step - bar.n)

        return train(config, Watcher(note=note, step=show))
