"""The report of the demo, from image files to answers, as one HTML file that needs only a browser.

It reads from top to bottom as the run went: the figures, what a search found, the flow from A to H, one section per
stage with the command that repeats it and its results, and the machine.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from simimg.report.contact_sheet import Tile, write_bytes
from simimg.report.html_page import (
    command,
    data_uri,
    escape,
    figure,
    page,
    path_text,
    section,
    tile_figure,
    tiles,
)  # fmt: skip
from simimg.report.number_format import count_of, duration
from simimg.report.report_sections import accuracy, curves, evaluated, machine_section

if TYPE_CHECKING:  # the module imports TensorFlow, which no report needs
    from simimg.evaluation.classification import Classification

_SAMPLE_PX = 192  # side of a sample image; it is shown at half of that
_MAX_EXACT = 64  # sample images that are embedded pixel by pixel; more would make the file heavy
_MAX_REFUSED = 100  # rows of a table that someone may read; the quarantine list has all
_FEW_SEARCHES = 30  # fewer are examples, not a measurement
_NUM_RESULTS = 3  # searches that are shown at the top


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the run."""

    name: str  # of the command ("convert", "train", "evaluate", "search"), by which results find their section
    command: str  # the shell command that repeats the stage
    seconds: float
    figure: str = ""  # its rate or result, e.g. "3,600 images/s"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """The content of the report. All texts are plain text; HTML in them is escaped."""

    title: str
    subtitle: str  # may be empty
    dataset_dir: str
    num_examples: int  # of all splits
    splits: Mapping[str, int]  # the number of examples of each split
    image_size: int  # side of the stored images in px
    encoding: str  # how they are stored, e.g. "raw"
    refused: Sequence[tuple[str | Path, str, str]]  # (path, reason, detail) of files that did not become examples
    stages: Sequence[Stage]  # in the order in which they ran
    samples: Mapping[str, Sequence[Image.Image]]  # stored images of each class; eight per class look best
    history: Sequence[dict[str, Any]]  # one dict per epoch, as `TrainResult.history`; may be empty
    classification: Classification  # of images that the classifier was not trained on
    mistakes: Sequence[Tile]  # wrongly classified images, as `report_sections.evaluated` takes them
    searches: Sequence[Sequence[Tile]]  # rows of a query and its matches, best first, the original `highlighted`
    machine: Mapping[str, str]  # facts in this order, e.g. {"CPU": "...", "GPU": "none"}
    # By kind of edit: (copies for which the original was the first match, copies searched for).
    recalls: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    binary_loss: bool = False  # whether the classifier was trained with one


def write_report(content: ReportContent, path: Path) -> None:
    """Writes the report as the HTML file `path`, which has its name only when it is complete, and makes its folder.

    Images are embedded; one of 160 px or more takes about 10 kB.
    """
    splits = ", ".join(f"{num:,} {name}" for name, num in content.splits.items())
    about = [
        f"<b>{content.num_examples:,}</b> examples{f' ({escape(splits)})' if splits else ''}",
        f"<b>{content.image_size} × {content.image_size}</b> px, {escape(content.encoding)}",
        f"<b>{duration(sum(stage.seconds for stage in content.stages))}</b> in all" if content.stages else "",
        path_text(content.dataset_dir),
    ]
    html = page(
        content.title,
        subtitle=content.subtitle,
        about=about,
        headline=_headline(content),
        result=_result(content) + _flow(content),
        sections=_sections(content),
    )
    write_bytes(path, html)


def _headline(content: ReportContent) -> str:
    """The most important figures: accuracy with its interval, speed, rejected files, searches."""
    figures = content.classification
    where = " of the test split" if content.splits.get("test") == figures.num_examples else ""
    parts = [accuracy(figures, where)]
    if first := next((stage for stage in content.stages if "images/s" in stage.figure), None):
        parts.append(figure(first.figure.partition("images/s")[0].strip(), f"images/s, {first.name}"))
    num_rejected = len(content.refused)
    parts.append(figure(f"{num_rejected:,}", "file rejected" if num_rejected == 1 else "files rejected"))
    # Counted searches go before those that are shown.
    shown = [(int(row[1].highlighted), 1) for row in content.searches if len(row) > 1]
    hits, searched = (sum(column) for column in zip((0, 0), *(content.recalls.values() or shown), strict=True))
    if searched:
        parts.append(figure(f"{hits:,} of {searched:,}", "searches put the original first"))
    return "".join(parts)


def _result(content: ReportContent) -> str:
    """A few queries beside the originals that were found for them; nothing where none was found first."""
    found = [row for row in content.searches if len(row) > 1 and row[1].highlighted]
    if not found:
        return ""
    num = min(_NUM_RESULTS, len(found))
    pairs = "".join(
        f'<div class="pair-found"><div class="query">{tile_figure(query)}</div>{tile_figure(match)}</div>'
        for query, match, *_ in (found[(2 * number + 1) * len(found) // (2 * num)] for number in range(num))
    )
    return f'<div class="results"><h2>Edited images, and the original that was found for each</h2>{pairs}</div>'


def _flow(content: ReportContent) -> str:
    """The stages A to H from a file to an answer, as a strip of film."""
    pixels = f"{content.image_size}, {content.image_size}, 3]"
    frames = [
        ("A", "Image file", "bytes", "on disk"),
        ("B", "Upright RGB", "uint8", "[h, w, 3]"),
        ("C", "Example", "image,", "label, id"),
        ("D", "Record", content.encoding, "in a shard"),
        ("E", "Batch", "uint8", f"[n, {pixels}"),
        ("F", "Augmented", "float", f"[n, {pixels}"),
        ("G", "Embedding", "float32", "[n, dim]"),
        ("H", "Answer", "matches,", "best first"),
    ]
    items = "".join(
        f"<li><b>{letter}</b>{name}<small>{escape(kind)}<br>{shape}</small></li>"
        for letter, name, kind, shape in frames
    )
    return f'<ol class="flow" aria-label="From a file to an answer">{items}</ol>'


def _sections(content: ReportContent) -> list[str]:
    """One section per stage with its results; results without a stage get sections of their own."""
    results = {"convert": _converted(content), "train": curves(content.history)}
    results["evaluate"] = evaluated(content.classification, content.mistakes, binary_loss=content.binary_loss)
    searched = _searched(content)
    results["search" if any("search" in stage.name.lower() for stage in content.stages) else "index"] = searched
    sections = []
    for stage in content.stages:
        key = next((key for key in results if key in stage.name.lower()), "")
        facts = "".join(f"<p>{escape(fact)}</p>" for fact in (duration(stage.seconds), stage.figure) if fact)
        sections.append(section(stage.name, facts, command(stage.command) + results.pop(key, "")))
    titles = {"convert": "conversion", "train": "training", "evaluate": "evaluation"}
    sections += [section(titles.get(key, "search"), "", result) for key, result in results.items() if result]
    return [*sections, machine_section(content.machine)]


def _converted(content: ReportContent) -> str:
    parts = []
    if content.samples:
        exact = sum(map(len, content.samples.values())) <= _MAX_EXACT
        size = f"{content.image_size} × {content.image_size} px"
        parts.append(f'<h3>Stored images, {size}</h3><div class="classes">')
        for name, images in content.samples.items():
            prints = "".join(
                f'<img src="{data_uri(image, _SAMPLE_PX, exact=exact)}" width="{image.width}" height="{image.height}" '
                f'alt="{escape(name)}, {number} of {len(images)}">'
                for number, image in enumerate(images, 1)
            )
            parts.append(f'<div><h4>{escape(name)}</h4><div class="prints">{prints}</div></div>')
        parts.append("</div>")
    parts.append("<h3>Rejected files</h3>")
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
        parts.append(f'<p class="quiet">And {more:,} more; quarantine.jsonl in the dataset lists all.</p>')
    return "".join(parts)


def _searched(content: ReportContent) -> str:
    rows = [row for row in content.searches if row]
    if not rows:
        return ""
    note = "The query comes first, then its matches, closest first. The ring marks the original of the query."
    if not content.recalls and len(rows) < _FEW_SEARCHES:
        note += f" {count_of(len(rows), 'search is an example', 'searches are examples')}, too few to be a measurement."
    parts = [_recalls(content.recalls), f'<h3>Searches</h3><p class="quiet">{note}</p>']
    for query, *matches in rows:
        found = tiles(matches) if matches else '<div class="tiles"><p class="quiet">Nothing was found.</p></div>'
        parts.append(f'<div class="search"><div class="query">{tile_figure(query)}</div>{found}</div>')
    return "".join(parts)


def _recalls(recalls: Mapping[str, tuple[int, int]]) -> str:
    if not recalls:
        return ""
    rows = "".join(
        f'<tr><td>{escape(edit)}</td><td class="num">{first:,} of {searched:,}</td></tr>'
        for edit, (first, searched) in recalls.items()
    )
    head = "<tr><th>Edited copy</th><th>original is the first match</th></tr>"
    return f"<h3>Copies for which the original was found</h3><table><thead>{head}</thead><tbody>{rows}</tbody></table>"
