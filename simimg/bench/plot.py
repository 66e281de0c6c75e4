"""A comparison as a picture for a talk: a bar a tool, on a logarithmic scale up to the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simimg.bench.input import InputComparison

__all__ = ["plot_readers"]

_PAPER, _INK, _GREY, _OURS, _THEIRS = "#ffffff", "#1c1c1e", "#6d6d72", "#1d5fc4", "#b9b9be"
_BAR_INCHES = 0.42


def plot_readers(comparison: InputComparison, machine: dict[str, str], path: Path) -> None:
    """Writes a PNG or SVG, by `path`'s suffix: images/s of every loader, with its 95 % interval and the limit."""
    from matplotlib.figure import Figure

    loaders = sorted(comparison.loaders, key=lambda loader: loader.images_per_s)
    limit = comparison.limit_images_per_s
    figure = Figure(figsize=(10, 2.1 + _BAR_INCHES * len(loaders)), dpi=160, facecolor=_PAPER)
    above, below = 1.1 / figure.get_figheight(), 0.75 / figure.get_figheight()
    axes: Any = figure.add_axes((0.17, below, 0.79, 1 - above - below))
    lowest = min([limit, *(loader.images_per_s for loader in loaders)]) / 2
    for place, loader in enumerate(loaders):
        value = loader.images_per_s
        axes.barh(place, value, height=0.64, color=_OURS if loader.is_ours else _THEIRS, zorder=2)
        if loader.ci95:
            axes.plot(loader.ci95, (place, place), color=_INK, linewidth=1.2, zorder=3)
        axes.text(
            max(value, *(loader.ci95 or (0, 0))) * 1.07,
            place,
            f"{value:,.0f}",
            va="center",
            color=_INK,
            fontsize=11,
            fontweight="bold" if loader.is_ours else "normal",
            bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5},  # over the limit's line
            zorder=4,
        )
    axes.axvline(limit, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(limit, len(loaders) - 0.4, f"page cache {limit:,.0f}", ha="center", va="bottom", color=_INK, fontsize=10)
    names = [f"simimg {loader.name}" if loader.is_ours else loader.name for loader in loaders]
    axes.set_yticks(range(len(loaders)), names, fontsize=11, color=_INK)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(lowest, max([limit, *(loader.images_per_s for loader in loaders)]) * 2.6)
    axes.set_ylim(-0.6, len(loaders) - 0.4)
    axes.tick_params(axis="x", colors=_GREY, labelsize=9)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    figure.text(0.02, 0.985, "Images a second, shuffled", va="top", fontsize=16, fontweight="bold", color=_INK)
    figure.text(
        0.02,
        0.985 - 0.34 / figure.get_figheight(),
        f"{comparison.what}, batches of {comparison.batch_size}",
        va="top",
        fontsize=11,
        color=_GREY,
    )
    note = f"{machine['processor']}, {machine['cores']} cores; logarithmic; thin lines are 95 % intervals of the median"
    figure.text(0.02, 0.02, note, va="bottom", fontsize=8.5, color=_GREY)
    figure.savefig(path, facecolor=_PAPER)
