"""A run's folder: the resolved configuration beside the model, and how both are found again.

<model_dir>/config.json     the options, and the data set they were used on; `simimg train --config` repeats the run
<model_dir>/model.keras     the trained model, once the run is done
<model_dir>/result.json     figures of the finished run
<model_dir>/checkpoints/    see `simimg.training.checkpoints`
<model_dir>/tensorboard/    scalars, pictures of an augmented batch, the confusion matrix
<model_dir>/.lock           held by the process that trains
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

import simimg.models  # noqa: F401 - its layers have to be registered before a model that has them is loaded
from simimg.augment import AugmentConfig
from simimg.errors import ModelError, TrainingError, UsageError
from simimg.input import Split
from simimg.training.objectives import OBJECTIVES, Objective
from simimg.training.train_config import TrainConfig
from tfrecords.format.atomic_files import (
    TEMPORARY,
    atomic_folder,
    file_sha256,
    locked_file,
    read_json,
    sync_dir,
    sync_file,
    write_json,
)
from tfrecords.format.layout import Layout
from tfrecords.format.naming import INFO_FILE
from tfrecords.options import to_json

__all__ = [
    "RunInfo",
    "TrainResult",
    "begin_run",
    "check_run",
    "load_model",
    "load_result",
    "load_run",
    "load_trained",
    "locked",
    "recorded_shuffle",
    "save_folder",
    "save_model",
    "save_result",
    "writing",
]

_CONFIG_FILE = "config.json"
MODEL_FILE = "model.keras"
RESULT_FILE = "result.json"
_LOCK_FILE = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a model needs to be told to be used again: how pictures are prepared, and what its outputs mean.

    `dataset_sha256` is of all the shards' checksums; `shuffle` is uniform, windowed, or buffered where the shards were
    streamed. A model whose weights were imported has no classes, and in `config` the file they come from.
    """

    image_size: int
    resize: str
    class_names: tuple[str, ...]
    dataset_sha256: str
    shuffle: str
    config: dict[str, Any]

    @property
    def objective(self) -> Objective:
        """What the run learned."""
        return OBJECTIVES[self.config.get("objective", "classes")]

    @property
    def augment_config(self) -> AugmentConfig:
        """How its pictures were augmented, and how copies are made that it is measured by."""
        names = [field.name for field in dataclasses.fields(AugmentConfig)]
        return AugmentConfig(**{name: _told(self.config, name) for name in names})


def _told(config: dict[str, Any], name: str) -> Any:
    """Returns an option of a run: its default where the run is older than the option, which is off by default."""
    return config.get(name, getattr(TrainConfig, name, None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run.

    The figures are those of the model that is kept: of the last epoch, or of the best one under `--patience`. Those of
    a split that is not there are None, and so are those of another objective: a classifier has accuracies, a network
    for copies has recalls. `input_share` is the share of the time that was spent waiting for a batch, None
    where that is not known, under `--deterministic`.
    """

    model_dir: Path
    steps: int
    epoch: int
    seconds: float
    images_per_s: float
    input_share: float | None
    train_accuracy: float | None
    validation_accuracy: float | None
    test_accuracy: float | None
    test_binary_accuracy: float | None
    history: list[dict[str, Any]]
    train_recall: float | None = None
    validation_recall: float | None = None
    test_recall: float | None = None

    def score(self, objective: Objective, split: str) -> float | None:
        """Returns the figure of a split, train, validation or test, that the objective goes by."""
        value: float | None = getattr(self, f"{split}_{objective.score}")
        return value


def recorded_shuffle(model_dir: Path) -> str | None:
    """Returns how the examples of the run in `model_dir` are shuffled, None if there is no run."""
    return load_run(model_dir).shuffle if (model_dir / _CONFIG_FILE).exists() else None


def check_run(model_dir: Path, config: TrainConfig, split: Split, shuffle: str) -> RunInfo:
    """Returns what describes the run, after checking that the folder has no other one.

    Raises:
        UsageError: the folder has a run with other options, or on another data set; names the difference.
    """
    layout = Layout.load(split.dataset_dir) if Layout.exists(split.dataset_dir) else None
    info = RunInfo(
        image_size=split.image_size,
        resize=layout.config["resize"] if layout else "stretch",
        class_names=split.class_names,
        dataset_sha256=_dataset_sha256(split, layout),
        shuffle=shuffle,
        config=to_json(config),
    )
    if not (model_dir / _CONFIG_FILE).exists():
        return info
    there = load_run(model_dir)
    differing = [
        f"--{key}={_told(there.config, key)} there, {value} now"
        for key, value in config.determining().items()
        if _told(there.config, key) != value
    ]
    if there.shuffle != info.shuffle:
        differing.append(f"a {there.shuffle} shuffle there, a {info.shuffle} one now (see --reader and --shuffle)")
    if dataclasses.replace(there, config={}, shuffle="") != dataclasses.replace(info, config={}, shuffle=""):
        differing.append("the data set is another")
    if differing:
        raise UsageError(
            f"{model_dir} has another run: {'; '.join(differing)}. Choose another --model_dir, or remove it."
        )
    return info


def begin_run(model_dir: Path, info: RunInfo) -> None:
    """Creates the run's folder, unless it is there.

    Raises:
        UsageError: it cannot be made.
    """
    if (model_dir / _CONFIG_FILE).exists():
        return
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--model_dir={model_dir} cannot be made: {error.strerror}.") from None
    write_json(model_dir / _CONFIG_FILE, dataclasses.asdict(info))


@contextmanager
def locked(model_dir: Path) -> Iterator[None]:
    """Holds the run's folder, so that no second process writes into it; a killed process lets go of it by itself.

    Raises:
        UsageError: another process holds it.
    """

    def held(holder: str) -> UsageError:
        return UsageError(
            f"another process ({holder}) trains into {model_dir} just now. "
            "Wait for it, stop it, or choose another --model_dir."
        )

    with locked_file(model_dir / _LOCK_FILE, held):
        yield


@contextmanager
def writing(model_dir: Path) -> Iterator[None]:
    """Makes of a full disk an error that says what to do; what was there before is still there.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TrainingError(
            f"{model_dir} cannot be written to: {error.strerror}. What was saved before is whole. "
            "Make room, and give the same command again: it goes on from there."
        ) from None


def save_model(model_dir: Path, model: keras.Model) -> None:
    """Writes model.keras, whole or not at all."""
    temporary = model_dir / f"{TEMPORARY}{MODEL_FILE}"
    try:
        model.save(temporary)
        sync_file(temporary)
        temporary.rename(model_dir / MODEL_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    sync_dir(model_dir)


def save_folder(model_dir: Path, model: keras.Model, info: dict[str, Any]) -> None:
    """Writes a model that was not trained here, and what it needs to be told, as a new folder, whole or not at all.

    Raises:
        UsageError: the folder cannot be made.
        TrainingError: the disk is full.
    """
    try:
        with writing(model_dir), atomic_folder(model_dir) as folder:
            write_json(folder / _CONFIG_FILE, info)
            save_model(folder, model)
    except OSError as error:
        raise UsageError(f"--model_dir={model_dir} cannot be made: {error.strerror}.") from None


def load_run(model_dir: Path) -> RunInfo:
    """Returns what config.json of a run's folder says.

    Raises:
        ModelError: the folder is none of a run.
    """
    path = model_dir / _CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{model_dir} is no folder of a trained model: it has no {_CONFIG_FILE}. Train one with `simimg train`."
        )
    values = read_json(path, "the run's configuration")
    try:
        return RunInfo(**{**values, "class_names": tuple(values["class_names"])})
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path} lacks a part ({error}). Train the model again.") from None


def save_result(result: TrainResult) -> None:
    """Writes result.json, which says that the run is finished."""
    write_json(result.model_dir / RESULT_FILE, {**dataclasses.asdict(result), "model_dir": str(result.model_dir)})


def load_result(model_dir: Path) -> TrainResult:
    """Returns the figures of a finished run.

    Raises:
        ModelError: the folder is none of a run, or the run is not finished.
    """
    _check_trained(load_run(model_dir), model_dir)
    path = _finished(model_dir, RESULT_FILE)
    values = read_json(path, "the run's result")
    try:
        return TrainResult(**{**values, "model_dir": model_dir})
    except TypeError as error:
        raise ModelError(f"{path} is of another version of simimg ({error}). Train the model again.") from None


def load_model(model_dir: Path) -> tuple[keras.Model, RunInfo]:
    """Returns the trained model of a run's folder, and what it needs to be told.

    Raises:
        ModelError: the folder is none of a run, or the run is not finished.
    """
    info = load_run(model_dir)
    path = _finished(model_dir, MODEL_FILE)
    return keras.saving.load_model(path, compile=False), info


def load_trained(model_dir: Path) -> tuple[keras.Model, RunInfo]:
    """As `load_model`, of a model that was trained here.

    Raises:
        ModelError: also if its weights were imported for search.
    """
    _check_trained(load_run(model_dir), model_dir)
    return load_model(model_dir)


def _check_trained(info: RunInfo, model_dir: Path) -> None:
    if not info.class_names:
        raise ModelError(
            f"{model_dir} has a model that was imported for search: it knows no classes and was not trained here. "
            f"Use it with `simimg index --model={model_dir}`."
        )


def _finished(model_dir: Path, name: str) -> Path:
    """Returns the path of a file that a run has at its end; raises ModelError where it is not there."""
    path = model_dir / name
    if not path.is_file():
        raise ModelError(
            f"{model_dir} has no {name}: its training is not finished. Give the same `simimg train` again."
        )
    return path


def _dataset_sha256(split: Split, layout: Layout | None) -> str:
    if layout is None:
        return file_sha256(split.dataset_dir / INFO_FILE)
    shards = {name: [shard.sha256 for shard in shards] for name, shards in layout.splits.items()}
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()
