"""Put training runs side by side.

Runs that were told the same but for their seed (and their data, dealt by it) are one kind: what is shown of it is the
mean accuracy (copy recall, of runs with --objective=similarity) and the standard deviation of its runs. Also draws
their curves into a report.

Example: simimg compare runs/photos-small-seed* runs/photos-lite0-seed*
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from simimg.commands.console import Result, note, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import ModelError, UsageError
    from simimg.presets import preset_options
    from simimg.report import RunGroup, write_comparison
    from simimg.training import RunInfo, TrainConfig, TrainResult, load_result, load_run
from tfrecords.options import option

_SEED = re.compile(r"[-_.]?(s|seed)[-_]?\d+$")
# Neither decides what is learned nor is worth a column.
_ASIDE = {"model_dir", "dataset_dir", "seed", "reader", "cache", "checkpoint_every_s", "keep_checkpoints"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `compare` can be told."""

    runs: tuple[str, ...] = option("Folders of finished runs.", positional=True)
    report: Path | None = option("Also write a report with the runs' curves: an HTML file.", None)


def run(options: Options) -> Result:
    """Compares."""
    found: list[tuple[RunInfo, TrainResult]] = []
    for name in options.runs:
        try:
            found.append((load_run(Path(name)), load_result(Path(name))))
        except ModelError as error:
            note(f"left out: {error}")
    if not found:
        raise UsageError("none of these folders has a finished run.")
    objective = found[0][0].objective
    for info, result in found:
        if info.objective != objective:
            raise UsageError(
                f"{result.model_dir} learned something else than {found[0][1].model_dir}: its figure is a "
                f"{info.objective.words}. Compare runs of one --objective."
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
        write_comparison(groups, split, options.report, score=objective.score, words=objective.words)
    values: dict[str, Any] = {
        "split": split,
        "score": objective.score,
        "groups": [{**dataclasses.asdict(group), "mean": group.mean, "deviation": group.deviation} for group in groups],
    }
    for group in values["groups"]:
        del group["histories"]
    width = max(len(group.name) for group in groups)
    lines = [_text(group, width, f"{split} {objective.words}") for group in groups]
    if options.report:
        lines.append(f"report: {options.report}")
    return Result(values=values, text="\n".join(lines), exit_code=0 if len(found) == len(options.runs) else 2)


def _groups(found: list[tuple[RunInfo, TrainResult]], split: str) -> list[RunGroup]:
    kinds: dict[str, list[tuple[RunInfo, TrainResult]]] = {}
    for info, result in found:
        key = json.dumps([_told(info), info.class_names], sort_keys=True)
        kinds.setdefault(key, []).append((info, result))
    groups = []
    for members in kinds.values():
        members.sort(key=lambda member: member[0].config["seed"])
        groups.append(
            RunGroup(
                name=_SEED.sub("", members[0][1].model_dir.name) or members[0][1].model_dir.name,
                differs=_differing(members[0][0]),
                seeds=[info.config["seed"] for info, _ in members],
                histories=[result.history for _, result in members],
                scores=[result.score(info.objective, split) or 0.0 for info, result in members],
                seconds=[result.seconds for _, result in members],
            )
        )
    return sorted(groups, key=lambda group: -group.mean)


def _differing(info: RunInfo) -> dict[str, str]:
    """Returns the preset of a run, and what it was told otherwise than by that."""
    ordinary = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    ordinary |= preset_options(info.config["preset"])
    told = {key: str(value) for key, value in _told(info).items() if value != ordinary.get(key)}
    return {"preset": info.config["preset"], **told}


def _told(info: RunInfo) -> dict[str, Any]:
    options = {key: value for key, value in info.config.items() if key not in _ASIDE}
    return {"image_size": info.image_size, "num_classes": len(info.class_names), **options}


def _text(group: RunGroup, width: int, what: str) -> str:
    each = " ".join(f"{value:.4f}" for value in group.scores)
    spread = "" if group.deviation is None else f" (deviation {group.deviation:.4f})"
    told = ", ".join(f"{key} {value}" for key, value in group.differs.items())
    seconds = sum(group.seconds) / len(group.seconds)
    return f"{group.name:<{width}}  {what} {group.mean:.4f}{spread} of {len(group.seeds)}: {each}; {seconds:,.0f} s" + (
        f"; {told}" if told else ""
    )
