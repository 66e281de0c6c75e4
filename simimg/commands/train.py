"""Train a model on a data set, on every GPU there is.

The run goes to MODEL_DIR: config.json, checkpoints, TensorBoard scalars, and model.keras at the end. If it is stopped
(Ctrl-C, SIGTERM, a crash), the same command goes on from where it was. The split `test` is measured after each epoch
and decides nothing.

Example: simimg train --dataset_dir=data/photos/1.0.0 --preset=lite0
"""

from __future__ import annotations

from typing import Any

from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.training import StepInfo, TrainConfig, TrainResult, Watcher, train

Options = TrainConfig
resolve = TrainConfig.with_preset


def run(options: TrainConfig) -> Result:
    """Trains with a progress bar."""
    result = train_with_progress(options)
    values: dict[str, Any] = {
        "model_dir": str(result.model_dir),
        "steps": result.steps,
        "seconds": result.seconds,
        "images_per_s": result.images_per_s,
        "train_accuracy": result.train_accuracy,
        "test_accuracy": result.test_accuracy,
        "test_binary_accuracy": result.test_binary_accuracy,
    }
    lines = [
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.images_per_s:,.0f} images/s",
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
                f"loss {info.loss:.3f}, accuracy {info.accuracy:.3f}, {info.images_per_s:,.0f} img/s", refresh=False
            )
            bar.update(info.step - bar.n)

        return train(config, Watcher(note=note, step=show))
