"""The report of a run from picture files to answers, as one HTML file that needs nothing but a browser.

It reads top to bottom as the run went: the figures first, the flow, a section a stage with the command that repeats it
and what came out, and the machine. `simimg.report.html_page` says what it looks like.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import command, data_uri, escape, page, path_text, section, tile_figure
from simimg.report.number_format import count_of, duration
from simimg.report.report_header import flow, headline, top
from simimg.report.report_sections import curves, evaluated, machine_section

if TYPE_CHECKING:  # its module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification

__all__ = ["ReportContent", "Stage", "write_report"]

_SAMPLE_PX = 192  # a side of a sample picture; it is shown at half of that
_MAX_EXACT = 64  # sample pictures that are embedded pixel by pixel; more would make the file heavy
_MAX_REFUSED = 100  # more are not read by anyone; the quarantine has them all
_FEW_SEARCHES = 30  # fewer are examples, not a measurement


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the run.

    `name` says what was done, in the words of the commands ("convert", "train", "evaluate", "search"), by which
    results also find the section of their stage. `command` is the shell command that repeats it. `figure` is what it
    did a second or came to, e.g. "3,600 images/s"; may be empty.
    """

    name: str
    command: str
    seconds: float
    figure: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report shows. Texts are plain text; whatever could be taken for HTML in them is escaped.

    Attributes:
        title: the page's heading.
        subtitle: a line under it; may be empty.
        dataset_dir: the data set folder.
        num_examples: of all splits.
        splits: split -> number of examples.
        image_size: side of the stored pictures in px.
        encoding: how they are stored, e.g. "raw".
        refused: (path, reason, detail) of the files that did not become examples.
        stages: in the order in which they ran.
        samples: class name -> stored pictures; eight a class look best.
        history: a dict an epoch, as `TrainResult.history`; may be empty.
        classification: how well the model does on photos it has not seen.
        mistakes: wrongly classified photos; a note says what was taken for what.
        searches: a query and what was found for it each, best first, the original `highlighted`.
        machine: what it ran on, e.g. {"CPU": "...", "GPU": "none"}, in this order.
        recalls: kind of edit -> (copies that put their original first, copies searched for); `searches` shows some.
    """

    title: str
    subtitle: str
    dataset_dir: str
    num_examples: int
    splits: Mapping[str, int]
    image_size: int
    encoding: str
    refused: Sequence[tuple[str | Path, str, str]]
    stages: Sequence[Stage]
    samples: Mapping[str, Sequence[Image.Image]]
    history: Sequence[dict[str, Any]]
    classification: Classification
    mistakes: Sequence[Tile]
    searches: Sequence[Sequence[Tile]]
    machine: Mapping[str, str]
    recalls: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def write_report(content: ReportContent, path: Path) -> None:
    """Writes the report; it has its name only when it is complete.

    Args:
        content: what to show. Pictures are embedded: expect 10 kB for each that is 160 px or larger.
        path: the HTML file; its folder is made.
    """
    body = f"{top(content)}{headline(content)}{flow(content)}<main>{_sections(content)}</main>"
    # Surrogates are spelled out by `escape`, so this cannot fail.
    write_bytes(path, page(content.title, body).encode())


def _sections(content: ReportContent) -> str:
    """A section a stage, each with the results that belong to it; results without a stage get sections of their own."""
    results = {"convert": _converted(content), "train": curves(content.history)}
    results["evaluate"] = evaluated(content.classification, content.mistakes)
    searched = _searched(content)
    results["search" if any("search" in stage.name.lower() for stage in content.stages) else "index"] = searched
    sections = []
    for stage in content.stages:
        key = next((key for key in results if key in stage.name.lower()), "")
        facts = "".join(f"<p>{escape(fact)}</p>" for fact in (duration(stage.seconds), stage.figure) if fact)
        sections.append(section(stage.name, facts, command(stage.command) + results.pop(key, "")))
    titles = {
        "convert": "conversion",
        "train": "training",
        "evaluate": "evaluation",
        "search": "search",
        "index": "search",
    }
    sections += [section(titles[key], "", result) for key, result in results.items() if result]
    sections.append(machine_section(content.machine))
    return "".join(sections)


def _converted(content: ReportContent) -> str:
    parts = []
    if content.samples:
        exact = sum(map(len, content.samples.values())) <= _MAX_EXACT
        size = f"{content.image_size} × {content.image_size} px"
        parts.append(f'<h3>Stored pictures, {size}</h3><div class="classes">')
        for name, images in content.samples.items():
            prints = "".join(
                f'<img src="{data_uri(image, _SAMPLE_PX, exact=exact)}" width="{image.width}" height="{image.height}" '
                f'alt="{escape(name)}, {number} of {len(images)}">'
                for number, image in enumerate(images, 1)
            )
            parts.append(f'<div><h4>{escape(name)}</h4><div class="prints">{prints}</div></div>')
        parts.append("</div>")
    parts.append("<h3>Refused files</h3>")
    if not content.refused:
        parts.append('<p class="quiet">None: every file that was found became an example.</p>')
        return "".join(parts)
    reasons = Counter(reason for _, reason, _ in content.refused).most_common()
    parts.append(f'<p class="quiet">{escape(", ".join(f"{num:,} {reason}" for reason, num in reasons))}</p>')
    rows = "".join(
        f"<tr><td><code>{path_text(str(path))}</code></td><td>{escape(reason)}</td><td>{escape(detail)}</td></tr>"
        for path, reason, detail in content.refused[:_MAX_REFUSED]
    )
    head = "<tr><th>File</th><th>Reason</th><th>Detail</th></tr>"
    parts.append(f'<table class="refused"><thead>{head}</thead><tbody>{rows}</tbody></table>')
    more = len(content.refused) - _MAX_REFUSED
    if more > 0:
        parts.append(f'<p class="quiet">And {more:,} more; quarantine.jsonl in the data set lists all.</p>')
    return "".join(parts)


def _searched(content: ReportContent) -> str:
    rows = [row for row in content.searches if row]
    if not rows:
        return ""
    note = "First the query, then what was found, closest first. Ringed: the picture that the query was made from."
    if not content.recalls and len(rows) < _FEW_SEARCHES:
        note += f" {count_of(len(rows), 'search is an example', 'searches are examples')}, too few to be a measurement."
    parts = [_recalls(content.recalls), f'<h3>Searches</h3><p class="quiet">{note}</p>']
    for query, *matches in rows:
        found = "".join(map(tile_figure, matches)) or '<p class="quiet">Nothing was found.</p>'
        parts.append(
            f'<div class="search"><div class="query">{tile_figure(query)}</div><div class="tiles">{found}</div></div>'
        )
    return "".join(parts)


def _recalls(recalls: Mapping[str, tuple[int, int]]) -> str:
    if not recalls:
        return ""
    rows = "".join(
        f'<tr><td>{escape(edit)}</td><td class="num">{first:,} of {searched:,}</td></tr>'
        for edit, (first, searched) in recalls.items()
    )
    head = "<tr><th>Edited copy</th><th>puts its original first</th></tr>"
    return f"<h3>Copies that found their original</h3><table><thead>{head}</thead><tbody>{rows}</tbody></table>"
