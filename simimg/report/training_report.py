"""The reports of a training run, of its evaluation, and of several runs compared: HTML files for any browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.report.charts import NUM_RUN_COLORS, runs_svg
from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, figure, page, path_text, section, tiles
from simimg.report.number_format import count_of, duration, percent, points
from simimg.report.report_sections import curves, machine_section, measured, option_tables, table

if TYPE_CHECKING:  # the module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures
    from simimg.evaluation.label_figures import MultiLabelFigures, RegressionFigures


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingContent:
    """The content of the report of a run. All texts are plain text; HTML in them is escaped."""

    name: str
    dataset: str  # what the run was trained on, in words
    model_dir: str
    command: str  # repeats the run
    split: str  # the split that was measured; "" where there is only the one for training
    classification: Classification | None  # of the weights that are kept; None without such a split, or without classes
    mistakes: Sequence[Tile]  # images that the model got wrong, as `report_sections.measured` takes them
    history: Sequence[dict[str, Any]]  # one dict per epoch, as `TrainResult.history`
    epoch: int  # the epoch, from 1, whose weights are kept; 0 where only a softmax was fitted
    facts: Mapping[str, str]  # figures of the run by what they count, e.g. {"images/s": "533"}
    augmented: Sequence[Sequence[Tile]]  # one row per image: as stored, and as the network saw it in the first epochs
    options: Mapping[str, str]  # all options of the run
    machine: Mapping[str, str]
    changed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # options that differ from the preset's
    copies: CopyFigures | None = None  # of a model that was trained for copies
    labels: MultiLabelFigures | None = None  # of one for several labels per image
    targets: RegressionFigures | None = None  # of one for numbers
    binary_loss: bool = False  # whether the model was trained with one


def write_training_report(content: TrainingContent, path: Path) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete, and makes its folder."""
    first, shown = measured(
        content.classification,
        content.copies,
        content.mistakes,
        content.split,
        binary_loss=content.binary_loss,
        labels=content.labels,
        targets=content.targets,
    )
    kept = f"Kept: the weights after epoch {content.epoch} of {len(content.history)}."
    course = curves(content.history)
    if not content.epoch:
        kept, course = "A softmax was fitted to the features of the pretrained network, so there were no epochs.", ""
    rows = "".join(tiles(row, "seen") for row in content.augmented)
    augmented = f'<p class="quiet">Each image as it is stored, then as the network saw it in each epoch.</p>{rows}'
    html = page(
        content.name,
        about=[escape(content.dataset), path_text(content.model_dir)],
        headline=first + "".join(figure(value, name) for name, value in content.facts.items()),
        sections=[
            section("training", f"<p>{escape(kept)}</p>", command(content.command) + course),
            section("evaluation", "", shown),
            section("images", "", augmented) if content.augmented else "",
            section("options", "", option_tables(content.options, content.changed)),
            machine_section(content.machine),
        ],
    )
    write_bytes(path, html)


def write_evaluation_report(
    figures: Classification | None,
    copies: CopyFigures | None,
    mistakes: Sequence[Tile],
    path: Path,
    *,
    split: str,
    model_dir: str,
    dataset_dir: str,
    machine: Mapping[str, str],
    binary_loss: bool = False,
    labels: MultiLabelFigures | None = None,
    targets: RegressionFigures | None = None,
) -> None:
    """Writes the report of a model on one split as the HTML file `path`, which has its name only when it is complete.

    The figures are those of `report_sections.measured`.
    """
    first, shown = measured(figures, copies, mistakes, split, binary_loss=binary_loss, labels=labels, targets=targets)
    html = page(
        Path(model_dir).name,
        about=[path_text(dataset_dir), path_text(model_dir)],
        headline=first,
        sections=[section("evaluation", "", shown), machine_section(machine)],
    )
    write_bytes(path, html)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs with equal options except for the seed and the fold that they test on."""

    name: str  # the folder's name without the seed
    differs: Mapping[str, str]  # the preset, and the options that differ from it, e.g. {"epochs": "8"}
    seeds: Sequence[int]  # one per run
    histories: Sequence[Sequence[dict[str, Any]]]  # one per run, as `TrainResult.history`
    scores: Sequence[float]  # one per run: its accuracy, or another main figure, on the split that is compared
    seconds: Sequence[float]  # one per run, of training
    # The options in which the groups of a comparison differ, with their values in this group.
    unlike: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folds: Sequence[int] = ()  # one per run, from 1; empty unless the dataset has folds
    figures: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)  # further ones, one per run each

    @property
    def mean(self) -> float:
        """The mean score."""
        return mean_deviation(self.scores)[0]

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the scores; None of a single run."""
        return mean_deviation(self.scores)[1]


def mean_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean of values and their sample standard deviation, which is None of a single value."""
    mean, count = sum(values) / len(values), len(values)
    if count < 2:
        return mean, None
    return mean, float((sum((value - mean) ** 2 for value in values) / (count - 1)) ** 0.5)


def write_comparison(
    groups: Sequence[RunGroup],
    split: str,
    path: Path,
    *,
    score: str = "accuracy",
    words: str = "accuracy",
    common: Mapping[str, str] | None = None,
    figures: Mapping[str, str] | None = None,
    failed: Mapping[str, str] | None = None,
    title: str = "Runs compared",
) -> None:
    """Writes the report of a comparison as the HTML file `path`, which has its name only when it is complete.

    There is at least one group; the best is the first. The scores of `split` have the key `score` in a history, and are
    called `words`. `common` are options that differ from the defaults and have the same value in all groups. `figures`
    are the names of further figures of all groups, by key. `failed` are the errors of runs that failed, by name.
    """
    further = figures or {}
    num_runs = sum(len(group.seeds) for group in groups)
    names = list(dict.fromkeys(name for group in groups for name in group.unlike))
    columns = "".join(f"<th>{escape(name)}</th>" for name in names)
    head = (
        f'<tr><th>Runs</th><th class="num">{escape(words.capitalize())}, {escape(split)}</th>'
        f'<th class="num">Deviation</th>{columns}'
        + "".join(f'<th class="num">{escape(name[:1].upper() + name[1:])}</th>' for name in further.values())
        + '<th class="num">Each run</th><th class="num">Training</th></tr>'
    )
    is_share = not score.endswith("_error")
    rows = "".join(_row(number, group, names, list(further), is_share=is_share) for number, group in enumerate(groups))
    shared = f"<h3>In all of them</h3>{table(common)}" if common else ""
    note = (
        "A deviation is that of the runs of one group, which differ by their seed or their fold alone. Smaller "
        "differences between groups mean little."
    )
    errors = f"<h3>Failed runs</h3>{table(failed)}" if failed else ""
    charts = ""
    drawn = groups[:NUM_RUN_COLORS]
    for name, key, share in ((words.capitalize(), f"{split}_{score}", is_share), ("Loss", f"{split}_loss", False)):
        lines = [[points(history, key) for history in group.histories] for group in drawn]
        if chart := runs_svg(name, lines, share=share):
            charts += f"<div><h3>{escape(name)}, {escape(split)}</h3>{chart}</div>"
    more = f" Only the first {len(drawn)} groups are drawn." if len(groups) > len(drawn) else ""
    legend = f'<p class="quiet">One curve per run. Letters and colors are those of the table.{more}</p>'
    html = page(
        title,
        subtitle=f"{count_of(num_runs, 'run', 'runs')} in {count_of(len(groups), 'group', 'groups')}",
        sections=[
            section(
                words,
                "",
                f'<div class="scroll"><table class="runs"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
                f'<p class="quiet">{note}</p>{errors}{shared}',
            ),
            section("curves", "", charts and f'<div class="curves">{charts}</div>{legend}'),
        ],
    )
    write_bytes(path, html)


def _row(number: int, group: RunGroup, names: Sequence[str], figures: Sequence[str], *, is_share: bool) -> str:
    key = f'<b class="key of{number}">{chr(ord("A") + number)}</b> ' if number < NUM_RUN_COLORS else ""
    values = "".join(f"<td>{escape(group.unlike.get(name, '–'))}</td>" for name in names)
    each, mean = ", ".join(percent(value, 1) for value in group.scores), percent(group.mean, 1)
    deviation = "–" if group.deviation is None else f"{100 * group.deviation:.1f}"
    if not is_share:
        each, mean = ", ".join(f"{value:.4g}" for value in group.scores), f"{group.mean:.4g}"
        deviation = "–" if group.deviation is None else f"{group.deviation:.2g}"
    seconds = sum(group.seconds) / len(group.seconds)
    for name in figures:
        middle, off = mean_deviation(group.figures[name])
        values += f'<td class="num">{percent(middle, 1)}{"" if off is None else f" ± {100 * off:.1f}"}</td>'
    return (
        f'<tr><td>{key}{escape(group.name)}</td><td class="num"><b>{mean}</b></td>'
        f'<td class="num">{deviation}</td>{values}<td class="num">{each}</td>'
        f'<td class="num">{duration(seconds)}</td></tr>'
    )
