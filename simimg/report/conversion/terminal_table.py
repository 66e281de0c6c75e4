"""The table of classes and splits at the end of `simimg convert`, as plain text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from simimg.report.conversion.class_counts import count_files
from simimg.report.number_format import printable
from tfrecords.format.manifest import Manifest

__all__ = ["summary_table"]

_MAX_ROWS = 12  # what a terminal of 24 lines shows together with the lines after it
_MAX_NAME = 32  # columns
_WIDE = frozenset("WF")  # Unicode's wide and full-width characters take two columns
_NO_WIDTH = frozenset({"Mn", "Me", "Cf"})  # accents on the letter before, and marks that are not drawn


def summary_table(manifest: Manifest, class_names: Sequence[str]) -> str:
    """Returns a line a class with its examples in each split and its refused files, and a line of totals.

    Of more classes than fit a terminal the largest have a line each, and the others one together. Columns are aligned
    by what a terminal draws, in which a Korean letter is as wide as two Latin ones.

    Args:
        manifest: of the data set.
        class_names: by label; whatever a terminal would not draw in them is spelled out.
    """
    counts = count_files(manifest, len(class_names))
    shown = list(range(len(class_names)))
    if len(shown) > _MAX_ROWS:
        shown = counts.by_size()[: _MAX_ROWS - 1].tolist()
    several = len(counts.splits) > 1
    rows = [["class", *counts.splits, *(["total"] if several else []), "refused"]]

    def add(name: str, examples: Sequence[int], refused: int) -> None:
        numbers = [*examples, *([sum(examples)] if several else []), refused]
        rows.append([name, *(f"{number:,}" for number in numbers)])

    for label in shown:
        add(_fitted(class_names[label]), counts.examples[label].tolist(), int(counts.refused[label]))
    num_rest = len(class_names) - len(shown)
    if num_rest:
        rest = counts.examples.sum(axis=0) - counts.examples[shown].sum(axis=0)
        refused = int(counts.refused.sum() - counts.refused[shown].sum())
        add(f"… {num_rest:,} more classes", rest.tolist(), refused)
    if counts.outside:
        add("(in no class)", [0] * len(counts.splits), counts.outside)
    add("total", counts.examples.sum(axis=0).tolist(), counts.num_refused)
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *numbers in rows:
        cells = [f"{' ' * (width - _width(cell))}{cell}" for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name}{' ' * (widths[0] - _width(name))}", *cells]))
    rule = "  ".join("─" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _fitted(name: str) -> str:
    """Returns a name of at most `_MAX_NAME` columns; what is too much goes from the middle."""
    name = printable(name)
    if _width(name) <= _MAX_NAME:
        return name
    half = (_MAX_NAME - 1) // 2
    return f"{_start(name, half)}…{_start(name[::-1], _MAX_NAME - 1 - half)[::-1]}"


def _start(text: str, width: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:at]
    return text


def _width(text: str) -> int:
    return sum(
        0
        if unicodedata.category(character) in _NO_WIDTH
        else 2
        if unicodedata.east_asian_width(character) in _WIDE
        else 1
        for character in text
    )
