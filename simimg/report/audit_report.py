"""The report of `simimg audit`: the findings of each kind as pictures, with the reason and the evidence beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, escape, figure, page, path_text, section, tile_figure, tiles

_FOUND_PX, _EVIDENCE_PX = 320, 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindingRow:
    """A finding: its picture, or a heading where it is about a class or a split, and the pictures that show it."""

    first: Tile | None
    heading: str = ""
    reason: str = ""
    evidence: Sequence[Tile] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindingSection:
    """The findings of a kind: its name, the meaning of its score, some findings, and the number of all."""

    kind: str
    meaning: str
    rows: Sequence[FindingRow]
    num_rows: int


def write_audit_report(
    path: Path,
    *,
    about: str,  # the folder that was audited
    num_images: int,
    num_found: int,  # images with findings
    facts: Mapping[str, str],  # other figures by what they count
    sections: Sequence[FindingSection],
    notes: Sequence[str],
    commands: Mapping[str, str],  # the next steps: a sentence and the command that it introduces
) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete.

    All texts are plain text; HTML in them is escaped.
    """
    first = (
        f'<div class="first"><p class="number">{num_found:,}</p>'
        f"<p>of {num_images:,} images should be looked at</p></div>"
    )
    steps = "".join(f"<p>{escape(text)}</p>{command(line)}" for text, line in commands.items())
    told = "".join(f'<p class="quiet">{escape(note)}</p>' for note in notes)
    html = page(
        "Health of the collection",
        about=[path_text(about)],
        headline=first + "".join(figure(value, name) for name, value in facts.items()),
        sections=[
            *map(_section, sections),
            section("notes", "", told),
            section("what next", "", steps and f'<div class="steps">{steps}</div>'),
        ],
    )
    write_bytes(path, html)


def _section(found: FindingSection) -> str:
    share = f"<p>{found.num_rows:,}" + (f", the first {len(found.rows):,}" if len(found.rows) < found.num_rows else "")
    lone = [row for row in found.rows if row.first is not None and not row.evidence]
    body = f'<p class="quiet">{escape(found.meaning[:1].upper() + found.meaning[1:])}.</p>'
    body += "".join(_row(row) for row in found.rows if row.first is None or row.evidence)
    body += tiles([row.first for row in lone if row.first is not None]) if lone else ""
    return section(found.kind.replace("_", " "), f"{share}</p>", body)


def _row(row: FindingRow) -> str:
    evidence = tiles(row.evidence, max_px=_EVIDENCE_PX) if row.evidence else ""
    if row.first is None:
        return f"<h3>{escape(row.heading)}</h3><p>{escape(row.reason)}</p>{evidence}"
    first = f'<div class="query">{tile_figure(row.first, _FOUND_PX)}</div>'
    return f'<div class="copies">{first}{evidence}</div>'
