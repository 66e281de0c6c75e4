"""Compare training runs.

Runs with equal options except for the seed (and the dataset that it split) and the fold form a group. A group is shown
with the mean and the standard deviation of the accuracy of its runs, or of the copy recall with --objective=similarity,
and with the options in which the groups differ. The runs of all folds are thus one cross-validation. --report also
draws the curves of all runs.

Example: simimg compare runs/photos-small-seed* runs/photos-lite0-seed*
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, quiet_tensorflow

with quiet_tensorflow():
    from simimg.api.run_report import FIGURES_FILE, changed_options
    from simimg.errors import ModelError, UsageError
    from simimg.models.model_folder import Objective
    from simimg.report.training_report import RunGroup, mean_deviation, write_comparison
    from simimg.training import RunInfo, TrainResult, load_result, load_run
from tfrecords.format.atomic_files import read_json
from tfrecords.options import option

JSON_KEYS = "split score groups"

_SEED = re.compile(r"([-_.]?fold[-_]?\d+)?([-_.]?(s|seed)[-_]?\d+)?$")
# Further figures of a run that are shown where all runs have them, by their keys in evaluation-SPLIT.json.
FIGURES = {
    "mean_per_class": "mean per class",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "calibration_error": "calibration error",
    "scaled_calibration_error": "calibration error with temperature",
}
# Options that neither change what a model learns nor deserve a column.
ASIDE = {
    "model_dir", "dataset_dir", "seed", "fold", "reader", "cache", "cache_dir", "cache_bytes", "checkpoint_every_s",
    "keep_checkpoints",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `compare`."""

    runs: tuple[str, ...] = option("Folders of finished runs.", positional=True)
    report: Path | None = option("Also write a page (HTML) with the curves of the runs.", None, output=True)


def run(options: Options) -> Result:
    """Compare the runs."""
    found: list[tuple[RunInfo, TrainResult]] = []
    for name in options.runs:
        try:
            found.append((load_run(Path(name)), load_result(Path(name))))
        except ModelError as error:
            note(f"skipped: {error}")
    if not found:
        raise UsageError("none of these folders has a finished run. Name folders that `simimg train` has finished.")
    objective = found[0][0].objective
    for info, result in found:
        if info.objective != objective:
            raise UsageError(
                f"{result.model_dir} and {found[0][1].model_dir} were trained with different objectives: the figure of "
                f"the first is its {info.objective.words}. Compare runs of one --objective."
            )
    split = common_split(found)
    groups = _groups(found, split)
    if options.report:
        write_comparison(
            groups,
            split,
            options.report,
            score=objective.score,
            words=objective.words,
            common=common_options(groups),
            figures=common_figures(groups),
        )
    values: dict[str, Any] = {
        "split": split,
        "score": objective.score,
        "groups": [group_json(group) for group in groups],
    }
    width = max(len(group.name) for group in groups)
    lines = [_text(group, width, f"{split} {objective.words}", objective.text) for group in groups]
    if options.report:
        lines.append(f"report: {options.report}")
    return Result(values=values, text="\n".join(lines), num_skipped=len(options.runs) - len(found), unit="run")


def common_split(found: Sequence[tuple[RunInfo, TrainResult]]) -> str:
    """Return the split on which all runs, of one objective, have their main figure: test, validation or train."""
    objective = found[0][0].objective
    measured = ("test", "validation")
    there = (name for name in measured if all(result.score(objective, name) is not None for _, result in found))
    return next(there, "train")


def run_group(
    members: Sequence[tuple[RunInfo, TrainResult]], split: str, *, name: str, unlike: Mapping[str, str]
) -> RunGroup:
    """Return runs with equal options as a group, with the figures that all of them have on a split."""
    members = sorted(members, key=lambda member: (_fold(member[0]), member[0].config["seed"]))
    folds = [_fold(info) for info, _ in members]
    paths = [result.model_dir / FIGURES_FILE.format(split) for _, result in members]
    measured = [read_json(path, "the figures of a run") if path.is_file() else {} for path in paths]
    return RunGroup(
        name=name,
        differs=_differing(members[0][0]),
        seeds=[info.config["seed"] for info, _ in members],
        histories=[result.history for _, result in members],
        scores=[result.score(info.objective, split) or 0.0 for info, result in members],
        seconds=[result.seconds for _, result in members],
        unlike=unlike,
        folds=folds if all(folds) else (),
        figures={
            key: [figures[key] for figures in measured]
            for key in FIGURES
            if all(figures.get(key) is not None for figures in measured)
        },
    )


def common_figures(groups: Sequence[RunGroup]) -> dict[str, str]:
    """Return the names of the figures that all groups have, by key."""
    return {key: name for key, name in FIGURES.items() if all(key in group.figures for group in groups)}


def common_options(groups: Sequence[RunGroup]) -> dict[str, str]:
    """Return the options that differ from those of the preset, and have the same value in all groups."""
    return {
        key: value
        for key, value in groups[0].differs.items()
        if key not in groups[0].unlike and all(group.differs.get(key) == value for group in groups)
    }


def group_json(group: RunGroup) -> dict[str, Any]:
    """Return a group as values for JSON, with means and deviations."""
    values = {**dataclasses.asdict(group), "mean": group.mean, "deviation": group.deviation}
    del values["histories"], values["unlike"]
    spread = {key: mean_deviation(scores) for key, scores in group.figures.items()}
    values["figures"] = {
        key: {"mean": mean, "deviation": deviation, "scores": list(group.figures[key])}
        for key, (mean, deviation) in spread.items()
    }
    return values


def _groups(found: list[tuple[RunInfo, TrainResult]], split: str) -> list[RunGroup]:
    kinds: dict[str, list[tuple[RunInfo, TrainResult]]] = {}
    for info, result in found:
        key = json.dumps([_options_of(info), info.class_names, bool(_fold(info))], sort_keys=True)
        kinds.setdefault(key, []).append((info, result))
    described = [_options_of(members[0][0]) for members in kinds.values()]
    names = dict.fromkeys(name for members in kinds.values() for name in _differing(members[0][0]))
    unlike = [name for name in names if len({str(options.get(name)) for options in described}) > 1]
    groups = []
    for members, options in zip(kinds.values(), described, strict=True):
        members.sort(key=lambda member: (_fold(member[0]), member[0].config["seed"]))
        folder = members[0][1].model_dir.name
        differing = {name: str(options.get(name, "–")) for name in unlike}
        groups.append(run_group(members, split, name=_SEED.sub("", folder, count=1) or folder, unlike=differing))
    return best_first(groups, found[0][0].objective)


def best_first(groups: Sequence[RunGroup], objective: Objective) -> list[RunGroup]:
    """Return the groups, the best first."""
    return sorted(groups, key=lambda group: group.mean if objective.lower_is_better else -group.mean)


def _fold(info: RunInfo) -> int:
    return int(info.config.get("fold", 0))


def _differing(info: RunInfo) -> dict[str, str]:
    """Return the preset of a run, and the options that differ from it."""
    return {"preset": info.config["preset"], **changed_options(_options_of(info))}


def _options_of(info: RunInfo) -> dict[str, Any]:
    options = {key: value for key, value in info.config.items() if key not in ASIDE}
    return {"image_size": info.image_size, "num_classes": len(info.class_names), **options}


def _text(group: RunGroup, width: int, what: str, shown: Callable[[float], str]) -> str:
    each = " ".join(map(shown, group.scores))
    spread = "" if group.deviation is None else f" (deviation {shown(group.deviation)})"
    differs = ", ".join(f"{key} {value}" for key, value in (group.unlike or group.differs).items())
    seconds = sum(group.seconds) / len(group.seconds)
    runs = "run" if len(group.seeds) == 1 else "runs"
    if group.folds:
        runs += (
            f" on {'fold' if len(set(group.folds)) == 1 else 'folds'} {', '.join(map(str, sorted(set(group.folds))))}"
        )
    return f"{group.name:<{width}}  {what} {shown(group.mean)}{spread} of {len(group.seeds)} {runs}: {each}; " + (
        f"{seconds:,.0f} s; {differs}" if differs else f"{seconds:,.0f} s"
    )
