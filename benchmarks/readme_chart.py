"""Draws simimg/docs/throughput.png, the chart of the README, from the recorded results of `simimg bench`.

python benchmarks/readme_chart.py CONVERT.json INPUT.json simimg/docs/throughput.png
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, GRAY, OURS, OTHERS = "#1c1c1e", "#6d6d72", "#1d5fc4", "#c9c9ce"
CONVERTERS = {"simimg": "simimg", "dali": "DALI", "tfdata": "tf.data", "ffcv": "FFCV", "tutorial": "Pillow loop"}
READERS = {
    "resident": "simimg, in memory",
    "ffcv": "FFCV, in memory",
    "mapped": "simimg, from disk cache",
    "dali": "DALI",
    "vectorised": "tf.data, parsed per batch",
    "usual": "tf.data, parsed per example",
}


def draw(axes: Any, title: str, note: str, bars: list[tuple[str, float]]) -> None:
    """Draws horizontal bars, the first one on top, with their values behind them."""
    most = max(value for _, value in bars)
    for place, (name, value) in enumerate(reversed(bars)):
        ours = name.startswith("simimg")
        axes.barh(place, value, height=0.66, color=OURS if ours else OTHERS)
        weight = "bold" if ours else "normal"
        axes.text(value + most * 0.02, place, f"{value:,.0f}", va="center", fontsize=11, color=INK, fontweight=weight)
    axes.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)], fontsize=11, color=INK)
    axes.set_xlim(0, most * 1.25)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=26)
    axes.text(0, 1.03, note, transform=axes.transAxes, fontsize=9.5, color=GRAY, va="bottom")


def main(convert_json: str, input_json: str, png: str) -> None:
    """Writes the chart."""
    converted, read = (json.loads(Path(path).read_text()) for path in (convert_json, input_json))
    stage = converted["stages"][0]
    speeds = {
        name: statistics.median(run["num_images"] / run["seconds"] for run in stage["rounds"][name])
        for name in CONVERTERS
    }
    loaders = {loader["name"]: loader["images_per_s"] for loader in read["loaders"]}
    figure = Figure(figsize=(11.5, 3.7), dpi=160, facecolor="white")
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.62})
    figure.subplots_adjust(left=0.1, right=0.985, top=0.78, bottom=0.1)
    draw(
        left,
        "Converting, images/s",
        f"{stage['num_images']:,} photos, 300 x 265 px, to 64 x 64",
        sorted(((CONVERTERS[name], speed) for name, speed in speeds.items()), key=lambda bar: -bar[1]),
    )
    draw(
        right,
        "Reading shuffled batches, images/s",
        read["what"].replace("pictures", "images"),
        sorted(((READERS[name], loaders[name]) for name in READERS), key=lambda bar: -bar[1]),
    )
    machine = f"{converted['machine']['processor']}, {converted['machine']['cores']} cores, no GPU. Medians."
    figure.text(0.1, 0.03, machine.replace("(R)", ""), fontsize=8.5, color=GRAY)
    figure.savefig(png, facecolor="white")


if __name__ == "__main__":
    main(*sys.argv[1:])
