"""A training run's folder: its options and figures beside the model, and the check that it has no other run.

<model_dir>/config.json     the options, and the dataset they were used on; `simimg train --config` repeats the run
<model_dir>/model.keras     the trained model, once the run is finished; see `simimg.models.model_folder`
<model_dir>/result.json     figures of the finished run
<model_dir>/checkpoints/    see `simimg.training.checkpoints`
<model_dir>/tensorboard/    scalars, augmented images, the confusion matrix
<model_dir>/evaluation-test.json, report.html    figures of the kept model, and the report, which is written last
<model_dir>/.lock           held by the process that trains
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from simimg.errors import ModelError, UsageError
from simimg.input import Split
from simimg.models.model_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    Objective,
    RunInfo,
    check_trained,
    finished_file,
    load_run,
)
from simimg.training.train_config import TrainConfig
from tfrecords.convert.image.decoder import CENTER
from tfrecords.format.atomic_files import file_sha256, locked_file, read_json, write_json
from tfrecords.format.layout import Layout
from tfrecords.format.naming import INFO_FILE
from tfrecords.options import to_json

RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
_LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run."""

    model_dir: Path
    steps: int  # number of training steps
    epoch: int  # the epoch whose weights are kept: the last one, or the best one under `--patience`
    seconds: float  # time spent on training steps
    images_per_s: float  # training throughput
    # Share of the time spent waiting for batches; not known under `--deterministic`, nor after seconds on a GPU.
    input_share: float | None
    # Figures of the kept model on the splits train, validation and test, as far as they exist: accuracies of a
    # classifier, and the recall of a network for copies.
    figures: dict[str, dict[str, float]]
    history: list[dict[str, Any]]  # the figures of each epoch
    teacher: str | None = None  # folder of the run whose outputs were learned

    def score(self, objective: Objective, split: str) -> float | None:
        """Returns the main figure of an objective on a split: train, validation or test."""
        return self.figures.get(split, {}).get(objective.score)

    def to_json(self) -> dict[str, Any]:
        """Returns the contents of result.json, with figures by keys such as `test_accuracy`, None if unknown."""
        flat = {f"{split}_{name}": value for split, found in self.figures.items() for name, value in found.items()}
        values = {**vars(self), **flat, "model_dir": str(self.model_dir)}
        if not self.teacher:
            del values["teacher"]
        there = (key for key in _RESULT_KEYS if key in values or key not in _OF_SOME)
        return {key: values.get(key) for key in there}


_RESULT_KEYS = (
    "model_dir steps epoch seconds images_per_s input_share train_accuracy validation_accuracy test_accuracy "
    "test_binary_accuracy history train_recall validation_recall test_recall train_binary_accuracy "
    "validation_mean_average_precision test_mean_average_precision train_mean_absolute_error "
    "validation_mean_absolute_error test_mean_absolute_error teacher"
).split()
_SPLITS = ("train", "validation", "test")
_OF_SOME = frozenset(_RESULT_KEYS[_RESULT_KEYS.index("test_recall") + 1 :])
"""Figures of several labels per image and of numbers, and the teacher, which other runs do not have."""


def figures_by_split(values: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the `figures` of a TrainResult from those values whose keys are like `test_accuracy`."""
    found: dict[str, dict[str, float]] = {}
    for key in _RESULT_KEYS:
        split, _, name = key.partition("_")
        if split in _SPLITS and values.get(key) is not None:
            found.setdefault(split, {})[name] = values[key]
    return found


def load_result(model_dir: Path) -> TrainResult:
    """Returns the figures of a finished run.

    Raises:
        ModelError: the folder has no run, or the run is not finished.
    """
    check_trained(model_dir)
    path = finished_file(model_dir, RESULT_FILE)
    values = {**read_json(path, "the run's result"), "model_dir": model_dir}
    others = {key: value for key, value in values.items() if key.partition("_")[0] not in _SPLITS}
    try:
        return TrainResult(figures=figures_by_split(values), **others)
    except TypeError as error:
        raise ModelError(f"{path} is of another version of simimg ({error}). Train the model again.") from None


def describe_run(model_dir: Path, config: TrainConfig, split: Split, shuffle: str) -> RunInfo:
    """Returns the description of a run, after checking that the folder has no other run.

    Raises:
        UsageError: the folder has a run with other options, or on another dataset; names the difference.
    """
    made = _made_with(split)
    prepared = {
        name: made[name] for name in ("decode", "truncated", "background", "range", "max_pixels") if name in made
    }
    info = RunInfo(
        image_size=split.image_size,
        channels=split.channels,
        resize=CENTER if split.crops else made.get("resize", "stretch"),
        class_names=split.class_names,
        dataset_sha256=dataset_sha256(split),
        shuffle=shuffle,
        config=to_json(config),
        teacher_sha256=file_sha256(config.teacher / MODEL_FILE) if config.teacher else "",
        **prepared,
    )
    if not (model_dir / CONFIG_FILE).exists():
        return info
    there = load_run(model_dir)
    now = {key: info.config[key] for key in config.determining() if key != "teacher"}
    # An option that is newer than the run has its default, which is off.
    old = {key: there.config.get(key, getattr(TrainConfig, key, None)) for key in now}
    differing = [f"--{key}={old[key]} there, {value} now" for key, value in now.items() if old[key] != value]
    if there.shuffle != info.shuffle:
        differing.append(f"a {there.shuffle} shuffle there, a {info.shuffle} one now (see --reader and --shuffle)")
    if there.teacher_sha256 != info.teacher_sha256:
        differing.append("the teacher is another one")
    there = dataclasses.replace(there, teacher_sha256=info.teacher_sha256)
    there = dataclasses.replace(there, **prepared)  # an older run does not say; the checksums tell datasets apart
    if dataclasses.replace(there, config={}, shuffle="") != dataclasses.replace(info, config={}, shuffle=""):
        differing.append("the dataset is another one")
    if differing:
        raise UsageError(
            f"{model_dir} has another run: {'; '.join(differing)}. Choose another --model_dir, or remove it."
        )
    return info


def begin_run(model_dir: Path, info: RunInfo) -> AbstractContextManager[object]:
    """Creates the run's folder with config.json, unless it exists. In the block, no second process writes into it.

    The lock of a killed process is released.

    Raises:
        UsageError: the folder cannot be created, or another process has the lock.
    """

    def held(holder: str) -> UsageError:
        return UsageError(
            f"another process ({holder}) is training in {model_dir}. "
            "Wait for it, stop it, or choose another --model_dir."
        )

    if not (model_dir / CONFIG_FILE).exists():
        try:
            model_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--model_dir={model_dir} cannot be created: {error.strerror}.") from None
        write_json(model_dir / CONFIG_FILE, info.to_json())
    return locked_file(model_dir / _LOCK_FILE, held)


def _made_with(split: Split) -> dict[str, Any]:
    """Returns the options that a dataset was converted with, the first one of several; {} if they are not known."""
    return Layout.load(split.dataset_dir).config if Layout.exists(split.dataset_dir) else {}


def dataset_sha256(split: Split) -> str:
    """Returns the digest of the checksums of all shards of a split's dataset, or of its datasets."""
    if split.parts:
        each = [dataset_sha256(part.split) for part in split.parts]
        return hashlib.sha256(json.dumps(each).encode()).hexdigest()
    return folder_sha256(split.dataset_dir)


def folder_sha256(dataset_dir: Path) -> str:
    """Returns the digest of the checksums of all shards of a dataset, for which none is read."""
    if not Layout.exists(dataset_dir):
        return file_sha256(dataset_dir / INFO_FILE)
    layout = Layout.load(dataset_dir)
    shards = {name: [shard.sha256 for shard in shards] for name, shards in layout.splits.items()}
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()
