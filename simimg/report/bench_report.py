"""The report of `simimg bench`: bars, tables, and the command that measures again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from simimg.report.contact_sheet import write_bytes
from simimg.report.html_page import command, data_uri, escape, page, section
from simimg.report.report_sections import machine_section

_PLOT_PX = 2000


def write_bench_report(
    path: Path,
    *,
    title: str,
    date: str,
    lines: Sequence[str],  # the tables, as the terminal shows them
    left_out: Mapping[str, str],  # rivals that could not be measured, and why
    plot: Path | None,  # a PNG file with the bars
    repeat: str,  # the command that measures again
    machine: Mapping[str, str],
) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete.

    All texts are plain text; HTML in them is escaped.
    """
    drawn = ""
    if plot is not None:
        with Image.open(plot) as image:
            drawn = f'<img class="plot" src="{data_uri(image, _PLOT_PX, exact=True)}" alt="{escape(title)}">'
    shown = "\n".join(map(escape, lines)).strip("\n")
    missing = "".join(f"<p>{escape(name)}: {escape(why)}</p>" for name, why in left_out.items())
    html = page(
        title,
        about=[escape(date)],
        sections=[
            section("plot", "", drawn),
            section("figures", "", f'<div class="scroll"><pre class="lines">{shown}</pre></div>'),
            section("left out", "", missing),
            section("repeat it", "", command(repeat)),
            machine_section(machine),
        ],
    )
    write_bytes(path, html)
