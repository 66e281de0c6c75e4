"""The stage `crops` of `simimg bench`: its rivals, its table, and the data of its plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from simimg.bench.bench_plots import Bar, aligned, interval, met
from simimg.bench.checkout import checkout_module, is_checkout
from simimg.bench.converters import Tool
from simimg.bench.crop_comparison import CROP_RIVALS, compare_crops, crop_records
from simimg.bench.image_sets import ImageSet
from simimg.bench.reader_comparison import InputComparison
from simimg.commands.bench_options import Options
from simimg.commands.console import note
from simimg.input.crops import DEFAULT_CROP_SIZE

_MOST_RECORDS = 2_000  # unless --num_images says less: they take 130 MB


def measure_crop_stage(
    options: Options,
    pictures: ImageSet,
    choose: Callable[[tuple[str, ...], tuple[str, ...], tuple[str, ...]], tuple[str, ...]],
    watch: Callable[[int], Callable[[], object]],
) -> dict[str, Any]:
    """Measure, and return the parts of the stage's result by name.

    `choose` takes the names of --rivals, the default ones and all there are, and returns those to measure. Rivals that
    need other packages are in a clone of the repository only.
    """
    there: dict[str, Tool] = {**CROP_RIVALS, **(checkout_module("rivals", "--rivals").CROPS if is_checkout() else {})}
    rivals = [there[name] for name in choose(options.rivals, tuple(there), tuple(there))]
    note("preparing the records")
    comparison = compare_crops(
        crop_records(pictures, min(options.num_images, _MOST_RECORDS), options.cache_dir),
        rivals,
        image_size=DEFAULT_CROP_SIZE,
        batch_size=options.batch_size,
        repeats=options.repeats,
        cache_dir=options.cache_dir,
        note=note,
        watch=watch,
    )
    bars = [Bar(found.name, found.images_per_s, found.ci95, found.is_ours) for found in comparison.loaders]
    return {
        "values": dataclasses.asdict(comparison),
        "lines": ["", *crops_table(comparison)],
        "title": "Crops per second of a core",
        "what": comparison.what,
        "bars": sorted(bars, key=lambda bar: -bar.images_per_s),
        "limit": ("entropy decoding", comparison.limit_images_per_s),
    }


def crops_table(comparison: InputComparison) -> list[str]:
    """Return the tools, and whether the aims are met."""
    rows = [("", "processor ms per crop", "95 % interval", "time relative to simimg", "share of limit")]
    ours = comparison.loaders[0].images_per_s
    for loader in comparison.loaders:
        ends = loader.ci95 and (1e3 / loader.ci95[1], 1e3 / loader.ci95[0])
        rows.append(
            (
                f"simimg, {loader.name}" if loader.is_ours else loader.name,
                f"{1e3 / loader.images_per_s:.2f}",
                interval(ends, ".2f"),
                f"{ours / loader.images_per_s:.2f}",
                f"{loader.ratio_to_limit:.0%}",
            )
        )
    rows.append(("entropy decoding alone", f"{1e3 / comparison.limit_images_per_s:.2f}", "", "", "100%"))
    lines = [f"crops of 8-100 % of the area to 224 px: {comparison.what}", *aligned(rows)]
    for aim in comparison.aims:
        lines.append(
            f"simimg takes 1/{aim.ratio:.2f} of the processor time of {aim.rival} "
            f"({interval(aim.ratio_ci95, '.2f')}); aim 1/{aim.aim:g}: {met(aim.met)}"
        )
    return lines
