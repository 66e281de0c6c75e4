"""Checkpoints: everything that a run needs to resume as if it had not stopped.

    <model_dir>/checkpoints/<number>/state.npz         every variable of the model, the optimizer and the average
    <model_dir>/checkpoints/<number>/checkpoint.json   position, metrics, history, configuration, and checksums

The number is the number of trained steps. A folder is written under a temporary name, synced and renamed, so a folder
with its final name is complete. If its bytes have changed since, the checkpoint before it is used, and the next one
that is saved sets the damaged ones aside as `damaged-<number>-…`. The newest checkpoints are kept, and the best one if
there is a validation split. No other name in the folder is read or removed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simimg.errors import CheckpointError, DataError, TrainingError
from simimg.input import Position
from simimg.models.keras_applications import finalize_states
from simimg.training.contrastive_loss import EmbeddingQueue
from simimg.training.metrics import EpochMetrics
from tfrecords.format.atomic_files import TEMPORARY, atomic_folder, file_sha256, parse_json, write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The best epoch on the split `validation`, counted from 1; the number of its checkpoint, and its figures."""

    epoch: int
    number: int
    score: float
    loss: float


@dataclasses.dataclass(kw_only=True)
class Progress:
    """The progress of a run."""

    position: Position = Position()  # the next step
    metrics: EpochMetrics = dataclasses.field(default_factory=EpochMetrics)  # of the epoch so far
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # the figures of each epoch
    best: Best | None = None  # the best epoch so far, if there is a validation split
    seconds: float = 0.0  # spent on training steps
    input_seconds: float = 0.0  # the part of it spent waiting for batches


@dataclasses.dataclass(frozen=True)
class State:
    """A run's variables: the model, its optimizer, and a second model that holds the average of the first's weights.

    `past` has the embeddings of past steps, if the run uses them.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    average: keras.Model | None = None
    past: EmbeddingQueue | None = None

    @property
    def kept(self) -> keras.Model:
        """The model that is measured, and saved at the end."""
        return self.average or self.model

    def copy_to_average(self) -> None:
        """Sets the average to the model's weights."""
        if self.average:
            self.average.set_weights(self.model.get_weights())
            finalize_states(self.average)

    def variables(self) -> dict[str, Any]:
        """Returns the variables by number; Keras's names differ for a second model in the same process."""
        return {
            f"{owner}/{number:04d}": variable
            for owner, holder in vars(self).items()
            if holder is not None
            for number, variable in enumerate(holder.variables)
        }


def save(
    model_dir: Path, number: int, state: State, progress: Progress, *, config: dict[str, Any], num_kept: int
) -> None:
    """Writes a checkpoint, and removes all but the newest `num_kept`, at least 1, and the best.

    `number` is the number of steps trained so far, and orders the checkpoints; those with a higher one are set aside.
    `config` has the run's options.

    Raises:
        TrainingError: a variable is NaN or infinite, as after a step that diverged; nothing is written.
    """
    arrays: Any = {name: np.asarray(variable.numpy()) for name, variable in state.variables().items()}
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays.values()):
        raise TrainingError(
            f"after step {number} some weights are NaN or infinite, so no checkpoint was saved. "
            "Try a smaller --learning_rate, or --clip_norm=1, in another --model_dir."
        )
    final = folder_of(model_dir, number)
    with atomic_folder(final) as temporary:
        np.savez(temporary / "state.npz", **arrays)
        digest = file_sha256(temporary / "state.npz")
        values = {"state_sha256": digest, **dataclasses.asdict(progress), "config": config}
        write_json(temporary / "checkpoint.json", {"sha256": _sha256(values), **values})
    for leftover in final.parent.glob(f".*{TEMPORARY}*"):
        shutil.rmtree(leftover)
    # The run went on from an older checkpoint than these, so they are damaged, and must not count as the newest ones.
    for damaged in (one for one in _numbers(model_dir) if one > number):
        _renamed(folder_of(model_dir, damaged), f"damaged-{damaged:08d}-")
    best = progress.best.number if progress.best else None
    for old in _numbers(model_dir)[:-num_kept]:
        if old != best:
            # Renamed first, so that no half-removed checkpoint is found if the process is killed meanwhile.
            shutil.rmtree(_renamed(folder_of(model_dir, old), f".{old:08d}{TEMPORARY}"))


def folder_of(model_dir: Path, number: int) -> Path:
    """Returns the folder of a checkpoint."""
    return model_dir / "checkpoints" / f"{number:08d}"


def restore_latest(model_dir: Path, state: State, warn: Callable[[str], None]) -> Progress | None:
    """Restores the newest undamaged checkpoint, and returns the progress of the run, or None without a checkpoint.

    `warn` is called with a sentence about each damaged checkpoint that is skipped.

    Raises:
        CheckpointError: all checkpoints are damaged, one cannot be read, or they are those of another model.
    """
    numbers = _numbers(model_dir)
    for number in reversed(numbers):
        folder = folder_of(model_dir, number)
        try:
            return restore(folder, state)
        except DataError as error:
            warn(f"{folder} is damaged and skipped: {error}")
    if numbers:
        raise CheckpointError(
            f"{model_dir}: all of its {len(numbers)} checkpoints are damaged. Remove the folder to start again."
        )
    return None


def restore(folder: Path, state: State) -> Progress:
    """Restores the checkpoint in `folder`, and returns the progress of the run.

    Raises:
        CheckpointError: the checkpoint is that of another model, or the system cannot read it.
        DataError: the checkpoint is damaged.
    """
    try:
        progress = _read(folder)
        with np.load(folder / "state.npz") as arrays:
            _assign(arrays, state.variables(), folder)
        for model in filter(None, (state.model, state.average)):
            finalize_states(model)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None
    except OSError as error:  # of the disk or the network: whether the checkpoint is damaged is not known
        raise CheckpointError(
            f"{folder} cannot be read: {error.strerror}. It may be undamaged: give the same command again when it can "
            "be read, or move it away to resume from the checkpoint before it."
        ) from None
    return progress


def _assign(arrays: Any, variables: dict[str, Any], folder: Path) -> None:
    if set(arrays.files) != set(variables):
        raise CheckpointError(f"{folder} belongs to another model or optimizer. Choose another --model_dir.")
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise CheckpointError(
                f"{folder}: {name} has the shape {arrays[name].shape}, but the model has {tuple(variable.shape)}. "
                "Choose another --model_dir."
            )
        variable.assign(arrays[name])


def _read(folder: Path) -> Progress:
    path = folder / "checkpoint.json"
    try:
        values = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    try:
        if values.pop("sha256") != _sha256(values):
            raise DataError(f"{path} has changed since it was written")
        if file_sha256(folder / "state.npz") != values["state_sha256"]:
            raise DataError(f"{folder / 'state.npz'} has changed since it was written")
        return Progress(
            position=Position(**values["position"]),
            metrics=EpochMetrics(**values["metrics"]),
            history=values["history"],
            best=Best(**values["best"]) if values["best"] else None,
            seconds=values["seconds"],
            input_seconds=values["input_seconds"],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"checkpoint.json lacks a part ({error!r})") from None


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _numbers(model_dir: Path) -> list[int]:
    """Returns the numbers of the checkpoints, in ascending order."""
    names = [path.name for path in (model_dir / "checkpoints").glob("*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and name == f"{int(name):08d}")


def _renamed(folder: Path, prefix: str) -> Path:
    """Gives a folder a name that nothing has, and returns its new path."""
    return folder.rename(folder.with_name(f"{prefix}{secrets.token_hex(4)}"))
