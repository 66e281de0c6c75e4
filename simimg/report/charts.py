"""The charts: confusion matrix, curves of training runs, reliability, precision and recall, calibration curves.

Each is drawn once, as elements that `simimg.report.chart_elements` writes into a page or into a PNG file. Blue is
right, orange is wrong, gray is the rest: the pair stays distinct for color-blind readers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simimg.report.chart_elements import Element, Point, svg, text, write_png
from simimg.report.number_format import epoch_ticks, percent, points, shortened, spread, ticks, value_range

if TYPE_CHECKING:  # the module imports TensorFlow, which no chart needs
    from simimg.evaluation.calibration import Calibration
    from simimg.evaluation.classification import Classification
    from simimg.evaluation.label_figures import PrecisionRecall

NUM_RUN_COLORS = 6
"""The number of groups of runs that a comparison draws; report.css has their colors as .of0 to .of5."""

_WIDTH, _HEIGHT = 420, 250
_LEFT, _TOP, _BOTTOM = 46, 14, 34  # margins around the plot; the labels of the curves decide the right one
_LABEL_CHARACTER = 7.8  # width of a character of a label: 13 px, semibold, in the widest font that a page may get
_LABEL_GAP = 18  # between the baselines of two labels
_MAX_NAME = 28  # characters
_CHARACTER = 0.66  # width of a character over the font size, in the widest font that a page may get
_SLANTED_UP_TO = 40  # classes; the names of more stand upright
_SMALL, _MOST_POINTS = 120.0, 100  # side of a small chart, and the points of its curve
_DOTS_UP_TO = 20  # epochs; the curves of more have a dot at the end only


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str]  # of a tick
    exact: Callable[[float], str]  # of a value
    name: str = ""


class _Curve(NamedTuple):
    kind: str
    points: Sequence[Point]
    label: str = ""
    figure: str = ""  # follows the label at the end of the curve
    dots: bool = True

    @property
    def end(self) -> str:
        return f"{self.label} {self.figure}".strip()


def confusion_svg(figures: Classification, linked: Collection[tuple[int, int]] = ()) -> str:
    """Returns the confusion matrix: rows are the true classes, columns the predicted ones; up to 150 stay readable.

    The cells `linked`, (row, column), whose images the page shows, get the id that its script looks for.
    """
    elements, width, height, font = _confusion(figures, linked)
    label = f"Confusion matrix of {len(figures.per_class)} classes; recall: " + ", ".join(
        f"{name} {percent(share)}" for name, share in figures.per_class.items()
    )
    kind = "matrix small" if len(figures.per_class) <= 10 else "matrix"
    return svg(elements, kind, width, height, label, font=font)


def confusion_matrix(figures: Classification, path: Path) -> None:
    """Writes the confusion matrix with the accuracy above it as a PNG file, and makes its folder."""
    elements, _, _, font = _confusion(figures)
    left = float(elements[0].attributes["x"])
    low, high = figures.accuracy_ci95
    interval = f"95 % interval {percent(low, 1)} to {percent(high, 1)}, on {figures.num_examples:,} images"
    elements += [
        text("label", left, -50, f"Accuracy {percent(figures.accuracy, 1)}", size=22),
        text("name", left, -30, interval, size=12),
        text("tick", left, -12, "Rows: true class. Columns: predicted class.", size=11),
    ]
    write_png(elements, font, path)


def curve_svgs(history: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns (name, SVG) of loss and the main figure over the epochs; none where no epoch has a figure.

    The history has one dict per epoch: `epoch`, `loss`, `accuracy`, optionally `test_loss`, `test_accuracy` and so on.
    Figures that are missing or not finite are left out.
    """
    charts = []
    for name, key in (
        ("Loss", "loss"),
        ("Accuracy", "accuracy"),
        ("Copy recall", "recall"),
        ("Mean average precision", "mean_average_precision"),
        ("Mean absolute error", "mean_absolute_error"),
    ):
        splits = (("train", "", "training"), ("validation", "validation_", "validation"), ("test", "test_", "test"))
        lines = [(kind, points(history, prefix + key), label) for kind, prefix, label in splits]
        if curves := [_Curve(*line) for line in lines if line[1]]:
            charts.append((name, _epoch_svg(name, curves, share=key not in ("loss", "mean_absolute_error"))))
    return charts


def runs_svg(name: str, groups: Sequence[Sequence[Sequence[Point]]], *, share: bool) -> str:
    """Returns the curves of groups of runs in one chart, each group in its color; nothing where no run has points.

    A group has the points (epoch, value) of each of its runs; a letter at the end of its first curve names it. There is
    at most one group per color. `share` tells whether the values are shares of 1.
    """
    curves = [
        _Curve(f"run of{number}", line, "" if index else chr(ord("A") + number))
        for number, runs in enumerate(groups)
        for index, line in enumerate([line for line in runs if line])
    ]
    if not curves:
        return ""
    return _epoch_svg(name, curves, share=share, figures=False)


def reliability_svg(before: Calibration, after: Calibration | None) -> str:
    """Returns the accuracy over the confidence: a dot per bin, whose area is the share of its images, and the diagonal.

    `after` is the calibration after temperature scaling, if there is a temperature.
    """
    drawn = [("test", "as they are", before)]
    if after is not None:
        drawn.append(("validation", "scaled", after))
    curves = [_Curve("train", [(0.0, 0.0), (1.0, 1.0)], dots=False)]
    dots: list[tuple[str, float, float, float, str]] = []
    for kind, label, found in drawn:
        filled = [one for one in found.bins if one.confidence is not None and one.accuracy is not None]
        curves.append(_Curve(kind, [(one.confidence or 0.0, one.accuracy or 0.0) for one in filled], label, dots=False))
        total = sum(one.num_examples for one in filled)
        for one, (confidence, right) in zip(filled, curves[-1].points, strict=True):
            title = (
                f"{label}: of {one.num_examples:,} images with confidence {percent(confidence)}, {percent(right)} right"
            )
            dots.append((kind, confidence, right, 2.5 + 9 * (one.num_examples / total) ** 0.5, title))
    shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    across = _Axis(0.0, 1.0, shares, percent, percent, "mean confidence of a bin")
    elements = _line_chart(curves, across, _Axis(0.0, 1.0, shares, percent, percent))
    width, height = _plot_right(curves) - _LEFT, _HEIGHT - _BOTTOM - _TOP
    for kind, x, y, radius, title in dots:
        place: dict[str, float | str] = {"cx": _LEFT + x * width, "cy": _TOP + (1 - y) * height, "r": radius}
        elements.append(Element("circle", kind, {**place, "fill-opacity": 0.55}, "", title))
    summary = "Accuracy over confidence; expected calibration error: " + ", ".join(
        f"{label} {percent(found.error, 1)}" for _, label, found in drawn
    )
    return svg(elements, "curve", _WIDTH, _HEIGHT + 14, summary)


def precision_recall_svg(name: str, curve: PrecisionRecall) -> str:
    """Returns the precision of a class over its recall as a small chart; the area below is the average precision."""
    recall, precision = curve.recall.tolist(), curve.precision.tolist()
    chosen = sorted(
        {round(place) for place in np.linspace(0, len(recall) - 1, min(len(recall), _MOST_POINTS)).tolist()}
    )
    corners: list[Point] = []
    before = 0.0
    for place in chosen:
        corners += [(before, precision[place]), (recall[place], precision[place])]
        before = recall[place]
    lines = [[(0.0, _SMALL * at), (_SMALL, _SMALL * at)] for at in (0.0, 0.5, 1.0)]
    lines += [[(_SMALL * at, 0.0), (_SMALL * at, _SMALL)] for at in (0.0, 0.5, 1.0)]
    elements = [Element("path", "grid", strokes=lines)]
    elements.append(Element("polyline", "test", strokes=[[(_SMALL * x, _SMALL * (1 - y)) for x, y in corners]]))
    summary = f"Precision over recall of {name}; average precision {percent(curve.average_precision, 1)}"
    return svg(elements, "curve", _SMALL, _SMALL, summary)


def calibration_curves(
    similarity: np.ndarray, right: np.ndarray, num_copies: int, threshold: float | None, path: Path
) -> None:
    """Draws precision and recall of matches over the least similarity that counts, for collections of three sizes.

    The number of wrong matches is assumed to grow in proportion to the collection. This was not measured.

    Similarities, float `[n]`, are in descending order; `right`, bool `[n]`, tells which matches are. `num_copies` could
    be found. A line marks the threshold, if there is one. The folder of the PNG file is made.
    """
    counted = similarity >= 0.5
    values, hits = similarity[counted], np.cumsum(right[counted])
    wrong = np.arange(1, len(values) + 1) - hits
    lines = [("train", "recall", hits / num_copies)]
    for factor, kind in ((100, "hundredfold"), (10, "tenfold"), (1, "test")):
        name = "precision" if factor == 1 else f"in {factor} times as many"
        lines.append((kind, name, hits / np.maximum(hits + factor * wrong, 1)))
    name = "least similarity that counts as a copy"
    x = _Axis(1.0, 0.5, ticks(0.5, 1.0, 5), "{:.1f}".format, "{:.3f}".format, name)
    y = _Axis(0.0, 1.0, ticks(0.0, 1.0, 5), percent, percent)
    curves = [
        _Curve(kind, [(1.0, float(line[0])), *_steps(values.tolist(), line.tolist())], name, dots=False)
        for kind, name, line in lines
        if len(line)
    ]
    elements = _line_chart(curves, x, y)
    if threshold is not None:
        at = _LEFT + (x.low - threshold) / (x.low - x.high) * (_plot_right(curves) - _LEFT)
        elements += [
            Element("path", "wrong", strokes=[[(at, _TOP), (at, _HEIGHT - _BOTTOM)]]),
            text("wrong", at + 4, _HEIGHT - _BOTTOM - 6, f"{threshold:.3f}"),
        ]
    elements.append(text("label", _LEFT, -12, "Precision and recall of matches", size=17))
    write_png(elements, 13, path)


def _confusion(
    figures: Classification, linked: Collection[tuple[int, int]] = ()
) -> tuple[list[Element], float, float, float]:
    """The elements of a confusion matrix, its width and height, and the size of its text."""
    names = [shortened(name, _MAX_NAME) for name in figures.per_class]
    size = len(names)
    cell = min(60.0, max(13.0, 640 / size))
    font = min(14.0, max(10.0, cell * 0.42))
    left = max(map(len, names)) * font * _CHARACTER + 10  # room for a name
    side, upright = cell * size, size > _SLANTED_UP_TO
    elements = [Element("rect", "cells", {"x": left, "y": 0.0, "width": side, "height": side})]
    for i, (row, (name, share)) in enumerate(zip(figures.confusion, figures.per_class.items(), strict=True)):
        total, baseline = sum(row), cell * (i + 0.5) + font * 0.35
        x = left + side + 10
        elements += [
            text("name", left - 8, baseline, names[i], "end"),
            text("share", x + font * 3.1, baseline, percent(share), "end"),
            text("of", x + font * 3.6, baseline, f"of {total:,}"),
        ]
        for j, (count, other) in enumerate(zip(row, figures.per_class, strict=True)):
            if count:
                title = f"{name}: {count:,} of {total:,} right" if i == j else (
                    f"{name} taken for {other}: {count:,} of {total:,}"
                )  # fmt: skip
                identity = f"cell-{i}-{j}" if (i, j) in linked else ""
                elements += _cell(left + cell * j, cell * i, cell, count, count / total, i == j, title, identity)
    gaps = [[(left + cell * i, 0.0), (left + cell * i, side)] for i in range(1, size)]
    gaps += [[(left, cell * i), (left + side, cell * i)] for i in range(1, size)]
    elements.append(Element("path", "gaps", {"stroke-width": 2.0 if size <= 12 else 1.0}, strokes=gaps))
    for j, name in enumerate(names):
        x, y = left + cell * (j + 0.5), side + (8 if upright else font)
        elements.append(text("name", x + (font * 0.35 if upright else 3), y, name, "end", turn=-90 if upright else -40))
    return elements, left + side + font * 9.5, side + (left if upright else left * 0.66 + font) + 6, font


def _cell(
    x: float, y: float, side: float, count: int, share: float, right: bool, title: str, identity: str
) -> list[Element]:
    place: dict[str, float | str] = {"x": x, "y": y, "width": side, "height": side}
    # One image of hundreds must still be seen, so a cell that is not empty starts at a fifth of its color.
    shown = place | {"fill-opacity": 0.2 + 0.8 * share} | ({"id": identity} if identity else {})
    cell = [Element("rect", "base", place), Element("rect", "right" if right else "wrong", shown, title=title)]
    font = min(15.0, side * 0.36, side * 0.84 / (0.62 * len(f"{count}")))
    if font >= 8:
        kind = "count deep" if share > 0.5 else "count"
        cell.append(text(kind, x + side / 2, y + side / 2 + font * 0.35, f"{count}", "middle", font))
    return cell


def _epoch_svg(name: str, curves: Sequence[_Curve], *, share: bool, figures: bool = True) -> str:
    """A chart over the epochs; with `figures`, the last value of each curve follows its label."""
    summary = _summary(name, curves)
    low, high = value_range([value for curve in curves for _, value in curve.points], share=share)
    first, last = (int(pick(epoch for curve in curves for epoch, _ in curve.points)) for pick in (min, max))
    exact: Callable[[float], str] = (lambda value: percent(value, 1)) if share else "{:.3f}".format
    if figures:
        curves = [curve._replace(figure=exact(curve.points[-1][1])) for curve in curves]
    across = _Axis(first, last, epoch_ticks(first, last), "{:g}".format, "{:g}".format, "epoch")
    up = _Axis(low, high, ticks(low, high, 5), percent if share else "{:g}".format, exact)
    return svg(_line_chart(curves, across, up), "curve", _WIDTH, _HEIGHT, summary)


def _line_chart(curves: Sequence[_Curve], across: _Axis, up: _Axis) -> list[Element]:
    right, bottom = _plot_right(curves), _HEIGHT - _BOTTOM

    def x(value: float) -> float:
        share = 0.5 if across.high == across.low else (value - across.low) / (across.high - across.low)
        return _LEFT + share * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - up.low) / (up.high - up.low) * (bottom - _TOP)

    elements = []
    for value in up.ticks:
        elements.append(Element("path", "grid", strokes=[[(_LEFT, y(value)), (right, y(value))]]))
        elements.append(text("tick", _LEFT - 10, y(value) + 4, up.text(value), "end", 12))
    for value in across.ticks:
        elements.append(text("tick", x(value), bottom + 20, across.text(value), "middle", 12))
    beside = len(across.name) < 10  # a longer name stands below the axis
    place = (right + 18.0, bottom + 20.0) if beside else (float(_LEFT), bottom + 40.0)
    elements.append(text("tick", place[0], place[1], across.name, size=12))
    labeled = [curve for curve in curves if curve.label]
    heights = spread([y(curve.points[-1][1]) for curve in labeled], _LABEL_GAP)
    for curve in curves:
        places = [(x(at), y(value)) for at, value in curve.points]
        elements.append(Element("polyline", curve.kind, strokes=[places]))
        dots = places if len(places) <= _DOTS_UP_TO else places[-1:]
        for place, (at, value) in zip(dots, curve.points[-len(dots) :], strict=True):
            if curve.dots:
                title = f"{curve.label}, {across.name} {across.exact(at)}: {up.exact(value)}".lstrip(", ")
                radius = 3.5 if place is places[-1] else 2.5
                elements.append(Element("circle", curve.kind, {"cx": place[0], "cy": place[1], "r": radius}, "", title))
    for curve, height in zip(labeled, heights, strict=True):
        kind = f"label {curve.kind}"
        elements.append(text(kind, x(curve.points[-1][0]) + 10, height + 4.5, curve.end))
    return elements


def _plot_right(curves: Sequence[_Curve]) -> float:
    """Where a plot ends on the right, so that all labels beside it fit into the chart."""
    return _WIDTH - max(60.0, 14 + _LABEL_CHARACTER * max((len(curve.end) for curve in curves), default=0))


def _steps(xs: Sequence[float], ys: Sequence[float]) -> list[Point]:
    """The corners of a line that keeps each value until the next one."""
    return [point for x, y, after in zip(xs, ys, [*xs[1:], xs[-1]], strict=True) for point in ((x, y), (after, y))]


def _summary(name: str, curves: Sequence[_Curve]) -> str:
    ends = [(curve.label, *curve.points[0], *curve.points[-1]) for curve in curves if curve.label]
    first, last = min(end[1] for end in ends), max(end[3] for end in ends)
    changes = [f"{label} from {begin:.3g} to {end:.3g}" for label, _, begin, _, end in ends]
    return f"{name}, epochs {first:g} to {last:g}: {'; '.join(changes)}"
