"""The report of `simimg bench`: bars, tables, and the command that measures again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from simimg.report.contact_sheet import write_bytes
from simimg.report.html_page import command, data_uri, escape, report_page, section
from simimg.report.report_sections import machine_section

__all__ = ["BenchContent", "write_bench_report"]

_PLOT_PX = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchContent:
    """The content of the report. All texts are plain text; HTML in them is escaped.

    Attributes:
        title: what was measured.
        date: when, for people.
        lines: the tables, as the terminal shows them.
        left_out: rivals that could not be measured, and why.
        plot: a PNG file with the bars, or None.
        command: repeats the measurement.
        machine: facts about the machine.
    """

    title: str
    date: str
    lines: Sequence[str]
    left_out: Mapping[str, str]
    plot: Path | None
    command: str
    machine: Mapping[str, str]


def write_bench_report(content: BenchContent, path: Path) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete."""
    plot = ""
    if content.plot is not None:
        with Image.open(content.plot) as image:
            plot = f'<img class="plot" src="{data_uri(image, _PLOT_PX, exact=True)}" alt="{escape(content.title)}">'
    lines = "\n".join(map(escape, content.lines)).strip("\n")
    missing = "".join(f"<p>{escape(name)}: {escape(why)}</p>" for name, why in content.left_out.items())
    html = report_page(
        content.title,
        about=[escape(content.date)],
        sections=[
            section("plot", "", plot) if plot else "",
            section("figures", "", f'<div class="scroll"><pre class="lines">{lines}</pre></div>'),
            section("left out", "", missing) if missing else "",
            section("repeat the measurement", "", command(content.command)),
            machine_section(content.machine),
        ],
    )
    write_bytes(path, html)
