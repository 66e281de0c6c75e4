"""The report of copies: groups of one photo, each in a row, the one that is kept or trained on first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, page, path_text, section, tile_figure
from simimg.report.report_header import figure

__all__ = ["CopiesContent", "CopyRow", "write_copies_report"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyRow:
    """A photo and its copies.

    Attributes:
        first: the photo, its note says why it is first.
        copies: each with what was done to it; a tile without a picture where the file is gone.
        num_more: copies that are not shown.
    """

    first: Tile
    copies: Sequence[Tile]
    num_more: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopiesContent:
    """What the report shows. Texts are plain text; whatever could be taken for HTML in them is escaped.

    Attributes:
        title: of the page.
        about: what was looked through.
        number: the first figure, large, and what it is.
        facts: more figures and what they are.
        heading: of the section of rows.
        rows: in the order in which they are shown.
        num_rows: of all, also those that are not shown.
        note: what the rows mean, a sentence.
        commands: what to do next, each with a sentence before it.
    """

    title: str
    about: str
    number: tuple[str, str]
    facts: Mapping[str, str]
    heading: str
    rows: Sequence[CopyRow]
    num_rows: int
    note: str
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_copies_report(content: CopiesContent, path: Path) -> None:
    """Writes the report; it has its name only when it is complete."""
    number, what = content.number
    first = f'<div class="first"><p class="number">{escape(number)}</p><p>{escape(what)}</p></div>'
    facts = "".join(figure(value, name) for name, value in content.facts.items())
    shown = f"{len(content.rows):,} of {content.num_rows:,}" if len(content.rows) < content.num_rows else ""
    rows = "".join(map(_row, content.rows)) or '<p class="quiet">None.</p>'
    steps = "".join(f"<p>{escape(text)}</p>{command(line)}" for text, line in content.commands.items())
    body = (
        f'<header><h1>{escape(content.title)}</h1><div class="about"><div>{path_text(content.about)}</div></div>'
        f'</header><div class="headline">{first}{facts}</div><main>'
        + section(
            content.heading,
            f"<p>{shown}</p>" if shown else "",
            f'<p class="quiet">{escape(content.note)}</p><div class="groups">{rows}</div>',
        )
        + (section("what next", "", f'<div class="steps">{steps}</div>') if steps else "")
        + "</main>"
    )
    write_bytes(path, page(content.title, body, _STYLE).encode())


def _row(row: CopyRow) -> str:
    more = f'<p class="quiet more">and {row.num_more:,} more</p>' if row.num_more else ""
    tiles = "".join(map(tile_figure, row.copies))
    size = "" if len(row.copies) <= _FEW else " long"
    return (
        f'<div class="search{size}"><div class="query">{tile_figure(row.first)}</div>'
        f'<div><div class="tiles">{tiles}</div>{more}</div></div>'
    )


_FEW = 2  # copies that leave room for another group beside them

_STYLE = """
.groups { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 28px; margin-top: 10px; }
.search { break-inside: avoid; }
.search .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.search.long { grid-column: 1 / -1; }
.search.long .tiles { grid-template-columns: repeat(5, minmax(0, 1fr)); }
.search .note { overflow-wrap: anywhere; }
.more { margin-top: 10px; }
.steps p { margin: 18px 0 8px; }
.steps p:first-child { margin-top: 0; }
@media (max-width: 900px) {
  .groups { grid-template-columns: minmax(0, 1fr); }
  .search.long .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
@media (max-width: 560px) { .search.long .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""
