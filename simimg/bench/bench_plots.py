"""Comparisons as pictures for a talk: a bar a tool, up to the limit; two figures of each way of measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.split_protocols import Protocol

__all__ = ["Bar", "plot_bars", "plot_protocols"]

_PAPER, _INK, _GRAY, _OURS, _THEIRS = "#ffffff", "#1c1c1e", "#6d6d72", "#1d5fc4", "#b9b9be"
_BAR_INCHES = 0.42


@dataclasses.dataclass(frozen=True)
class Bar:
    """A bar: its name, images a second, their 95 % interval, and whether it is one of this project."""

    name: str
    images_per_s: float
    ci95: tuple[float, float] | None
    is_ours: bool


def plot_bars(
    path: Path, title: str, what: str, bars: Sequence[Bar], limit: tuple[str, float], machine: dict[str, str]
) -> None:
    """Writes a PNG or SVG, by `path`'s suffix, with `bars` from top to bottom and the limit as a line."""
    from matplotlib.figure import Figure

    bars = bars[::-1]
    named, most = limit
    figure = Figure(figsize=(10, 2.1 + _BAR_INCHES * len(bars)), dpi=160, facecolor=_PAPER)
    above, below = 1.1 / figure.get_figheight(), 0.75 / figure.get_figheight()
    left = 0.06 + 0.0085 * max(len(bar.name) for bar in bars)
    axes: Any = figure.add_axes((left, below, 0.96 - left, 1 - above - below))
    lowest = min([most, *(bar.images_per_s for bar in bars)]) / 2
    for place, bar in enumerate(bars):
        axes.barh(place, bar.images_per_s, height=0.64, color=_OURS if bar.is_ours else _THEIRS, zorder=2)
        if bar.ci95:
            axes.plot(bar.ci95, (place, place), color=_INK, linewidth=1.2, zorder=3)
        axes.text(
            max(bar.images_per_s, *(bar.ci95 or (0, 0))) * 1.07,
            place,
            f"{bar.images_per_s:,.0f}",
            va="center",
            color=_INK,
            fontsize=11,
            fontweight="bold" if bar.is_ours else "normal",
            bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5},  # over the limit's line
            zorder=4,
        )
    axes.axvline(most, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(most, len(bars) - 0.4, f"{named} {most:,.0f}", ha="center", va="bottom", color=_INK, fontsize=10)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=11, color=_INK)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(lowest, max([most, *(bar.images_per_s for bar in bars)]) * 2.6)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.tick_params(axis="x", colors=_GRAY, labelsize=9)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRAY)
    figure.text(0.02, 0.985, title, va="top", fontsize=16, fontweight="bold", color=_INK)
    figure.text(
        0.02,
        0.985 - 0.34 / figure.get_figheight(),
        what,
        va="top",
        fontsize=11,
        color=_GRAY,
    )
    note = f"{machine['processor']}, {machine['cores']} cores; logarithmic; thin lines are 95 % intervals of the median"
    figure.text(0.02, 0.02, note, va="bottom", fontsize=8.5, color=_GRAY)
    figure.savefig(path, facecolor=_PAPER)


def plot_protocols(path: Path, protocols: Sequence[Protocol], machine: dict[str, str]) -> None:
    """Writes a PNG or SVG, by `path`'s suffix: binary and categorical accuracy of each protocol, a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.0 + 0.8 * len(protocols)), dpi=160, facecolor=_PAPER)
    above, below = 1.2 / figure.get_figheight(), 0.85 / figure.get_figheight()
    axes: Any = figure.add_axes((0.2, below, 0.74, 1 - above - below))
    for row, found in enumerate(protocols[::-1]):
        means = []
        # One's figure above and the other's below the line, as they may be close.
        for values, color, above_by, side in (
            (found.binary, _THEIRS, 0.2, "bottom"),
            (found.categorical, _OURS, -0.22, "top"),
        ):
            mean = sum(values) / len(values)
            means.append(mean)
            axes.scatter(values, [row] * len(values), s=22, color=color, alpha=0.45, linewidths=0, zorder=3)
            axes.scatter([mean], [row], s=150, color=color, zorder=4, edgecolors=_PAPER, linewidths=1.5)
            axes.text(mean, row + above_by, f"{mean:.3f}", ha="center", va=side, fontsize=11, color=_INK, zorder=5)
        axes.plot(means, (row, row), color=_THEIRS, linewidth=2, zorder=1)
    axes.set_yticks(range(len(protocols)), [found.name for found in protocols[::-1]], fontsize=12, color=_INK)
    lowest = min(min(*found.binary, *found.categorical) for found in protocols)
    axes.set_xlim(min(0.6, lowest - 0.02), 1.0)
    axes.set_ylim(-0.6, len(protocols) - 0.4)
    axes.grid(axis="x", color="#e8e8ec", linewidth=0.8, zorder=0)
    axes.tick_params(axis="x", colors=_GRAY, labelsize=9, length=0)
    axes.tick_params(axis="y", length=0, pad=8)
    for side in axes.spines.values():
        side.set_visible(False)
    inch = 1 / figure.get_figheight()
    figure.text(
        0.02, 1 - 0.12 * inch, "One network, three ways of testing it", va="top", fontsize=16, fontweight="bold"
    )
    what = "accuracy of the tutorial's network on its test pictures"
    figure.text(0.02, 1 - 0.5 * inch, what, va="top", fontsize=11, color=_GRAY)
    for name, color in (("binary, of all outputs", _THEIRS), ("categorical, of the pictures", _OURS)):
        axes.scatter([], [], s=90, color=color, label=name)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=10.5, labelcolor=_GRAY,
        handletextpad=0.2, borderaxespad=0,
    )  # fmt: skip
    seeds = len(protocols[0].binary)
    note = f"{seeds} seeds, a small dot each; photos dealt anew by each. {machine['processor']}"
    figure.text(0.02, 0.1 * inch, note, va="bottom", fontsize=8.5, color=_GRAY)
    figure.savefig(path, facecolor=_PAPER)
