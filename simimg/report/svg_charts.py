"""The charts of a report as inline SVG: they take their colours from the page, so that they follow light and dark.

Lengths are user units, which are CSS px where the page gives the chart its natural size. The classes `right`, `wrong`,
`train`, `validation` and `test` are styled by `simimg.report.html_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simimg.report.html_page import escape
from simimg.report.number_format import epoch_ticks, percent, points, shortened, spread, ticks, value_range

if TYPE_CHECKING:  # its module imports TensorFlow, which no chart needs
    from simimg.evaluation.classification import Classification

__all__ = ["NUM_COLORS", "confusion_svg", "curve_svgs", "runs_svg"]

NUM_COLORS = 6  # that groups of runs have; see `simimg.report.report_css`

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 122, 14, 34  # around the plot
_MAX_NAME = 28
_MAX_LABEL = 11  # what stands beside the end of a curve
_CHARACTER = 0.66  # a character's width over the font's size, in the widest of the fonts that the page may get


def curve_svgs(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns (name, SVG) of loss, accuracy and copy recall over the epochs; none where no epoch has a figure."""
    charts = []
    for name, key in (("Loss", "loss"), ("Accuracy", "accuracy"), ("Copy recall", "recall")):
        lines = [
            (who, points(history, prefix + key), label)
            for who, prefix, label in (
                ("train", "", "training"),
                ("validation", "validation_", "validation"),
                ("test", "test_", "test"),
            )
        ]
        lines = [line for line in lines if line[1]]
        if lines:
            charts.append((name, _curve(name, lines, share=key != "loss")))
    return charts


def runs_svg(name: str, groups: Sequence[tuple[str, Sequence[list[tuple[int, float]]]]], *, share: bool) -> str:
    """Returns the curves of runs, those of a group in one colour; nothing where no epoch has a figure.

    Args:
        name: of the figure.
        groups: (label, (epoch, value) of each epoch of each run).
        share: whether the values are shares of 1.
    """
    lines = [
        (f"run of{number % NUM_COLORS}", line, label if index == 0 else "")
        for number, (label, runs) in enumerate(groups)
        for index, line in enumerate(runs)
        if line
    ]
    return _curve(name, lines, share=share, figures=False) if lines else ""


def confusion_svg(classification: Classification) -> str:
    """Returns the confusion matrix: a row is what a photo shows, a column what the model says."""
    names = [shortened(name, _MAX_NAME) for name in classification.per_class]
    size, counts = len(names), classification.confusion
    cell = min(60.0, max(13.0, 640 / size))
    font = min(14.0, max(10.0, cell * 0.42))
    room = max(map(len, names)) * font * _CHARACTER + 10  # for a name
    upright = size > 40
    width = room + cell * size + font * 9.5
    height = cell * size + (room if upright else room * 0.66 + font) + 6
    parts = [f'<rect class="cells" x="{room:.1f}" y="0" width="{cell * size:.1f}" height="{cell * size:.1f}"/>']
    for i, (row, (name, share)) in enumerate(zip(counts, classification.per_class.items(), strict=True)):
        total, y = sum(row), cell * i
        middle = y + cell / 2 + font * 0.35
        parts.append(f'<text class="name" x="{room - 8:.1f}" y="{middle:.1f}">{escape(names[i])}</text>')
        x = room + cell * size + 10
        parts.append(f'<text class="share" x="{x + font * 3.1:.1f}" y="{middle:.1f}">{percent(share)}</text>')
        parts.append(f'<text class="of" x="{x + font * 3.6:.1f}" y="{middle:.1f}">of {total:,}</text>')
        parts += [
            _cell(room + cell * j, y, cell, count, count / total, i == j, _cell_title(name, other, count, total))
            for j, (count, other) in enumerate(zip(row, classification.per_class, strict=True))
            if count
        ]
    inner = range(1, size)
    lines = "".join(
        f"M{room + cell * i:.1f} 0v{cell * size:.1f}M{room:.1f} {cell * i:.1f}h{cell * size:.1f}" for i in inner
    )
    parts.append(f'<path class="gaps" d="{lines}" stroke-width="{2 if size <= 12 else 1}"/>')
    for j, name in enumerate(names):
        x, y = room + cell * (j + 0.5), cell * size + (8 if upright else font)
        turn = f"translate({x + (font * 0.35 if upright else 3):.1f} {y:.1f}) rotate({-90 if upright else -40})"
        parts.append(f'<text class="name" transform="{turn}">{escape(name)}</text>')
    label = f"Confusion matrix of {size} classes; the share that is right: " + ", ".join(
        f"{name} {percent(share)}" for name, share in classification.per_class.items()
    )
    kind = "matrix small" if size <= 10 else "matrix"
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    style = f'style="font-size:{font:.1f}px" role="img" aria-label="{escape(label)}"'
    return f'<svg class="{kind}" {box} {style}>{"".join(parts)}</svg>'


def _curve(
    name: str, lines: list[tuple[str, list[tuple[int, float]], str]], *, share: bool, figures: bool = True
) -> str:
    """Returns a chart of (class, points, label) lines; `figures` stand with the labels at the curves' ends."""
    low, high = value_range([value for _, line, _ in lines for _, value in line], share=share)
    first, last = (pick(epoch for _, line, _ in lines for epoch, _ in line) for pick in (min, max))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(epoch: float) -> float:
        return (_LEFT + right) / 2 if first == last else _LEFT + (epoch - first) / (last - first) * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    def figure(value: float) -> str:
        return percent(value, 1) if share else f"{value:.3f}"

    parts = []
    for value in ticks(low, high, 5):
        text = percent(value) if share else f"{value:g}"
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for epoch in epoch_ticks(first, last):
        parts.append(f'<text class="tick" x="{x(epoch):.1f}" y="{bottom + 20}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text class="tick" x="{right + 18}" y="{bottom + 20}">epoch</text>')
    named = [line for line in lines if line[2]]
    ends = dict(zip(map(id, named), spread([y(line[-1][1]) for _, line, _ in named], 18), strict=True))
    for drawn in lines:
        who, line, label = drawn
        corners = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in line)
        parts.append(f'<polyline class="{who}" points="{corners}"/>')
        for epoch, value in line:
            title = escape(f"{label}, epoch {epoch}: {figure(value)}")
            radius = 3.5 if epoch == line[-1][0] else 2.5 if len(line) <= 20 else 0
            if radius:
                place = f'cx="{x(epoch):.1f}" cy="{y(value):.1f}" r="{radius}"'
                parts.append(f'<circle class="{who}" {place}><title>{title}</title></circle>')
        if label:
            text = escape(shortened(label, _MAX_LABEL)) + (f" {figure(line[-1][1])}" if figures else "")
            at = f'x="{x(line[-1][0]) + 10:.1f}" y="{ends[id(drawn)] + 4.5:.1f}"'
            parts.append(f'<text class="label {who}" {at}>{text}</text>')
    summary = escape(
        "; ".join(f"{label} from {figure(line[0][1])} to {figure(line[-1][1])}" for _, line, label in named)
    )
    label = f"{name}, epochs {first} to {last}: {summary}"
    return f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _cell(x: float, y: float, side: float, count: int, share: float, right: bool, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
    # One photo of hundreds must still be seen, so a cell that is not empty starts at a fifth of its colour.
    color = f'class="{"right" if right else "wrong"}" fill-opacity="{0.2 + 0.8 * share:.2f}"'
    font = min(15.0, side * 0.36, side * 0.84 / (0.62 * len(f"{count}")))
    text = ""
    if font >= 8:
        middle = f'x="{x + side / 2:.1f}" y="{y + side / 2 + font * 0.35:.1f}" font-size="{font:.1f}"'
        text = f'<text class="count{" deep" if share > 0.5 else ""}" {middle}>{count}</text>'
    return f'<g><title>{title}</title><rect class="base" {place}/><rect {color} {place}/>{text}</g>'


def _cell_title(name: str, other: str, count: int, total: int) -> str:
    if name == other:
        return escape(f"{name}: {count:,} of {total:,} right")
    return escape(f"{name} taken for {other}: {count:,} of {total:,}")
