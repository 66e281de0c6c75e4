"""The classes of a dataset: files per class and split, as a table of the report and as one for the terminal."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simimg.report.chart_elements import Element, svg, text
from simimg.report.html_page import escape
from simimg.report.number_format import count_of, printable, shortened, ticks, value_range
from tfrecords.format.manifest import Manifest

_MAX_ROWS = 60  # a longer table is one to search, not to read
_NUM_LARGEST, _NUM_SMALLEST = 24, 12  # rows of a table with more classes
_MAX_UNSPLIT = 200
_MAX_NAME = 48  # characters
_NUM_COLORS = 4  # of splits; further ones share the last
_WIDTH, _HEIGHT = 900, 170
_LEFT, _TOP, _BOTTOM = 46, 8, 26

_MAX_LINES = 12  # fits a terminal of 24 lines together with the lines that follow
_MAX_COLUMNS = 32  # of a class name in the terminal
_NO_WIDTH = frozenset({"Mn", "Me", "Cf"})  # combining accents and invisible marks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """The number of files by class, and by split or rejected."""

    splits: tuple[str, ...]
    examples: np.ndarray  # int64 [num_classes, num_splits]
    refused: np.ndarray  # int64 [num_classes]
    outside: int  # rejected files without a class
    by_split: np.ndarray  # int64 [num_splits], all examples; an example may count for several classes

    @property
    def sizes(self) -> np.ndarray:
        """The number of examples per class: int64 [num_classes]."""
        return self.examples.sum(axis=1)

    @property
    def num_refused(self) -> int:
        """The number of all rejected files."""
        return int(self.refused.sum()) + self.outside

    def unsplit(self) -> list[int]:
        """Returns the labels of the classes that are missing from a split."""
        return np.flatnonzero((self.examples == 0).any(axis=1)).tolist()

    def by_size(self) -> list[int]:
        """Returns the labels, the largest class first; equally large ones in order."""
        return np.argsort(-self.sizes, kind="stable").tolist()


class _Row(NamedTuple):
    """A row of either table. `kind` is "class", "rest" (`labels` are those without a row), "outside" or "all"."""

    kind: str
    labels: Sequence[int]
    examples: Sequence[int]
    refused: int


def count_files(manifest: Manifest, num_classes: int, several: np.ndarray | None = None) -> Counts:
    """Returns the counts of the files of a manifest.

    `several` has the examples by class and split, if an example may have several classes; see `count_labels`.
    """
    ok, labels, num_splits = manifest.ok, manifest.labels, len(manifest.split_names)
    cells = labels[ok].astype(np.int64) % num_classes * num_splits + manifest.splits[ok]
    refused = labels[~ok]
    examples = np.bincount(cells, minlength=num_classes * num_splits).reshape(num_classes, num_splits)
    return Counts(
        splits=manifest.split_names,
        examples=examples if several is None else several,
        by_split=examples.sum(axis=0),
        refused=np.bincount(refused[refused >= 0], minlength=num_classes),
        outside=int((refused < 0).sum()),
    )


def class_table(class_names: Sequence[str], counts: Counts) -> str:
    """Returns the table of classes as HTML: all by label, or of more than 60 the largest and the smallest."""
    several, refused = len(counts.splits) > 1, counts.num_refused > 0
    digits = len(str(len(class_names) - 1))
    longest = max(1, int((counts.sizes + counts.refused).max(initial=1)))
    lines = []
    for row in _rows(counts, _MAX_ROWS, _NUM_LARGEST, _NUM_SMALLEST):
        numbers = [*row.examples, *([sum(row.examples)] if several else []), *([row.refused] if refused else [])]
        cells = "".join(f'<td class="num{"" if number else " none"}">{number:,}</td>' for number in numbers)
        number = line = ""
        name = {"outside": "in no class", "all": "all"}.get(row.kind, "")
        if row.kind == "class":
            number = f'<span class="label" style="width:{digits}ch">{row.labels[0]}</span>'
            name, line = class_text(class_names[row.labels[0]]), bar([*row.examples, row.refused], longest)
        elif row.kind == "rest":
            few, many = int(counts.sizes[row.labels].min()), int(counts.sizes[row.labels].max())
            each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
            name = f"… {count_of(len(row.labels), 'more class', 'more classes')} of {each} each"
        kind = {"class": "", "all": ' class="all"'}.get(row.kind, ' class="rest"')
        named = f'<span class="name">{number}<span>{name}</span></span>'
        lines.append(f'<tr{kind}><td><div class="class">{named}{line}</div></td>{cells}</tr>')
    names = [*map(escape, counts.splits), *(["total"] if several else []), *(["rejected"] if refused else [])]
    head = "".join(f'<th class="num">{name}</th>' for name in names)
    return (
        f'<div class="scroll"><table class="counts"><thead><tr><th>Class</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def summary_table(manifest: Manifest, class_names: Sequence[str], several: np.ndarray | None = None) -> str:
    """Returns the table for the terminal: examples in each split and rejected files per class, and the totals.

    Of more classes than fit a terminal, the largest have a line each, and the others share one. Columns are aligned by
    what a terminal draws, where a Korean letter is as wide as two Latin ones. What it would not draw is spelled out.
    """
    counts = count_files(manifest, len(class_names), several)
    has_total = len(counts.splits) > 1
    cells = [["class", *counts.splits, *(["total"] if has_total else []), "rejected"]]
    for row in _rows(counts, _MAX_LINES, _MAX_LINES - 1, 0):
        name = {"outside": "(in no class)", "all": "total", "rest": f"… {len(row.labels):,} more classes"}.get(row.kind)
        numbers = [*row.examples, *([sum(row.examples)] if has_total else []), row.refused]
        cells.append([name or _fitted(class_names[row.labels[0]]), *(f"{number:,}" for number in numbers)])
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *texts in cells:
        padded = [f"{' ' * (width - _width(cell))}{cell}" for cell, width in zip(texts, widths[1:], strict=True)]
        lines.append("  ".join([f"{name}{' ' * (widths[0] - _width(name))}", *padded]))
    rule = "  ".join("─" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def bar(parts: Sequence[int], longest: int) -> str:
    """Returns a bar with one part per split and a last one for rejected files; `longest` is the full width."""
    pieces = "".join(
        f'<i class="{"refused" if place == len(parts) - 1 else split_color(place)}" '
        f'style="width:{100 * part / longest:.2f}%"></i>'
        for place, part in enumerate(parts)
        if part
    )
    return f'<span class="bar" aria-hidden="true">{pieces}</span>'


def class_text(name: str) -> str:
    """Returns a class name as HTML, shortened to what a table has room for."""
    short = shortened(name, _MAX_NAME)
    return escape(short) if short == printable(name) else f'<span title="{escape(name)}">{escape(short)}</span>'


def split_color(number: int) -> str:
    """Returns the style class of split `number`."""
    return f"split{min(number, _NUM_COLORS - 1)}"


def size_curve(counts: Counts) -> str:
    """Returns a chart of the class sizes in descending order; nothing where the table shows all classes."""
    sizes = counts.sizes[counts.by_size()].tolist()
    if len(sizes) <= _MAX_ROWS:
        return ""
    right, bottom = float(_WIDTH), float(_HEIGHT - _BOTTOM)
    _, top = value_range(sizes, share=False)

    def x(rank: float) -> float:
        return _LEFT + rank / len(sizes) * (right - _LEFT)

    def y(size: float) -> float:
        return bottom - size / top * (bottom - _TOP)

    # As many steps as the chart has room for, so that ten thousand classes take no more bytes.
    ranks = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), 300)).round().astype(int)).tolist()
    steps = [
        (x(at), y(sizes[rank])) for rank, end in zip(ranks, [*ranks[1:], len(sizes)], strict=True) for at in (rank, end)
    ]
    elements = [Element("path", "area", strokes=[[(_LEFT, bottom), *steps, (right, bottom)]])]
    for value in ticks(0, top, 3):
        elements.append(Element("path", "grid", strokes=[[(_LEFT, y(value)), (right, y(value))]]))
        elements.append(text("tick", _LEFT - 8, y(value) + 4, f"{value:,.0f}", "end"))
    for value in ticks(0, len(sizes), 5)[1:]:
        anchor = "end" if x(value) > right - 20 else "middle"
        elements.append(text("tick", x(value), bottom + 18, f"{value:,.0f}", anchor))
    label = f"Examples per class, from {sizes[0]:,} down to {sizes[-1]:,}; the median is {np.median(sizes):,.0f}"
    chart = svg(elements, "curve ranked", _WIDTH, _HEIGHT, label)
    return f'<p class="quiet">{label}.</p><div class="scroll">{chart}</div>'


def unsplit_classes(class_names: Sequence[str], counts: Counts, *, dealt: bool) -> str:
    """Returns which classes are missing from a split, and why, as HTML; nothing where none is.

    `dealt` tells whether the converter assigned images to the splits; otherwise the splits are those of the source.
    """
    missing = counts.unsplit()
    if not missing:
        return ""
    items = []
    for label in missing[:_MAX_UNSPLIT]:
        examples = counts.examples[label].tolist()
        where = ", ".join(f"{num:,} in {split}" for split, num in zip(counts.splits, examples, strict=True) if num)
        without = " and ".join(split for split, num in zip(counts.splits, examples, strict=True) if not num)
        fate = f"{where}, none in {without}" if where else "every file was rejected"
        items.append(f"<li><b>{class_text(class_names[label])}</b> {escape(fate)}</li>")
    more = len(missing) - _MAX_UNSPLIT
    if more > 0:
        items.append(f"<li>and {more:,} more</li>")
    if dealt:
        head = "Classes too small to be split"
        why = "They have too few images for every split to get one, or their images are copies of each other."
    else:
        head, why = "Classes missing from a split", "The splits are those of the source."
    advice = "The accuracy on a split says nothing about a class that is not in it."
    return f'<h3>{head}</h3><p class="quiet">{why} {advice}</p><ul class="named">{"".join(items)}</ul>'


def _rows(counts: Counts, most: int, num_largest: int, num_smallest: int) -> list[_Row]:
    """The rows of a table: up to `most` classes by label, or the largest and smallest of more; and the totals."""
    by_size, num_classes = counts.by_size(), len(counts.sizes)
    first, rest, last = list(range(num_classes)), [], []
    if num_classes > most:
        cut = num_classes - num_smallest
        first, rest, last = by_size[:num_largest], by_size[num_largest:cut], by_size[cut:]

    def row(kind: str, labels: Sequence[int], refused: int | None = None) -> _Row:
        num_refused = int(counts.refused[labels].sum()) if refused is None else refused
        return _Row(kind, labels, counts.examples[labels].sum(axis=0).tolist(), num_refused)

    rows = [row("class", [label]) for label in first]
    rows += [row("rest", rest)] if rest else []
    rows += [row("class", [label]) for label in last]
    if counts.outside:
        rows.append(_Row("outside", [], [0] * len(counts.splits), counts.outside))
    return [*rows, _Row("all", list(range(num_classes)), counts.by_split.tolist(), counts.num_refused)]


def _fitted(name: str) -> str:
    """A class name of at most `_MAX_COLUMNS` columns, cut in the middle where it is wider."""
    name = printable(name)
    if _width(name) <= _MAX_COLUMNS:
        return name
    half = (_MAX_COLUMNS - 1) // 2
    return f"{_start(name, half)}…{_start(name[::-1], _MAX_COLUMNS - 1 - half)[::-1]}"


def _start(text: str, width: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:at]
    return text


def _width(text: str) -> int:
    """The number of terminal columns that a text takes."""
    widths = {"W": 2, "F": 2}  # Unicode calls characters of two columns wide and full-width
    return sum(
        0 if unicodedata.category(character) in _NO_WIDTH else widths.get(unicodedata.east_asian_width(character), 1)
        for character in text
    )
