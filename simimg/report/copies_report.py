"""The report of `simimg duplicates` and `simimg leaks`: one row per group of copies, the kept image first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, figure, path_text, report_page, section, tile_figure, tiles

__all__ = ["COPY_PX", "CopiesContent", "CopyRow", "write_copies_report"]

COPY_PX = 400
"""Longest side of an image in this report: large enough to judge, 20 to 25 kB as JPEG."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyRow:
    """An image and its copies."""

    first: Tile  # its note says why it comes first
    copies: Sequence[Tile]  # each with a note on how it differs; a tile without an image where the file is gone
    num_more: int = 0  # copies that are not shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopiesContent:
    """The content of the report. All texts are plain text; HTML in them is escaped."""

    title: str
    about: str  # the folder that was searched
    number: tuple[str, str]  # the main figure, shown large, and what it counts
    facts: Mapping[str, str]  # other figures by what they count
    heading: str  # of the section of rows
    rows: Sequence[CopyRow]
    num_rows: int  # including those that are not shown
    note: str  # a sentence that explains the rows
    # The next steps: a sentence and the command that it introduces.
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_copies_report(content: CopiesContent, path: Path) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete."""
    number, what = content.number
    first = f'<div class="first"><p class="number">{escape(number)}</p><p>{escape(what)}</p></div>'
    shown = f"{len(content.rows):,} of {content.num_rows:,}" if len(content.rows) < content.num_rows else ""
    rows = "".join(map(_row, content.rows)) or '<p class="quiet">None.</p>'
    steps = "".join(f"<p>{escape(text)}</p>{command(line)}" for text, line in content.commands.items())
    html = report_page(
        content.title,
        about=[path_text(content.about)],
        headline=first + "".join(figure(value, name) for name, value in content.facts.items()),
        sections=[
            section(
                content.heading,
                f"<p>{shown}</p>" if shown else "",
                f'<p class="quiet">{escape(content.note)}</p>{rows}',
            ),
            section("what next", "", steps and f'<div class="steps">{steps}</div>'),
        ],
    )
    write_bytes(path, html)


def _row(row: CopyRow) -> str:
    more = f'<p class="quiet">and {row.num_more:,} more</p>' if row.num_more else ""
    first = f'<div class="query">{tile_figure(row.first, COPY_PX)}</div>'
    return f'<div class="copies">{first}{tiles(row.copies, max_px=COPY_PX)}{more}</div>'
