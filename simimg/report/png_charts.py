"""Pictures for people, as PNG files: the confusion matrix, the curves of a training run, sheets of tiles.

Blue is right, orange is wrong, grey is the rest; the pair keeps its difference for colour-blind eyes. Charts are drawn
with matplotlib's objects on an Agg canvas: pyplot would keep each figure alive, and belongs to whoever imported us.
A file has its name only when it is complete.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simimg.image_files import png_bytes
from simimg.report.contact_sheet import Tile, tile_sheet, write_bytes
from simimg.report.number_format import epoch_ticks, percent, points, shortened, spread, value_range

if TYPE_CHECKING:  # matplotlib takes half a second; the classification's module imports TensorFlow
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from simimg.evaluation.classification import Classification

__all__ = ["Tile", "calibration_curves", "confusion_matrix", "png_bytes", "tile_sheet", "training_curves"]

_PAPER, _INK, _GRAY, _LINE = "#ffffff", "#1c1c1e", "#6d6d72", "#e2e2e4"
_RIGHT, _WRONG, _EMPTY = "#1d5fc4", "#d4500f", "#f4f4f5"
_DPI = 160
_MAX_NAME = 30  # characters of a class name beside a chart
_MIN_COUNT_PT = 5.5  # smaller figures in a cell are noise


def confusion_matrix(classification: Classification, path: Path) -> None:
    """Draws how often each class is taken for each other one.

    A row is what a photo shows, a column what the model says; a cell is as deep as its share of the row. Counts stand
    in the cells where they are large enough, the share that is right at the end of the row.

    Args:
        classification: of any number of classes; 2 to about 150 stay readable.
        path: the PNG file; its folder is made.
    """
    names = [shortened(name, _MAX_NAME) for name in classification.per_class]
    counts = np.array(classification.confusion, np.float64)
    size, totals = len(names), counts.sum(axis=1)
    cell = min(1.15, max(0.165, 8.0 / size))  # inches
    label_pt = min(12.0, max(6.5, cell * 30))
    figure = _figure(cell * size, cell * size)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    shares = np.divide(counts, totals[:, None], out=np.zeros_like(counts), where=totals[:, None] > 0)
    edges = np.arange(size + 1) - 0.5
    axes.pcolormesh(edges, edges, _cell_colors(counts, shares))  # imshow would resample: 2 s for 102 classes
    axes.set(xlim=(edges[0], edges[-1]), ylim=(edges[-1], edges[0]))
    for draw in (axes.hlines, axes.vlines):
        draw(edges, -0.5, size - 0.5, colors=_PAPER, linewidth=2.0 if size <= 12 else 0.8)
    for i, j in zip(*np.nonzero(counts), strict=True):
        text = f"{counts[i, j]:.0f}"
        points_pt = min(15.0, cell * 72 * 0.34, cell * 72 * 0.84 / (0.62 * len(text)))
        if points_pt >= _MIN_COUNT_PT:
            color = _PAPER if shares[i, j] > 0.5 else _INK
            axes.text(j, i, text, ha="center", va="center", fontsize=points_pt, color=color)
    for i, (share, total) in enumerate(zip(classification.per_class.values(), totals, strict=True)):
        x = size - 0.5 + 0.12 / cell
        axes.text(x, i, percent(share), va="center", fontsize=label_pt, color=_INK if share is not None else _GRAY)
        axes.text(x + label_pt * 0.056 / cell, i, f"of {total:,.0f}", va="center", fontsize=label_pt * 0.8, color=_GRAY)
    axes.set_xticks(range(size), names, rotation=90 if size > 40 else 40, ha="center" if size > 40 else "right")
    axes.set_yticks(range(size), names)
    if size <= 40:
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)  # a class may be called `$x_`
        tick.set(fontsize=label_pt, color=_INK)
    axes.tick_params(length=0, pad=5)
    axes.spines[:].set_visible(False)
    low, high = classification.accuracy_ci95
    interval = f"95 % interval {percent(low, 1)} to {percent(high, 1)}, on {classification.num_examples:,} photos"
    _heading(axes, f"Accuracy {percent(classification.accuracy, 1)}", 40, 17, _INK)
    _heading(axes, interval, 24, 10, _INK)
    _heading(axes, "Rows: what it is. Columns: what the model says.", 9, 8.5, _GRAY)
    _save(figure, path)


def training_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws loss and accuracy over the epochs, of training and, where the history has them, of test.

    Args:
        history: a dict an epoch: `epoch`, `loss`, `accuracy`, perhaps `test_loss`, `test_accuracy`. Figures that are
            missing or not finite are left out.
        path: the PNG file; its folder is made.
    """
    figure = _figure(11, 4.2)
    for axes, key, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        series = [
            (label, color, points(history, prefix + key))
            for label, prefix, color in (("training", "", _GRAY), ("test", "test_", _RIGHT))
        ]
        _curve_panel(axes, name, [line for line in series if line[2]], share=key == "accuracy")
    figure.subplots_adjust(left=0.05, right=0.9, top=0.86, bottom=0.14, wspace=0.52)
    _save(figure, path)


def calibration_curves(
    similarity: np.ndarray, right: np.ndarray, num_copies: int, threshold: float, path: Path
) -> None:
    """Draws precision and recall of matches against the least similarity that counts, in collections of three sizes.

    Wrong matches grow with a collection and right ones do not; that they do so in proportion is assumed, not measured.

    Args:
        similarity: float `[n]`, the best first.
        right: bool `[n]`.
        num_copies: how many copies there were to find.
        threshold: what is chosen.
        path: the PNG file; its folder is made.
    """
    figure = _figure(8, 4.4)
    axes = figure.add_axes((0.08, 0.13, 0.74, 0.7))
    copies = similarity >= 0.5
    values, hits = similarity[copies], np.cumsum(right[copies])
    wrong = np.arange(1, len(values) + 1) - hits
    lines = [("recall", _GRAY, hits / num_copies)]
    for factor, color in ((100, "#a9c4ee"), (10, "#6493dd"), (1, _RIGHT)):
        name = "precision" if factor == 1 else f"in {factor} times as many"
        lines.append((name, color, hits / np.maximum(hits + factor * wrong, 1)))
    for _, color, line in lines:
        axes.plot(values, line, color=color, linewidth=2.2, drawstyle="steps-post", clip_on=False)
    ends = [float(line[-1]) if len(line) else 0.0 for _, _, line in lines]
    for (name, color, _), y in zip(lines, spread(ends, 0.055), strict=True):
        axes.text(1.0, y, f"  {name}", color=color, fontsize=9.5, va="center", transform=axes.get_yaxis_transform())
    axes.axvline(threshold, color=_WRONG, linewidth=1.2)
    axes.text(threshold, 0.03, f" {threshold:.3f}", color=_WRONG, fontsize=9.5)
    axes.set(xlim=(1.0, 0.5), ylim=(0, 1.02))
    axes.set_xlabel("least similarity that counts as a copy", fontsize=9, color=_GRAY, loc="left")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(length=0, labelsize=9, labelcolor=_GRAY, pad=6)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    _heading(axes, "How sure is a match?", 16, 14, _INK)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    return figure


def _cell_colors(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    # One photo of hundreds must still be seen, so a cell that is not empty starts at a fifth of its colour.
    depth = (0.2 + 0.8 * shares)[..., None]
    full = np.where(np.eye(len(counts), dtype=bool)[..., None], _rgb(_RIGHT), _rgb(_WRONG))
    colors: np.ndarray = np.where(counts[..., None] > 0, 1 - depth + full * depth, _rgb(_EMPTY))
    return colors


def _heading(axes: Axes, text: str, up_pt: float, size_pt: float, color: str) -> None:
    weight = "bold" if size_pt > 12 else "normal"
    axes.annotate(
        text, (0, 1), (0, up_pt), "axes fraction", "offset points", fontsize=size_pt, color=color, weight=weight
    )


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _curve_panel(axes: Axes, name: str, series: list[tuple[str, str, list[tuple[int, float]]]], *, share: bool) -> None:
    axes.set_title(name, loc="left", fontsize=14, weight="bold", color=_INK, pad=12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(length=0, labelsize=9, labelcolor=_GRAY, pad=6)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch", fontsize=9, color=_GRAY, loc="left")
    if not series:
        axes.set(xticks=[], yticks=[])
        axes.text(0.0, 0.5, "no epoch was finished", transform=axes.transAxes, color=_GRAY)
        return
    epochs = sorted({epoch for _, _, line in series for epoch, _ in line})
    low, high = value_range([value for _, _, line in series for _, value in line], share=share)
    lonely = 0.5 if len(epochs) == 1 else 0.0
    axes.set(
        ylim=(low, high), xlim=(epochs[0] - lonely, epochs[-1] + lonely), xticks=epoch_ticks(epochs[0], epochs[-1])
    )
    if share:
        from matplotlib.ticker import PercentFormatter

        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    ends = spread([line[-1][1] for _, _, line in series], 0.075 * (high - low))
    for (label, color, line), end in zip(series, ends, strict=True):
        marker = "o" if len(line) <= 20 else ""
        axes.plot(*zip(*line, strict=True), color=color, linewidth=2.2, marker=marker, markersize=4.5, clip_on=False)
        figure = percent(line[-1][1], 1) if share else f"{line[-1][1]:.3f}"
        axes.annotate(
            f"{label} {figure}", (line[-1][0], end), (9, 0), textcoords="offset points", va="center",
            color=color, fontsize=10, weight="bold", annotation_clip=False,
        )  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in a script that the font lacks
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.35, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
