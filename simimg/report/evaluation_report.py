"""The reports of figures alone: what a model is worth on a split, and what a benchmark measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, data_uri, escape, page, path_text, section
from simimg.report.report_header import accuracy, copy_recall
from simimg.report.report_sections import copies_found, evaluated, machine_section

if TYPE_CHECKING:  # its module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures

__all__ = ["BenchContent", "write_bench_report", "write_evaluation_report"]

_PLOT_PX = 2000


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
) -> None:
    """Writes what a trained model is worth on a split; the file has its name only when it is complete.

    Args:
        figures: of a classifier, or None.
        copies: the figures of a network for copies, or None.
        mistakes: photos it got wrong; a note says what was taken for what.
        path: the HTML file; its folder is made.
        split: the split's name.
        model_dir: the run's folder.
        dataset_dir: the data set's.
        machine: what it ran on.
    """
    where = f" of the {split} split"
    first = shown = ""
    if figures is not None:
        first, shown = accuracy(figures, where), evaluated(figures, mistakes)
    if copies is not None:
        first, shown = copy_recall(copies, where), copies_found(copies, mistakes)
    body = (
        f'<header><h1>{escape(Path(model_dir).name)}</h1><div class="about"><div>{path_text(dataset_dir)}</div>'
        f'<div>{path_text(model_dir)}</div></div></header><div class="headline">{first}</div>'
        f"<main>{section('evaluation', '', shown)}{machine_section(machine)}</main>"
    )
    write_bytes(path, page(Path(model_dir).name, body).encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchContent:
    """What the report of a benchmark shows.

    Attributes:
        title: what was measured.
        date: when, for people.
        lines: the tables, as the terminal has them.
        left_out: rivals that could not be measured, and why.
        plot: a PNG file with the bars, or None.
        command: measures it again.
        machine: what it ran on.
    """

    title: str
    date: str
    lines: Sequence[str]
    left_out: Mapping[str, str]
    plot: Path | None
    command: str
    machine: Mapping[str, str]


def write_bench_report(content: BenchContent, path: Path) -> None:
    """Writes the report of a benchmark; it has its name only when it is complete."""
    plot = ""
    if content.plot is not None:
        with Image.open(content.plot) as image:
            plot = f'<img class="plot" src="{data_uri(image, _PLOT_PX, exact=True)}" alt="{escape(content.title)}">'
    lines = "\n".join(map(escape, content.lines)).strip("\n")
    tables = f'<div class="scroll"><pre class="lines">{lines}</pre></div>'
    missing = "".join(f"<p>{escape(name)}: {escape(why)}</p>" for name, why in content.left_out.items())
    body = (
        f'<header><h1>{escape(content.title)}</h1><div class="about"><div>{escape(content.date)}</div></div></header>'
        "<main>"
        + (section("plot", "", plot) if plot else "")
        + section("figures", "", tables)
        + (section("left out", "", missing) if missing else "")
        + section("again", "", command(content.command))
        + machine_section(content.machine)
        + "</main>"
    )
    write_bytes(path, page(content.title, body, _STYLE).encode())


_STYLE = """
.lines { font: 0.69rem/1.7 var(--mono); white-space: pre; font-variant-numeric: tabular-nums; padding-bottom: 8px; }
.plot { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media print { .lines { font-size: 0.55rem; white-space: pre-wrap; } }
"""
