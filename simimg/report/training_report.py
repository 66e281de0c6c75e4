"""The report of a training run, and of several side by side, as HTML files that need nothing but a browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, page, path_text, section, tile_figure
from simimg.report.number_format import count_of, duration, percent, points
from simimg.report.report_header import accuracy, copy_recall, figure
from simimg.report.report_sections import copies_found, curves, evaluated, machine_section, table
from simimg.report.svg_charts import NUM_COLORS, runs_svg

if TYPE_CHECKING:  # its module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures

__all__ = ["RunGroup", "TrainingContent", "write_comparison", "write_training_report"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingContent:
    """What the report of a run shows. Texts are plain text; whatever could be taken for HTML in them is escaped.

    Attributes:
        name: of the run.
        dataset: what it was trained on, in words.
        model_dir: the run's folder.
        command: repeats it.
        split: what the figures are of; "" where there is no split but the training's.
        classification: the figures of the classifier that is kept; None where there is no such split, or no classes.
        mistakes: photos it got wrong; a note says what was taken for what.
        history: a dict an epoch, as `TrainResult.history`.
        epoch: whose weights are kept, from 1; 0 where a softmax was fitted, and no more.
        facts: figures of the run and what they are, e.g. {"images/s": "533"}.
        augmented: rows of one photo each, as it came and as the network saw it in the first epochs.
        options: all that the run was told.
        machine: what it ran on.
        copies: the figures of a model that was trained for copies.
    """

    name: str
    dataset: str
    model_dir: str
    command: str
    split: str
    classification: Classification | None
    mistakes: Sequence[Tile]
    history: Sequence[dict[str, Any]]
    epoch: int
    facts: Mapping[str, str]
    augmented: Sequence[Sequence[Tile]]
    options: Mapping[str, str]
    machine: Mapping[str, str]
    copies: CopyFigures | None = None


def write_training_report(content: TrainingContent, path: Path) -> None:
    """Writes the report of a run; it has its name only when it is complete."""
    about = f'<div class="about"><div>{escape(content.dataset)}</div><div>{path_text(content.model_dir)}</div></div>'
    figures = content.classification
    first = accuracy(figures, f" of the {content.split} split") if figures else ""
    if content.copies:
        first = copy_recall(content.copies, f" of the {content.split} split")
    facts = "".join(figure(value, name) for name, value in content.facts.items())
    kept = f"Kept: the weights after epoch {content.epoch} of {len(content.history)}."
    course = curves(content.history)
    if not content.epoch:
        kept, course = "The softmax was fitted to the features of a network that stays as it was: no epochs.", ""
    sections = [
        section("training", f"<p>{escape(kept)}</p>", command(content.command) + course),
        section("evaluation", "", evaluated(figures, content.mistakes)) if figures else "",
        section("evaluation", "", copies_found(content.copies, content.mistakes)) if content.copies else "",
        section("pictures", "", _augmented(content.augmented)) if content.augmented else "",
        section("options", "", table(content.options)),
        machine_section(content.machine),
    ]
    body = (
        f"<header><h1>{escape(content.name)}</h1>{about}</header>"
        f'<div class="headline">{first}{facts}</div><main>{"".join(sections)}</main>'
    )
    write_bytes(path, page(content.name, body, _STYLE).encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs that were told the same but for the seed.

    Attributes:
        name: fit to tell it from the others.
        differs: what it was told that another group was not, e.g. {"epochs": "8"}.
        seeds: one a run.
        histories: one a run, as `TrainResult.history`.
        scores: one a run, of `split`: its accuracy or what else it goes by, a share of 1.
        seconds: one a run, of training.
    """

    name: str
    differs: Mapping[str, str]
    seeds: Sequence[int]
    histories: Sequence[Sequence[dict[str, Any]]]
    scores: Sequence[float]
    seconds: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean score."""
        return sum(self.scores) / len(self.scores)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the scores of a sample of runs; None of a single run."""
        count = len(self.scores)
        if count < 2:
            return None
        return float((sum((value - self.mean) ** 2 for value in self.scores) / (count - 1)) ** 0.5)


def write_comparison(
    groups: Sequence[RunGroup], split: str, path: Path, *, score: str = "accuracy", words: str = "accuracy"
) -> None:
    """Writes the report of runs side by side, the best group first; it has its name only when it is complete.

    Args:
        groups: at least one.
        split: what the scores are of.
        path: the HTML file; its folder is made.
        score: the key of the scores in a history.
        words: what people read for it.
    """
    num_runs = sum(len(group.seeds) for group in groups)
    subtitle = f"{count_of(num_runs, 'run', 'runs')} of {count_of(len(groups), 'kind', 'kinds')}"
    head = (
        f'<tr><th>Runs</th><th class="num">{words.capitalize()}, {escape(split)}</th><th class="num">Deviation</th>'
        '<th class="num">Each</th><th class="num">Training</th><th>Told</th></tr>'
    )
    charts = []
    for name, key, share in ((words.capitalize(), f"{split}_{score}", True), ("Loss", f"{split}_loss", False)):
        series = [(group.name, [points(history, key) for history in group.histories]) for group in groups[:NUM_COLORS]]
        if svg := runs_svg(name, series, share=share):
            charts.append(f"<div><h3>{name}, {escape(split)}</h3>{svg}</div>")
    note = (
        "A line a run. The deviation is that of the runs of a kind, which differ by their seed alone: differences "
        "between kinds that are smaller than it say little."
    )
    body = (
        f'<header><h1>Runs compared</h1><p class="subtitle">{subtitle}</p></header><main>'
        + section(
            words,
            "",
            f'<div class="scroll"><table class="runs"><thead>{head}</thead><tbody>{"".join(map(_row, groups))}</tbody>'
            f'</table></div><p class="quiet">{note}</p>',
        )
        + section("curves", "", f'<div class="curves">{"".join(charts)}</div>')
        + "</main>"
    )
    write_bytes(path, page("Runs compared", body, _STYLE).encode())


def _row(group: RunGroup) -> str:
    each = ", ".join(percent(value, 1) for value in group.scores)
    told = ", ".join(f"{name} {value}" for name, value in group.differs.items())
    deviation = "–" if group.deviation is None else f"{100 * group.deviation:.1f}"
    seconds = sum(group.seconds) / len(group.seconds)
    return (
        f'<tr><td>{escape(group.name)}</td><td class="num"><b>{percent(group.mean, 1)}</b></td>'
        f'<td class="num">{deviation}</td><td class="num">{each}</td><td class="num">{duration(seconds)}</td>'
        f"<td>{escape(told)}</td></tr>"
    )


def _augmented(rows: Sequence[Sequence[Tile]]) -> str:
    tiles = "".join(f'<div class="tiles seen">{"".join(map(tile_figure, row))}</div>' for row in rows)
    return f'<p class="quiet">First a photo as it is stored, then as the network saw it, an epoch each.</p>{tiles}'


_STYLE = """
.tiles.seen { grid-template-columns: repeat(6, minmax(0, 1fr)); margin-top: 18px; }
.runs { border-spacing: 0; }
.runs td, .runs th { padding: 8px 22px 8px 0; border-top: 1px solid var(--line); }
@media (max-width: 560px) { .tiles.seen { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
"""
