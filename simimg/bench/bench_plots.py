"""Results for readers: bar plots, and the parts of text tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["GRAY", "INK", "OURS", "PAPER", "THEIRS", "Bar", "aligned", "interval", "met", "plot_bars"]

PAPER, INK, GRAY, OURS, THEIRS = "#ffffff", "#1c1c1e", "#6d6d72", "#1d5fc4", "#b9b9be"
_BAR_INCHES = 0.42


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar: its name, images per second, their 95 % interval, and whether it is one of this project."""

    name: str
    images_per_s: float
    ci95: tuple[float, float] | None
    is_ours: bool


def plot_bars(
    path: Path, title: str, what: str, bars: Sequence[Bar], limit: tuple[str, float], machine: dict[str, str]
) -> None:
    """Writes `bars` from top to bottom, with the limit as a line, as PNG or SVG by the suffix of `path`."""
    from matplotlib.figure import Figure

    bars = bars[::-1]
    named, most = limit
    figure = Figure(figsize=(10, 2.1 + _BAR_INCHES * len(bars)), dpi=160, facecolor=PAPER)
    above, below = 1.1 / figure.get_figheight(), 0.75 / figure.get_figheight()
    left = 0.06 + 0.0085 * max(len(bar.name) for bar in bars)
    axes: Any = figure.add_axes((left, below, 0.96 - left, 1 - above - below))
    lowest = min([most, *(bar.images_per_s for bar in bars)]) / 2
    for place, bar in enumerate(bars):
        axes.barh(place, bar.images_per_s, height=0.64, color=OURS if bar.is_ours else THEIRS, zorder=2)
        if bar.ci95:
            axes.plot(bar.ci95, (place, place), color=INK, linewidth=1.2, zorder=3)
        axes.text(
            max(bar.images_per_s, *(bar.ci95 or (0, 0))) * 1.07,
            place,
            f"{bar.images_per_s:,.0f}",
            va="center",
            color=INK,
            fontsize=11,
            fontweight="bold" if bar.is_ours else "normal",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},  # over the limit's line
            zorder=4,
        )
    axes.axvline(most, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(most, len(bars) - 0.4, f"{named} {most:,.0f}", ha="center", va="bottom", color=INK, fontsize=10)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=11, color=INK)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(lowest, max([most, *(bar.images_per_s for bar in bars)]) * 2.6)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.tick_params(axis="x", colors=GRAY, labelsize=9)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRAY)
    figure.text(0.02, 0.985, title, va="top", fontsize=16, fontweight="bold", color=INK)
    figure.text(
        0.02,
        0.985 - 0.34 / figure.get_figheight(),
        what,
        va="top",
        fontsize=11,
        color=GRAY,
    )
    note = f"{machine['processor']}, {machine['cores']} cores; logarithmic; thin lines are 95 % intervals of the median"
    figure.text(0.02, 0.02, note, va="bottom", fontsize=8.5, color=GRAY)
    figure.savefig(path, facecolor=PAPER)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns a table as lines; the first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" if not at else f"{cell:>{width}}" for at, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )
    return [line.rstrip() for line in lines]


def interval(ends: tuple[float, float] | None, form: str) -> str:
    """Returns an interval in words, or a dash if there is none."""
    return "-" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def met(is_met: bool) -> str:
    """Returns whether an aim is met, in words."""
    return "met" if is_met else "NOT MET"
