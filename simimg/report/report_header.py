"""The head of a report: what it is about, its figures, and the flow from a file to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simimg.report.html_page import escape, path_text
from simimg.report.number_format import count_of, duration, percent

if TYPE_CHECKING:
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.copy_recall import CopyFigures
    from simimg.report.demo_report import ReportContent, Stage

__all__ = ["accuracy", "copy_recall", "figure", "flow", "headline", "top"]


def top(content: ReportContent) -> str:
    """Returns the heading, and the line of what was worked on."""
    splits = ", ".join(f"{num:,} {name}" for name, num in content.splits.items())
    facts = [
        f"<b>{content.num_examples:,}</b> examples{f' ({escape(splits)})' if splits else ''}",
        f"<b>{content.image_size} × {content.image_size}</b> px, {escape(content.encoding)}",
        f"<b>{duration(sum(stage.seconds for stage in content.stages))}</b> in all" if content.stages else "",
        path_text(content.dataset_dir),
    ]
    subtitle = f'<p class="subtitle">{escape(content.subtitle)}</p>' if content.subtitle else ""
    about = "".join(f"<div>{fact}</div>" for fact in facts if fact)
    return f'<header><h1>{escape(content.title)}</h1>{subtitle}<div class="about">{about}</div></header>'


def headline(content: ReportContent) -> str:
    """Returns what everyone asks for first: accuracy with its interval, speed, what was refused, searches."""
    figures = content.classification
    where = " of the test split" if content.splits.get("test") == figures.num_examples else ""
    parts = [accuracy(figures, where)]
    rate = _rate(content.stages)
    if rate:
        parts.append(figure(rate[1], f"images/s, {rate[0]}"))
    parts.append(figure(f"{len(content.refused):,}", "file refused" if len(content.refused) == 1 else "files refused"))
    first, searched = _searches(content)
    if searched:
        parts.append(figure(f"{first:,} of {searched:,}", "searches put the original first"))
    return f'<div class="headline">{"".join(parts)}</div>'


def accuracy(figures: Classification, where: str) -> str:
    """Returns the accuracy, large, with its interval and what a guess would score; `where` follows "photos"."""
    class_name, guess = _guess(figures)
    what = f"accuracy on {count_of(figures.num_examples, 'photo', 'photos')}{where}"
    note = f"The grey mark, at {percent(guess)}, is what calling every photo {class_name} would score."
    return _first(figures.accuracy, figures.accuracy_ci95, guess, what, note)


def copy_recall(figures: CopyFigures, where: str) -> str:
    """Returns the share of copies that found their original, large, with its interval; `where` follows "photos"."""
    what = f"copy recall on {count_of(figures.num_examples, 'photo', 'photos')}{where}"
    guess = 1 / figures.num_examples  # chance
    note = "So many copies have their original as the nearest photo."
    return _first(figures.recall, figures.recall_ci95, guess, what, note)


def figure(number: str, what: str) -> str:
    """Returns a figure of the headline and what it is."""
    return f'<div><p class="number">{escape(number)}</p><p>{escape(what)}</p></div>'


def flow(content: ReportContent) -> str:
    """Returns the flow A-H of DESIGN.md as a strip of film."""
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


def _first(value: float, interval: tuple[float, float], guess: float, what: str, note: str) -> str:
    """A share, large, on a scale with its interval and a guess's."""
    number, _, unit = percent(value, 1).partition("\u00a0")
    low, high = interval
    return "".join(
        [
            '<div class="first">',
            f'<p class="number">{number}<small>{unit}</small></p>',
            f"<p>{escape(what)}</p>",
            '<div class="scale" aria-hidden="true">',
            f'<i class="interval" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>',
            f'<i class="guess" style="left:{100 * guess:.2f}%"></i>',
            f'<i class="value" style="left:{100 * value:.2f}%"></i></div>',
            f'<p class="caption"><b>95 % interval {percent(low, 1)} to {percent(high, 1)}.</b> ',
            f"{escape(note)}</p></div>",
        ]
    )


def _guess(figures: Classification) -> tuple[str, float]:
    """The largest class, and the share that is right for whoever always answers it."""
    totals = {name: sum(row) for name, row in zip(figures.per_class, figures.confusion, strict=True)}
    name = max(totals, key=totals.__getitem__)
    return name, totals[name] / figures.num_examples


def _searches(content: ReportContent) -> tuple[int, int]:
    """How many searches put the original first, of how many: those that were counted, or else those that are shown."""
    if content.recalls:
        return sum(first for first, _ in content.recalls.values()), sum(of for _, of in content.recalls.values())
    rows = [row for row in content.searches if len(row) > 1]
    return sum(row[1].highlighted for row in rows), len(rows)


def _rate(stages: Sequence[Stage]) -> tuple[str, str] | None:
    """Name and rate of the first stage that was measured in images/s."""
    for stage in stages:
        number, unit, _ = stage.figure.partition("images/s")
        if unit:
            return stage.name, number.strip()
    return None
