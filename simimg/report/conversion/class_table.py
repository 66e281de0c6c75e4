"""The classes of a data set: how many examples each has in each split, and which could not be split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simimg.report.conversion.class_counts import Counts
from simimg.report.html_page import escape
from simimg.report.number_format import count_of, printable, shortened, ticks

__all__ = ["bar", "class_table", "class_text", "size_curve", "split_color", "unsplit_classes"]

_MAX_ROWS = 60  # more are no table to read but one to search
_NUM_LARGEST, _NUM_SMALLEST = 24, 12  # of more classes
_MAX_UNSPLIT = 200
_MAX_NAME = 48  # characters
_NUM_COLORS = 4  # of splits; any more share the last
_WIDTH, _HEIGHT = 900, 170
_LEFT, _TOP, _BOTTOM = 46, 8, 26


def class_table(class_names: Sequence[str], counts: Counts) -> str:
    """Returns the table of classes as HTML: all of them by label, or the largest and the smallest of many."""
    labels: list[int] = list(range(len(class_names)))
    rest: list[int] = []
    if len(labels) > _MAX_ROWS:
        by_size = counts.by_size().tolist()
        labels = by_size[:_NUM_LARGEST] + by_size[-_NUM_SMALLEST:]
        rest = by_size[_NUM_LARGEST:-_NUM_SMALLEST]
    several, refused = len(counts.splits) > 1, counts.num_refused > 0
    digits = len(str(len(class_names) - 1))
    longest = max(1, int((counts.sizes + counts.refused).max(initial=1)))

    def row(
        name: str, examples: Sequence[int], num_refused: int, kind: str = "", label: str = "", line: str = ""
    ) -> str:
        numbers = [*examples, *([sum(examples)] if several else []), *([num_refused] if refused else [])]
        cells = "".join(f'<td class="num{"" if number else " none"}">{number:,}</td>' for number in numbers)
        number = f'<span class="label" style="width:{digits}ch">{label}</span>' if label else ""
        name = f'<span class="name">{number}<span>{name}</span></span>'
        return f'<tr{kind}><td><div class="class">{name}{line}</div></td>{cells}</tr>'

    rows = []
    for place, label in enumerate(labels):
        if rest and place == _NUM_LARGEST:
            few, many = int(counts.sizes[rest].min()), int(counts.sizes[rest].max())
            each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
            name = f"… {count_of(len(rest), 'more class', 'more classes')} of {each} each"
            sums = counts.examples[rest].sum(axis=0).tolist()
            rows.append(row(name, sums, int(counts.refused[rest].sum()), ' class="rest"'))
        examples, num_refused = counts.examples[label].tolist(), int(counts.refused[label])
        line = bar([*examples, num_refused], longest)
        rows.append(row(class_text(class_names[label]), examples, num_refused, label=str(label), line=line))
    if counts.outside:
        rows.append(row("in no class", [0] * len(counts.splits), counts.outside, ' class="rest"'))
    sums = counts.examples.sum(axis=0).tolist()
    rows.append(row("all", sums, counts.num_refused, ' class="all"'))
    names = [*map(escape, counts.splits), *(["total"] if several else []), *(["refused"] if refused else [])]
    head = "".join(f'<th class="num">{name}</th>' for name in names)
    return (
        f'<div class="scroll"><table class="counts"><thead><tr><th>Class</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def bar(parts: Sequence[int], longest: int) -> str:
    """Returns a bar of one part a split and a last one of what was refused, of which `longest` is the full width."""
    pieces = "".join(
        f'<i class="{"refused" if place == len(parts) - 1 else split_color(place)}" '
        f'style="width:{100 * part / longest:.2f}%"></i>'
        for place, part in enumerate(parts)
        if part
    )
    return f'<span class="bar" aria-hidden="true">{pieces}</span>'


def class_text(name: str) -> str:
    """Returns a class's name as HTML, of a length that a table has room for."""
    short = shortened(name, _MAX_NAME)
    return escape(short) if short == printable(name) else f'<span title="{escape(name)}">{escape(short)}</span>'


def split_color(number: int) -> str:
    """Returns the style class of split `number`."""
    return f"split{min(number, _NUM_COLORS - 1)}"


def size_curve(counts: Counts) -> str:
    """Returns a chart of the classes' sizes, from the largest to the smallest; nothing where the table says it all."""
    sizes = counts.sizes[counts.by_size()]
    if len(sizes) <= _MAX_ROWS:
        return ""
    top = max(1, int(sizes[0]))
    right, bottom = float(_WIDTH), float(_HEIGHT - _BOTTOM)

    def x(rank: float) -> float:
        return _LEFT + rank / len(sizes) * (right - _LEFT)

    def y(size: float) -> float:
        return bottom - size / top * (bottom - _TOP)

    # As many steps as the chart has room for, so that ten thousand classes take no more bytes.
    ranks = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), 300)).round().astype(int)).tolist()
    steps = "".join(
        f"V{y(sizes[rank]):.1f}H{x(end):.1f}" for rank, end in zip(ranks, [*ranks[1:], len(sizes)], strict=True)
    )
    parts = [f'<path class="area" d="M{_LEFT} {bottom:.1f}{steps}V{bottom:.1f}Z"/>']
    for value in ticks(0, top, 3):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{right:.0f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    for value in ticks(0, len(sizes), 5)[1:]:
        end = "end" if x(value) > right - 20 else "middle"
        at = f'x="{x(value):.1f}" y="{bottom + 18:.1f}" text-anchor="{end}"'
        parts.append(f'<text class="tick" {at}>{value:,.0f}</text>')
    median = float(np.median(sizes))
    label = f"Examples a class, from {top:,} down to {int(sizes[-1]):,}; the median is {median:,.0f}"
    return (
        f'<p class="quiet">{label}.</p><div class="scroll"><svg class="curve ranked" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{label}">{"".join(parts)}</svg></div>'
    )


def unsplit_classes(class_names: Sequence[str], counts: Counts, *, dealt: bool) -> str:
    """Returns which classes are missing from a split, and why, as HTML; nothing where none is.

    Args:
        class_names: by label.
        counts: of the data set.
        dealt: whether the converter dealt the photos to the splits; else they are the source's own.
    """
    missing = counts.unsplit()
    if not missing:
        return ""
    items = []
    for label in missing[:_MAX_UNSPLIT]:
        examples = counts.examples[label].tolist()
        where = ", ".join(f"{num:,} in {split}" for split, num in zip(counts.splits, examples, strict=True) if num)
        without = " and ".join(split for split, num in zip(counts.splits, examples, strict=True) if not num)
        fate = f"{where}, none in {without}" if where else "every file was refused"
        items.append(f"<li><b>{class_text(class_names[label])}</b> {escape(fate)}</li>")
    more = len(missing) - _MAX_UNSPLIT
    if more > 0:
        items.append(f"<li>and {more:,} more</li>")
    if dealt:
        head = "Classes too small to be split"
        why = "They have fewer photos than splits that are due one, or their photos are copies of each other."
    else:
        head, why = "Classes missing from a split", "The splits are those of the source."
    advice = "Accuracy on a split says nothing about a class that is not in it."
    return f'<h3>{head}</h3><p class="quiet">{why} {advice}</p><ul class="named">{"".join(items)}</ul>'
