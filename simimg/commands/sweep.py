"""Train with several seeds, folds and options, and compare.

Takes the flags of `simimg train`, and trains once for each combination of the values of --grid, each fold and each
seed. The runs are made one after the other, each in a process of its own and in a folder of its own below SWEEP_DIR,
on all GPUs of the machine. All flags are checked before the first run. The same command goes on after an interruption
or a kill: finished runs are kept, and an interrupted one resumes from its checkpoint. A run that fails does not stop
the others; the same command tries it again.

At the end there is one table with the mean and the standard deviation of each combination, also in SWEEP_DIR/sweep.json
and as SWEEP_DIR/report.html. The exit code is 1 if some runs failed, and 3 if all did.

Where each seed has a dataset of its own, write {seed} in --dataset_dir.

Example: simimg sweep --dataset_dir=data/photos/1.0.0 --preset=small --seeds=5 --grid lr=0.01,0.03 --grid epochs=30,60
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simimg import cli
from simimg.command_help import flag_name
from simimg.commands import train as train_command
from simimg.commands.compare import (
    ASIDE,
    best_first,
    common_figures,
    common_options,
    common_split,
    group_json,
    run_group,
)
from simimg.commands.console import PROBLEM, Result, note, progress_bar, quiet_tensorflow

with quiet_tensorflow():
    from simimg.child_process import end_with_stdin
    from simimg.errors import TrainingError, UsageError
    from simimg.report.training_report import RunGroup, mean_deviation, write_comparison
    from simimg.signals import stop_requested
    from simimg.training import TrainConfig, load_result, load_run, workers
    from simimg.training.sweep_runs import (
        Sweep,
        SweepRun,
        check_sweep,
        sweeping,
        train_all,
        write_sweep,
    )
from tfrecords.locations import location_text
from tfrecords.options import option

JSON_KEYS = "sweep_dir runs split score groups failed report"

_SEED = "{seed}"
_SHORT = {"lr": "learning_rate"}
_OWN_FLAGS = {"seed": "--seeds", "fold": "--folds", "model_dir": "--sweep_dir", "config": "--config"}
_MAX_NAME = 100  # characters of a run's folder
_MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(train_command.Options):
    """Options of `sweep`: those of `train`, and what is varied."""

    model_dir: Path | None = option("Not for a sweep, which has a folder per run in --sweep_dir.", None)
    seeds: int = option("Train with so many seeds, from --seed on.", 1)
    folds: int = option(
        "Of a dataset made with `convert --folds`: its number of folds, each of which is tested on once.",
        0,
        words={"off": 0},
    )
    grid: tuple[str, ...] = option(
        "A flag of `train` and the values to try, separated by commas, or by semicolons if a value has commas; lr is "
        "learning_rate. Give the flag several times to try all combinations.",
        (),
        repeated="FLAG=A,B,…",
    )
    sweep_dir: Path | None = option(
        "Folder of the sweep; by default runs/NAME-PRESET-sweep, NAME being the dataset's.", None
    )
    dry_run: bool = option("List the runs with their commands, and do nothing.", False)


_SWEEP_ONLY = {field.name for field in dataclasses.fields(Options)} - {
    field.name for field in dataclasses.fields(train_command.Options)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved(Options):
    """The options, and the sweep that they make."""

    sweep: Sweep = dataclasses.field(compare=False)


def resolve(given: dict[str, Any]) -> Resolved:
    """Make the options of every run; raise UsageError if one of them cannot be used."""
    own = {name: value for name, value in given.items() if name in _SWEEP_ONLY}
    train = {name: value for name, value in given.items() if name not in _SWEEP_ONLY}
    seeds, folds = own.get("seeds", 1), own.get("folds", 0)
    if seeds < 1:
        raise UsageError(f"--seeds={seeds}: should be 1 or more.")
    if folds < 0 or folds == 1:
        raise UsageError(f"--folds={folds}: should be 2 or more, or 0 for a dataset without folds.")
    if folds and train.get("fold"):
        raise UsageError(f"--folds={folds} tests on every fold. Leave out --fold={train['fold']}.")
    if train.get("model_dir"):
        raise UsageError(f"--model_dir={train['model_dir']} is the folder of one run. Give --sweep_dir instead.")
    grid = parse_grid(own.get("grid", ()), train)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    configs = [_config({**train, **{name: value for name, (_, value) in point.items()}}) for point in points]
    first = configs[0]
    for (one, config), (two, other) in itertools.combinations(zip(points, configs, strict=True), 2):
        if config == other:
            raise UsageError(f"{_grid_text(one)} and {_grid_text(two)} are the same run. Give each once.")
        if config.objective != other.objective:
            raise UsageError(
                f"{_grid_text(one)} and {_grid_text(two)} have different objectives, whose figures cannot be compared. "
                "Make a sweep for each."
            )
    if first.seed + seeds - 1 > _MAX_SEED:
        raise UsageError(f"--seed={first.seed}: with --seeds={seeds}, the last one would be above {_MAX_SEED}.")
    folder = own.get("sweep_dir") or Path("runs") / f"{_dataset_name(first)}-{first.preset}-sweep"
    all_seeds = range(first.seed, first.seed + seeds)
    all_folds = list(range(1, folds + 1)) or [first.fold]
    names = _names(points, first.preset)
    runs = []
    for seed, fold, (name, point) in itertools.product(all_seeds, all_folds, zip(names, points, strict=True)):
        name = f"{name}-fold{fold}-seed{seed}" if fold else f"{name}-seed{seed}"
        values = {**train, **{key: value for key, (_, value) in point.items()}}
        values |= {"seed": seed, "model_dir": folder / name, **({"fold": fold} if fold else {})}
        values["dataset_dir"] = _of_seed(first.dataset_dir, seed)
        shown = {key: text for key, (text, _) in point.items()}
        runs.append(SweepRun(name=name, values=shown, config=_config(values), arguments=_arguments(values)))
    texts = {key: [text for text, _ in found] for key, found in grid.items()}
    sweep = Sweep(folder=folder, grid=texts, seeds=list(all_seeds), folds=[f for f in all_folds if f], runs=runs)
    return Resolved(**{**vars(first), **own, "config": train.get("config"), "sweep": sweep})


def parse_grid(texts: Sequence[str], given: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """Return the values of each option of --grid, as texts and as `simimg train` takes them.

    Raises:
        UsageError: there is no such flag, or a value is not one of its values; or the flag is not for a grid.
    """
    fields = {flag_name(field): field.name for field in dataclasses.fields(train_command.Options)}
    grid: dict[str, list[tuple[str, Any]]] = {}
    for text in texts:
        flag, equals, listed = text.partition("=")
        flag = flag.strip().lstrip("-")
        flag = _SHORT.get(flag, flag)
        values = [value.strip() for value in listed.split(";" if ";" in listed else ",")]
        if not equals or not all(values):
            raise UsageError(f"--grid={text}: should be FLAG=VALUE,VALUE,…, e.g. --grid learning_rate=0.01,0.03.")
        name = fields.get(flag, flag)
        if name in _OWN_FLAGS:
            raise UsageError(f"--grid={text}: {_OWN_FLAGS[name]} is for that. Leave it out of the grid.")
        if name == "dataset_dir":
            raise UsageError(f"--grid={text}: a sweep is made on one dataset. Make another sweep for another dataset.")
        if name in ASIDE:
            raise UsageError(f"--grid={text}: --{flag} does not change what a run learns. Leave it out of the grid.")
        try:
            parsed = [cli.parse_flags("train", train_command.Options, [f"--{flag}={value}"]) for value in values]
        except UsageError as error:
            raise UsageError(f"--grid={text}: {error}") from None
        if any(len(one) != 1 for one in parsed):  # --json and others that all commands have
            raise UsageError(f"--grid={text}: --{flag} is no option of a run. Leave it out of the grid.")
        (name,) = parsed[0]
        if name in grid:
            raise UsageError(f"--grid={text}: --{flag} is in the grid twice. Give all of its values at once.")
        if name in given:
            raise UsageError(f"--grid={text}: --{flag}={given[name]} is given, too. Leave out one of them.")
        found = [(value, one[name]) for value, one in zip(values, parsed, strict=True)]
        if len({str(value) for _, value in found}) < len(found):
            raise UsageError(f"--grid={text}: has a value twice. Give each once; --seeds repeats runs.")
        grid[name] = found
    return grid


def run(options: Resolved) -> Result:
    """Make the runs that are not finished, with a progress bar, and compare all of them."""
    sweep = options.sweep
    if workers().count > 1:
        raise UsageError("TF_CONFIG names several workers, and a sweep trains on one machine. Unset TF_CONFIG.")
    description = sweep.description()
    check_sweep(sweep, description)
    if options.dry_run:
        return _listed(sweep)
    with sweeping(sweep.folder):
        check_sweep(sweep, description)
        write_sweep(sweep, description)
        numbers = {each.name: f"run {number} of {len(sweep.runs)}" for number, each in enumerate(sweep.runs, 1)}
        with progress_bar(len(sweep.runs), "sweeping", unit="run") as bar, stop_requested() as stop:

            def end(of: SweepRun, error: str) -> None:
                note(f"{of.name} failed: {error}" if error else _figure_line(of))
                bar.update()

            failed = train_all(sweep, __name__, stop, begin=lambda of: note(f"{numbers[of.name]}: {of.name}"), end=end)
        if len(failed) == len(sweep.runs):
            name, error = next(iter(failed.items()))
            raise TrainingError(
                f"all {len(failed)} runs failed; {name}: {error} {sweep.folder / name}.log has what it wrote."
            )
        result = _compared(sweep, failed)
        write_sweep(sweep, description, result.values)
    return result


def _config(given: Mapping[str, Any]) -> TrainConfig:
    return train_command.resolve(dict(given))


def _of_seed(folder: Any, seed: int) -> Any:
    if isinstance(folder, tuple):
        return tuple(_of_seed(one, seed) for one in folder)
    return Path(str(folder).replace(_SEED, str(seed)))


def _dataset_name(config: TrainConfig) -> str:
    name = config.dataset_dirs[0].absolute().parent.name.replace(_SEED, "")
    return re.sub(r"[-_.]+$", "", name) or "dataset"


def _names(points: Sequence[Mapping[str, tuple[str, Any]]], preset: str) -> list[str]:
    """Return a part of the name of a folder for each point of the grid."""
    if not points[0]:
        return [preset]
    names = ["-".join(key + re.sub(r"[^\w.]+", "_", text) for key, (text, _) in point.items()) for point in points]
    if len(set(names)) < len(names) or max(map(len, names)) > _MAX_NAME:
        return [f"point{number}" for number in range(1, len(points) + 1)]
    return names


def _arguments(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags of `simimg train` for some of its options."""
    flags = {field.name: flag_name(field) for field in dataclasses.fields(train_command.Options)}
    found = []
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            found.append(
                f"--{'' if one is not False else 'no'}{flags[name]}"
                + ("" if isinstance(one, bool) else f"={location_text(one)}")
            )
    return tuple(found)


def _grid_text(point: Mapping[str, tuple[str, Any]]) -> str:
    return " ".join(f"--{name}={text}" for name, (text, _) in point.items())


def _listed(sweep: Sweep) -> Result:
    runs = [
        {"run": each.name, "state": each.state, "command": shlex.join(["simimg", "train", *each.arguments])}
        for each in sweep.runs
    ]
    lines = [f"{len(runs)} runs in {sweep.folder}", *(f"{each['state']:<8}  {each['command']}" for each in runs)]
    return Result(values={"sweep_dir": str(sweep.folder), "runs": runs}, text="\n".join(lines))


def _figure_line(of: SweepRun) -> str:
    info, result = load_run(of.model_dir), load_result(of.model_dir)
    split = common_split([(info, result)])
    score = result.score(info.objective, split)
    shown = "-" if score is None else info.objective.text(score)
    return f"{of.name}: {split} {info.objective.words} {shown}, {result.seconds:,.0f} s"


def _compared(sweep: Sweep, failed: Mapping[str, str]) -> Result:
    """Return the groups of the finished runs, the best first, and write the report."""
    members: dict[tuple[str, ...], list[SweepRun]] = {}
    for each in sweep.runs:
        if each.name not in failed:
            members.setdefault(tuple(each.values.values()), []).append(each)
    found = {
        key: [(load_run(each.model_dir), load_result(each.model_dir)) for each in runs] for key, runs in members.items()
    }
    every = [one for runs in found.values() for one in runs]
    objective = every[0][0].objective
    split = common_split(every)
    groups = best_first(
        [
            run_group(runs, split, name=_point_text(members[key][0]), unlike=dict(members[key][0].values))
            for key, runs in found.items()
        ],
        objective,
    )
    further = common_figures(groups)
    report = sweep.folder / "report.html"
    write_comparison(
        groups,
        split,
        report,
        score=objective.score,
        words=objective.words,
        common=common_options(groups),
        figures=further,
        failed=failed,
        title=sweep.folder.name,
    )
    values = {
        "sweep_dir": str(sweep.folder),
        "runs": [{"run": each.name, "state": "failed" if each.name in failed else each.state} for each in sweep.runs],
        "split": split,
        "score": objective.score,
        "groups": [group_json(group) for group in groups],
        "failed": dict(failed),
        "report": str(report),
    }
    lines = [f"{split} {objective.words}, mean (standard deviation) of {len(every)} runs", *_table(groups, further)]
    lines += [f"failed: {name}: {error}" for name, error in failed.items()]
    lines.append(f"report: {report}")
    return Result(values=values, text="\n".join(lines), exit_code=PROBLEM if failed else 0)


def _point_text(of: SweepRun) -> str:
    return " ".join(f"{name}={text}" for name, text in of.values.items()) or of.config.preset


def _table(groups: Sequence[RunGroup], further: Mapping[str, str]) -> list[str]:
    """Return the groups as rows of aligned columns."""
    rows = [["", "runs", "main figure", *further.values(), "s per run", "each run"]]
    for group in groups:
        figures = [group.scores, *(group.figures[key] for key in further)]
        seconds = sum(group.seconds) / len(group.seconds)
        each = " ".join(f"{score:.4g}" for score in group.scores)
        rows.append([group.name, str(len(group.scores)), *map(_spread_text, figures), f"{seconds:,.0f}", each])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _spread_text(values: Sequence[float]) -> str:
    mean, deviation = mean_deviation(values)
    return f"{mean:.4g}" if deviation is None else f"{mean:.4g} ({deviation:.2g})"


if __name__ == "__main__":
    end_with_stdin()
    sys.exit(cli.main(["train", *sys.argv[1:]]))
