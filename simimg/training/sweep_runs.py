"""A sweep: training runs that differ by a grid of options, by the fold and by the seed, one after the other.

<sweep_dir>/sweep.json    what is swept; at the end also the figures of each combination
<sweep_dir>/NAME/         the folder of a run, see `simimg.training.run_folder`
<sweep_dir>/NAME.log      what the process of this run wrote
<sweep_dir>/report.html   the comparison of the finished runs
<sweep_dir>/.lock         held by the process that sweeps

1. Each run is a process of its own, which ends at once when the process that sweeps has ended, in whatever way.
2. A run is finished when its folder has its report, which is written last. A finished run is never started again.
3. An interrupted run resumes from its checkpoint when the same sweep is started again. So does a failed one.
4. A run that fails does not keep the others from running.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from simimg.child_process import run_logged
from simimg.errors import TrainingInterrupted, UsageError
from simimg.input import open_split, run_splits
from simimg.training.run_folder import REPORT_FILE, RESULT_FILE, folder_sha256
from simimg.training.train_config import TrainConfig
from tfrecords.format.atomic_files import locked_file, read_json, write_json
from tfrecords.format.layout import Layout
from tfrecords.format.naming import num_folds
from tfrecords.locations import url_of
from tfrecords.options import to_json
from tfrecords.storage.remote_dataset import local_dataset

SWEEP_FILE = "sweep.json"
_LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A run of a sweep: the name of its folder, its values of the grid as texts, and its options.

    `arguments` are those of `simimg train` for the same run.
    """

    name: str
    values: Mapping[str, str]
    config: TrainConfig
    arguments: tuple[str, ...]

    @property
    def model_dir(self) -> Path:
        """The folder of the run."""
        assert self.config.model_dir is not None
        return self.config.model_dir

    @property
    def state(self) -> str:
        """`finished`, `begun` or `new`."""
        if all((self.model_dir / name).is_file() for name in (RESULT_FILE, REPORT_FILE)):
            return "finished"
        return "begun" if self.model_dir.is_dir() else "new"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a sweep, in their order. `grid` has the values of each option that is varied, as texts."""

    folder: Path
    grid: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    folds: Sequence[int]
    runs: Sequence[SweepRun]

    def description(self) -> dict[str, Any]:
        """Returns what tells this sweep from another one, as values for JSON; opens the datasets.

        Raises:
            UsageError: a dataset does not exist, cannot be trained on, or has other folds.
        """
        datasets: dict[str, str] = {}
        for run in self.runs:
            if not {*run.config.dataset_names} - {*datasets}:
                continue
            # Of datasets at URLs no shard is read, as with --dry_run none is needed.
            folders = [local_dataset(location, "") for location in run.config.dataset_dirs]
            splits = run_splits(folders, run.config.fold)
            for name, folder in zip(run.config.dataset_names, folders, strict=True):
                there = num_folds(Layout.load(folder).splits) if Layout.exists(folder) else 0
                if len(self.folds) > 1 and there != len(self.folds):
                    raise UsageError(f"--folds={len(self.folds)}: {name} has {there} folds. Give --folds={there}.")
                datasets[name] = folder_sha256(
                    folder if url_of(name) else open_split(folder, splits["train"]).dataset_dir
                )
        aside = {*self.grid, "seed", "fold"}
        config = self.runs[0].config
        plain_options = to_json(config)
        options = {key: plain_options[key] for key in config.determining() if key not in aside}
        found = {
            "grid": self.grid, "seeds": self.seeds, "folds": self.folds, "options": options, "datasets": datasets,
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def check_sweep(sweep: Sweep, description: Mapping[str, Any]) -> None:
    """Raises UsageError if the folder has another sweep, or something else; names the difference."""
    path = sweep.folder / SWEEP_FILE
    if not path.is_file():
        is_file = sweep.folder.exists() and not sweep.folder.is_dir()
        if is_file or (sweep.folder.is_dir() and {child.name for child in sweep.folder.iterdir()} - {_LOCK_FILE}):
            raise UsageError(
                f"--sweep_dir={sweep.folder} exists and has no sweep. Choose another --sweep_dir, or remove it."
            )
        return
    values = read_json(path, "the description of a sweep")
    there = values.get("sweep", {}) if isinstance(values, dict) else {}
    differing = []
    if there.get("grid") != description["grid"]:
        differing.append(f"{_grid_text(there.get('grid') or {})} there, {_grid_text(description['grid'])} now")
    for name in ("seeds", "folds"):
        if there.get(name) != description[name]:
            before, now = (",".join(map(str, found)) for found in (there.get(name) or (), description[name]))
            differing.append(f"{name} {before or 'none'} there, {now or 'none'} now")
    old: dict[str, Any] = there.get("options") or {}
    new: dict[str, Any] = description["options"]
    # An option that is newer than the sweep has its default, which is off.
    default = {key: json.loads(json.dumps(getattr(TrainConfig, key, None))) for key in new}
    differing += [
        f"--{key}={old.get(key, default[key])} there, {value} now"
        for key, value in new.items()
        if old.get(key, default[key]) != value
    ]
    if there.get("datasets") != description["datasets"]:
        differing.append("the datasets are other ones")
    if differing:
        raise UsageError(
            f"{sweep.folder} has another sweep: {'; '.join(differing)}. Choose another --sweep_dir, or remove it."
        )


def sweeping(folder: Path) -> AbstractContextManager[object]:
    """Makes the folder of a sweep and holds its lock; raises UsageError if another process sweeps in it."""

    def held(holder: str) -> UsageError:
        return UsageError(
            f"another process ({holder}) is sweeping in {folder}. Wait for it, stop it, or choose another --sweep_dir."
        )

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--sweep_dir={folder} cannot be created: {error.strerror}.") from None
    return locked_file(folder / _LOCK_FILE, held)


def write_sweep(sweep: Sweep, description: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
    """Writes sweep.json atomically."""
    write_json(sweep.folder / SWEEP_FILE, {"sweep": description, "result": result})


def train_all(
    sweep: Sweep,
    module: str,
    stop: threading.Event,
    *,
    begin: Callable[[SweepRun], object] = lambda run: None,
    end: Callable[[SweepRun, str], object] = lambda run, error: None,
) -> dict[str, str]:
    """Runs what is not finished yet, one run after the other; returns the errors of those that failed, by name.

    Args:
        sweep: its folder is locked.
        module: trains with the arguments of `simimg train`, and calls `end_with_stdin`.
        stop: once it is set, the running process is asked to save and end, and no other one is started.
        begin: called before each run.
        end: called after each run with its error, empty if there is none. Also called for runs that were finished.

    Raises:
        TrainingInterrupted: `stop` was set.
    """
    failed: dict[str, str] = {}
    for run in sweep.runs:
        if run.state != "finished":
            log, code = sweep.folder / f"{run.name}.log", 0
            if not stop.is_set():
                begin(run)
                code = run_logged(module, *run.arguments, log=log, stop=stop)
            if stop.is_set() and run.state != "finished":
                num_finished = sum(other.state == "finished" for other in sweep.runs)
                raise TrainingInterrupted(
                    f"stopped with {num_finished} of {len(sweep.runs)} runs finished in {sweep.folder}. Give the same "
                    "command again to resume."
                )
            if code or run.state != "finished":
                failed[run.name] = _error_in(log, code)
        end(run, failed.get(run.name, ""))
    return failed


def _error_in(log: Path, code: int) -> str:
    """Returns the last message of a process that failed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("simimg: ") for line in lines if line.startswith("simimg: ")]
    how = f"ended with code {code}" if code >= 0 else f"was ended by signal {-code}"
    return said[-1] if said else f"the process {how}"


def _grid_text(grid: Mapping[str, Sequence[str]]) -> str:
    return " ".join(f"--grid={name}={','.join(values)}" for name, values in grid.items()) or "no --grid"
