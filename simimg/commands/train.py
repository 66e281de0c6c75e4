"""Train a model on a dataset, on all GPUs of the machine.

MODEL_DIR receives config.json, checkpoints, metrics for TensorBoard, and at the end model.keras and report.html. With
--objective=similarity the network learns from the images alone, without labels, to find copies of them, and
`simimg index --model=MODEL_DIR` uses it. If training is interrupted (Ctrl-C, SIGTERM, a crash), the same command
resumes it. The split `test` is measured after each epoch and influences nothing.

Several --dataset_dir are trained on together, with their classes joined by name and their splits `validation` and
`test` measured together. By default, each example is used once per epoch; --dataset_weights=3,1 uses the first dataset
three times as often as the second.

To train on several machines, run the same command on each, with a TF_CONFIG of its own; see simimg/docs/many_gpus.md.
If one machine is lost, restart its command, and the others continue by themselves.

To repeat a run, pass the config.json of its folder as --config, with another --model_dir.

Example: simimg train --dataset_dir=data/photos/1.0.0 --preset=lite0
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from simimg import api
from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.api.run_report import write_run_report
    from simimg.errors import UsageError, WorkerLost
    from simimg.input.mixture import dataset_weights_in
    from simimg.training import StepInfo, TrainConfig, TrainResult, Watcher, load_run, workers

from tfrecords.format.atomic_files import read_json
from tfrecords.options import from_json, option
from tfrecords.storage.object_cache import CacheOptions

JSON_KEYS = (
    "model_dir steps seconds images_per_s input_share epoch validation_accuracy train_accuracy test_accuracy "
    "test_binary_accuracy train_recall validation_recall test_recall train_binary_accuracy "
    "validation_mean_average_precision test_mean_average_precision train_mean_absolute_error "
    "validation_mean_absolute_error test_mean_absolute_error report"
)
_MAIN_FIGURES = ("accuracy", "binary_accuracy", "recall")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TrainConfig, CacheOptions):
    """Options of `train`: those of a training run, and a file with all of them."""

    dataset_dir: Path | tuple[Path, ...] = option(
        "Dataset folder or URL, DATA_DIR/NAME/VERSION; give the flag several times to train on several datasets. "
        "Required without --config.",
        Path(),
        repeated="PATH",
        url=True,
    )
    config: Path | None = option("The config.json of a run to repeat; flags override its options.", None)


def resolve(given: dict[str, Any]) -> TrainConfig:
    """Return the configuration: that of the file or else of the preset, overridden by the flags."""
    CacheOptions(**{name: given.pop(name) for name in ("cache_dir", "cache_bytes") if name in given})
    file = given.pop("config", None)
    if file is None:
        if "dataset_dir" not in given:
            raise UsageError("--dataset_dir=PATH is required: dataset folder, DATA_DIR/NAME/VERSION.")
        return TrainConfig.with_preset(given)
    if not file.is_file():
        raise UsageError(f"--config={file} does not exist. Name the config.json of a run.")
    values = read_json(file, "the configuration of a run")
    values = values.get("config", values) if isinstance(values, dict) else values
    config = from_json(TrainConfig, values, f"--config={file}")
    if "model_dir" not in given and config.model_dir:
        given["model_dir"] = config.model_dir.with_name(f"{config.model_dir.name}-again")
    return dataclasses.replace(config, **dataset_weights_in(given))


def run(options: TrainConfig) -> Result:
    """Train, with a progress bar."""
    try:
        result = _train(options)
    except WorkerLost as error:
        # TensorFlow's state about the other workers cannot be repaired in this process; a new one waits for them.
        note(f"{error}\nrestarting, to wait for the other workers")
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    objective = load_run(result.model_dir).objective
    found = {name: value for name, value in result.to_json().items() if name in JSON_KEYS.split()}
    figures = {f"{split}_{name}" for split in ("train", "validation", "test") for name in _MAIN_FIGURES}
    unknown = {name for name in figures if objective.score not in name and found.get(name) is None}
    values = {name: found[name] for name in JSON_KEYS.split() if name in found and name not in unknown}
    train_score, test_score = (result.score(objective, split) for split in ("train", "test"))
    lines = [
        f"softmax fitted in {result.seconds:.1f} s, {result.images_per_s:,.0f} views/s"
        if not result.steps
        else f"{result.steps:,} steps in {result.seconds:.1f} s, {result.images_per_s:,.0f} images/s"
        + ("" if result.input_share is None else f", {result.input_share:.1%} of the time spent waiting for input"),
        ", ".join(
            f"{split} {objective.words} {objective.text(score)}"
            for split, score in (("training", train_score), ("test", test_score))
            if score is not None
        ),
        f"model: {result.model_dir}",
    ]
    if workers().is_chief:
        report = write_run_report(result, options, note)
        values["report"] = str(report)
        lines.append(f"report: {report}")
    return Result(values=values, text="\n".join(lines))


def _train(config: TrainConfig) -> TrainResult:
    with progress_bar(None, "training", unit="step") as bar:

        def show(info: StepInfo) -> None:
            bar.total = info.num_steps
            waiting = "" if info.input_share is None else f", waiting for input {info.input_share:.0%}"
            bar.set_postfix_str(
                f"loss {info.loss:.3f}, {info.words} {info.score:.4g}, {info.images_per_s:,.0f} img/s{waiting}",
                refresh=False,
            )
            bar.update(info.step - bar.n)

        return api.train(watcher=Watcher(note=note, step=show), **vars(config))
