"""Checkpoints: all that a run needs to go on as if it had not stopped, whole or not there.

    <model_dir>/checkpoints/<number>/state.npz         every variable of the model and of the optimizer
    <model_dir>/checkpoints/<number>/checkpoint.json   position, metrics, history, and the SHA-256 of state.npz

A folder is written under a temporary name, synced and renamed, so one that has its name is complete; if its bytes have
changed since, the one before is used.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simimg.errors import CheckpointError, DataError
from simimg.input import Position
from simimg.training.metrics import EpochMetrics
from tfrecords.format.files import TEMPORARY, file_sha256, read_json, sync_dir, write_json

__all__ = ["NUM_KEPT", "Progress", "restore_latest", "save"]

NUM_KEPT = 2


@dataclasses.dataclass(kw_only=True)
class Progress:
    """How far a run is: the next step, the sums of the epoch so far, a line an epoch, and the seconds it took."""

    position: Position = Position()
    metrics: EpochMetrics = dataclasses.field(default_factory=EpochMetrics)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def save(
    model_dir: Path, number: int, model: keras.Model, optimizer: keras.optimizers.Optimizer, progress: Progress
) -> None:
    """Writes a checkpoint and removes all but the newest `NUM_KEPT`.

    Args:
        model_dir: the run's folder.
        number: steps trained so far, which orders checkpoints.
        model: the model.
        optimizer: built for the model.
        progress: where the run is.
    """
    folder = model_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"*{TEMPORARY}*"):
        shutil.rmtree(leftover)
    final = folder / f"{number:08d}"
    temporary = folder / f".{final.name}{TEMPORARY}{os.getpid()}"
    temporary.mkdir()
    try:
        state = temporary / "state.npz"
        with open(state, "wb") as file:
            arrays: Any = {name: np.asarray(value.numpy()) for name, value in _variables(model, optimizer)}
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        write_json(temporary / "checkpoint.json", {"state_sha256": file_sha256(state), **dataclasses.asdict(progress)})
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_dir(folder)
    for old in sorted(folder.glob("[0-9]*"))[:-NUM_KEPT]:
        shutil.rmtree(old)


def restore_latest(
    model_dir: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer, warn: Callable[[str], None]
) -> Progress | None:
    """Restores the newest checkpoint that is sound into `model` and `optimizer`.

    Args:
        model_dir: the run's folder.
        model: of the same architecture as the one saved.
        optimizer: built for the model.
        warn: told of each damaged checkpoint that was passed over.

    Returns:
        Where the run was, or None where there is no checkpoint.

    Raises:
        CheckpointError: there are checkpoints but none is sound, or they are of another model.
    """
    folders = sorted((model_dir / "checkpoints").glob("[0-9]*"), reverse=True)
    for folder in folders:
        try:
            progress = _read(folder)
        except (DataError, OSError) as error:
            warn(f"{folder} is damaged and passed over: {error}")
            continue
        with np.load(folder / "state.npz") as state:
            _assign(folder, state, model, optimizer)
        return progress
    if folders:
        raise CheckpointError(
            f"{model_dir}: none of its {len(folders)} checkpoints is sound. Remove the folder to start again."
        )
    return None


def _read(folder: Path) -> Progress:
    values = read_json(folder / "checkpoint.json", "a checkpoint")
    try:
        if file_sha256(folder / "state.npz") != values["state_sha256"]:
            raise DataError(f"{folder / 'state.npz'} has changed since it was written")
        return Progress(
            position=Position(**values["position"]),
            metrics=EpochMetrics(**values["metrics"]),
            history=values["history"],
            seconds=values["seconds"],
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"checkpoint.json lacks a part ({error!r})") from None


def _variables(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[tuple[str, Any]]:
    # By number: Keras counts up the names of a second model or optimizer of one process.
    owners = (("model", model), ("optimizer", optimizer))
    return [
        (f"{owner}/{number:04d}", variable)
        for owner, holder in owners
        for number, variable in enumerate(holder.variables)
    ]


def _assign(folder: Path, state: Any, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    variables = dict(_variables(model, optimizer))
    if set(state.files) != set(variables):
        raise CheckpointError(f"{folder} is of another model or optimizer. Choose another --model_dir.")
    for name, variable in variables.items():
        if state[name].shape != tuple(variable.shape):
            raise CheckpointError(
                f"{folder}: {name} has the shape {state[name].shape}, the model {tuple(variable.shape)}. "
                "Choose another --model_dir."
            )
        variable.assign(state[name])
