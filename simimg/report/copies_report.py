"""The report of `simimg duplicates` and `simimg leaks`: one row per group of copies, the kept image first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, figure, page, path_text, section, tile_figure, tiles

COPY_PX = 400
"""Longest side of an image in this report: large enough to judge, 20 to 25 kB as JPEG."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyRow:
    """An image and its copies."""

    first: Tile  # its note says why it comes first
    copies: Sequence[Tile]  # each with a note on how it differs; a tile without an image where the file is gone
    num_more: int = 0  # copies that are not shown


def write_copies_report(
    path: Path,
    *,
    title: str,
    about: str,  # the folder that was searched
    number: str,  # the main figure, shown large
    counted: str,  # what it counts
    facts: Mapping[str, str],  # other figures by what they count
    heading: str,  # of the section of rows
    rows: Sequence[CopyRow],
    num_rows: int,  # including those that are not shown
    note: str,  # a sentence that explains the rows
    commands: Mapping[str, str],  # the next steps: a sentence and the command that it introduces
) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete.

    All texts are plain text; HTML in them is escaped.
    """
    first = f'<div class="first"><p class="number">{escape(number)}</p><p>{escape(counted)}</p></div>'
    share = f"<p>{len(rows):,} of {num_rows:,}</p>" if len(rows) < num_rows else ""
    shown = "".join(map(_row, rows)) or '<p class="quiet">None.</p>'
    steps = "".join(f"<p>{escape(text)}</p>{command(line)}" for text, line in commands.items())
    html = page(
        title,
        about=[path_text(about)],
        headline=first + "".join(figure(value, name) for name, value in facts.items()),
        sections=[
            section(heading, share, f'<p class="quiet">{escape(note)}</p>{shown}'),
            section("what next", "", steps and f'<div class="steps">{steps}</div>'),
        ],
    )
    write_bytes(path, html)


def _row(row: CopyRow) -> str:
    more = f'<p class="quiet">and {row.num_more:,} more</p>' if row.num_more else ""
    first = f'<div class="query">{tile_figure(row.first, COPY_PX)}</div>'
    return f'<div class="copies">{first}{tiles(row.copies, max_px=COPY_PX)}{more}</div>'
