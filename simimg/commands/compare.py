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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, quiet_tensorflow

with quiet_tensorflow():
    from simimg.api.run_report import changed_options
    from simimg.errors import ModelError, UsageError
    from simimg.report.training_report import RunGroup, write_comparison
    from simimg.training import RunInfo, TrainResult, load_result, load_run
from tfrecords.options import option

JSON_KEYS = "split score groups"

_SEED = re.compile(r"([-_.]?fold[-_]?\d+)?([-_.]?(s|seed)[-_]?\d+)?$")
# Options that neither change what a model learns nor deserve a column.
_ASIDE = {"model_dir", "dataset_dir", "seed", "fold", "reader", "cache", "checkpoint_every_s", "keep_checkpoints"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `compare`."""

    runs: tuple[str, ...] = option("Folders of finished runs.", positional=True)
    report: Path | None = option("Also write a page (HTML) with the curves of the runs.", None)


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
    split = next(
        (
            name
            for name in ("test", "validation")
            if all(result.score(objective, name) is not None for _, result in found)
        ),
        "train",
    )
    groups = _groups(found, split)
    if options.report:
        common = {
            key: value
            for key, value in groups[0].differs.items()
            if key not in groups[0].unlike and all(group.differs.get(key) == value for group in groups)
        }
        write_comparison(groups, split, options.report, score=objective.score, words=objective.words, common=common)
    values: dict[str, Any] = {
        "split": split,
        "score": objective.score,
        "groups": [{**dataclasses.asdict(group), "mean": group.mean, "deviation": group.deviation} for group in groups],
    }
    for group in values["groups"]:
        del group["histories"], group["unlike"]
    width = max(len(group.name) for group in groups)
    lines = [_text(group, width, f"{split} {objective.words}", objective.text) for group in groups]
    if options.report:
        lines.append(f"report: {options.report}")
    return Result(values=values, text="\n".join(lines), num_skipped=len(options.runs) - len(found), unit="run")


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
        folds = [_fold(info) for info, _ in members]
        groups.append(
            RunGroup(
                name=_SEED.sub("", members[0][1].model_dir.name, count=1) or members[0][1].model_dir.name,
                differs=_differing(members[0][0]),
                seeds=[info.config["seed"] for info, _ in members],
                histories=[result.history for _, result in members],
                scores=[result.score(info.objective, split) or 0.0 for info, result in members],
                seconds=[result.seconds for _, result in members],
                unlike={name: str(options.get(name, "–")) for name in unlike},
                folds=folds if all(folds) else (),
            )
        )
    sign = 1 if found[0][0].objective.lower_is_better else -1
    return sorted(groups, key=lambda group: sign * group.mean)


def _fold(info: RunInfo) -> int:
    return int(info.config.get("fold", 0))


def _differing(info: RunInfo) -> dict[str, str]:
    """Return the preset of a run, and the options that differ from it."""
    return {"preset": info.config["preset"], **changed_options(_options_of(info))}


def _options_of(info: RunInfo) -> dict[str, Any]:
    options = {key: value for key, value in info.config.items() if key not in _ASIDE}
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
