"""What `simimg bench` prints: a table a stage, as lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simimg.bench.converter_comparison import IMAGE_SIZE, Stage

if TYPE_CHECKING:
    from simimg.bench.augmentation_costs import AugmentationCost, AugmentationCosts
    from simimg.bench.dataset_size import Growth
    from simimg.bench.dedup_comparison import DedupComparison
    from simimg.bench.exact_search import ExactSearch
    from simimg.bench.loop_overhead import LoopCosts
    from simimg.bench.reader_comparison import InputComparison, Loader
    from simimg.bench.search_speed import EmbeddingSpeed, QueryTime
    from simimg.bench.split_protocols import Protocol
    from simimg.bench.training_stages import StageCost, TrainingCosts

__all__ = [
    "augmentations_table",
    "converters_table",
    "duplicates_table",
    "growth_table",
    "loaders_table",
    "loop_table",
    "protocols_table",
    "search_table",
    "stages_table",
]


def converters_table(stage: Stage) -> list[str]:
    """Returns the converters, and what was aimed at."""
    rounds = len(next(iter(stage.rounds.values())))
    plural = "" if rounds == 1 else "s"
    title = (
        f"{stage.name}: {stage.num_images:,} pictures ({stage.num_bytes / 2**20:,.0f} MB) to {IMAGE_SIZE} x "
        f"{IMAGE_SIZE}, {rounds} round{plural}: {stage.what}"
    )
    rows = [("", "images/s", "95 % interval", "simimg is", "95 % interval", "aim")]
    rows.append(("simimg", f"{stage.images_per_s:,.0f}", _interval(stage.ci95, ",.0f"), "", "", ""))
    for rival in stage.rivals:
        aim = "" if rival.bar is None else f"{rival.bar:g}x: {_met(bool(rival.met))}"
        rows.append(
            (
                rival.name,
                f"{rival.images_per_s:,.0f}",
                _interval(rival.ci95, ",.0f"),
                f"{rival.ratio:.2f}x",
                _interval(rival.ratio_ci95, ".2f"),
                aim,
            )
        )
    parts = " and ".join(f"{name} {value:,.0f} images/s" for name, value in stage.limits.items())
    return [title, *_aligned(rows), f"{100 * stage.ratio_to_limit:.1f} % of the limit ({parts})"]


def loaders_table(comparison: InputComparison) -> list[str]:
    """Returns the readers and the rivals, and what was aimed at."""
    title = f"input: {comparison.what}, shuffled batches of {comparison.batch_size}"
    rows = [("", "images/s", "95 % interval", "of the limit", "cores", "memory")]
    for loader in comparison.loaders:
        rows.append(
            (
                f"simimg {loader.name}" if loader.is_ours else loader.name,
                *_throughput(loader),
                f"{loader.cores:.1f}",
                f"{loader.peak_bytes / 1e9:.1f} GB",
            )
        )
    rows.append(("page cache, one thread", f"{comparison.limit_images_per_s:,.0f}", "", "100.0 %", "", ""))
    lines = [title, *_aligned(rows)]
    for aim in comparison.aims:
        ratio = f"{aim.ratio:.2f}x ({_interval(aim.ratio_ci95, '.2f')})"
        lines.append(f"simimg {aim.reader} is {ratio} {aim.rival}; aim {aim.aim:g}x: {_met(aim.met)}")
    return lines


def growth_table(growth: Growth) -> list[str]:
    """Returns what sets of each size cost."""
    rows = [("records", "shards", "first batch", "images/s", "95 % interval")]
    rows += [
        (
            f"{grown.num_examples:,}",
            f"{grown.num_shards:,}",
            f"{1000 * grown.first_batch_s:,.0f} ms",
            f"{grown.images_per_s:,.0f}",
            _interval(grown.ci95, ",.0f"),
        )
        for grown in growth.sets
    ]
    return [f"growth: {growth.what}", *_aligned(rows)]


def stages_table(costs: TrainingCosts) -> list[str]:
    """Returns the stages of a training, and what holds it up."""
    rows = [("", "images/s", "95 % interval", "of the limit", "adds a picture", "cores")]
    for stage in costs.stages:
        rows.append(
            (
                stage.name,
                *_throughput(stage),
                "" if stage.own_us is None else f"{stage.own_us:,.1f} us",
                f"{stage.cores:.1f}",
            )
        )
    memory = f"{costs.peak_bytes / 1e9:.1f} GB of memory at most"
    return [f"train: {costs.what}", *_aligned(rows), memory, costs.bottleneck]


def loop_table(costs: LoopCosts) -> list[str]:
    """Returns the ways of training beside the bare step."""
    rows = [("", "steps/s", "of the bare step", "95 % interval", "adds a step")]
    rows += [
        (
            way.name,
            f"{way.steps_per_s:,.2f}",
            f"{100 * way.ratio_to_bare:.1f} %",
            "-" if way.ci95 is None else f"{100 * way.ci95[0]:.1f} to {100 * way.ci95[1]:.1f} %",
            f"{way.overhead_us:,.0f} us",
        )
        for way in costs.ways
    ]
    to_fit = f"the loop is {costs.to_fit:.2f}x ({_interval(costs.to_fit_ci95, '.2f')}) Keras's fit"
    return [f"loop: {costs.what}", *_aligned(rows), to_fit]


def augmentations_table(costs: AugmentationCosts) -> list[str]:
    """Returns each augmentation, and the comparison with Keras."""
    rows = [("", "images/s", "95 % interval", "of the limit", "pixels", "cores")]
    for cost in costs.augmentations:
        rows.append(
            (
                cost.name,
                *_throughput(cost),
                f"{cost.gb_per_s:.2f} GB/s",
                f"{cost.cores:.1f}",
            )
        )
    ratio = f"{costs.ratio_to_keras:.2f}x ({_interval(costs.ratio_to_keras_ci95, '.2f')})"
    aim = f"rotation and flip are {ratio} the layers of Keras; aim {costs.aim:g}x: {_met(costs.met)}"
    return [f"augment: {costs.what}", *_aligned(rows), aim]


def protocols_table(protocols: Sequence[Protocol]) -> list[str]:
    """Returns what each way of measuring says, mean and standard deviation over the seeds."""
    rows = [("", "train", "test", "binary", "categorical", "a seed each", "training")]
    rows += [
        (
            found.name,
            f"{found.num_train:,}",
            f"{found.num_test:,}",
            _mean(found.binary),
            _mean(found.categorical),
            " ".join(f"{value:.3f}" for value in found.categorical),
            f"{np.mean(found.seconds):,.0f} s",
        )
        for found in protocols
    ]
    return ["protocols: the preset `tutorial`, mean (deviation) over the seeds", *_aligned(rows)]


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else "")


def duplicates_table(comparison: DedupComparison) -> list[str]:
    """Returns what each method found of the copies, and what was aimed at."""
    rows = [("", "precision", "recall", "seconds", "files/s", "wrong pairs", "missed")]
    rows += [
        (
            method.name,
            f"{method.precision:.4f}",
            f"{method.recall:.4f}",
            f"{method.seconds:,.1f}",
            f"{comparison.num_files / method.seconds:,.0f}",
            f"{method.num_wrong:,}",
            f"{method.num_missed:,}",
        )
        for method in comparison.methods
    ]
    precision, recall = comparison.aim
    cnn_precision, cnn_recall = comparison.published_cnn
    aim = (
        f"simimg: aim {recall:g} at a precision of {precision:g}: {_met(comparison.met)}; imagededup's CNN has "
        f"{cnn_recall:g} at {cnn_precision:g} in its authors' table, of other photos"
    )
    cnn = "imagededup's CNN cannot be measured here: torchvision downloads its weights when it is first used"
    return [f"duplicates: {comparison.what}: {comparison.num_files:,} files", *_aligned(rows), aim, cnn]


def search_table(embedding: EmbeddingSpeed, exact: ExactSearch, query: QueryTime) -> list[str]:
    """Returns embedding, exact search and one query, each with its limits."""
    rows: list[tuple[str, ...]] = [("", "images/s", "95 % interval")]
    rows += [
        (name, f"{value:,.0f}", _interval(embedding.ci95[name], ",.0f"))
        for name, value in embedding.images_per_s.items()
    ]
    lines = [f"embedding: {embedding.what}", *_aligned(rows)]
    lines.append(
        f"index is {embedding.index_to_decode:.2f}x decoding and {embedding.index_to_network:.2f}x the network alone; "
        f"aim {embedding.aim:g} images/s: {_met(embedding.met)}"
    )
    lines.append(
        f"the network, {embedding.gflops_per_image:.3f} GFLOP a picture, reaches {embedding.network_to_peak:.0%} of "
        f"the processor's {embedding.peak_gflops:,.0f} GFLOP/s"
    )
    rows = [("", "queries", "queries/s", "95 % interval", "read", "of memory", "of the peak", "cores", "simimg is")]
    rows += [
        (
            speed.name,
            f"{speed.batch}",
            f"{speed.queries_per_s:,.1f}",
            _interval(speed.ci95, ",.1f"),
            f"{speed.gb_per_s:.2f} GB/s",
            f"{speed.ratio_to_memory:.0%}",
            f"{speed.ratio_to_peak:.0%}",
            f"{speed.cores:.1f}",
            "" if speed.times_ours is None else f"{speed.times_ours:.2f}x ({_interval(speed.times_ours_ci95, '.2f')})",
        )
        for speed in exact.speeds
    ]
    lines += ["", f"exact search: {exact.what}", *_aligned(rows)]
    lines.append(f"memory is read at {exact.memory_gb_per_s:.1f} GB/s; the peak is {exact.peak_gflops:,.0f} GFLOP/s")
    rows = [("", "ms", "95 % interval")]
    rows += [
        (part.name, f"{part.ms:,.1f}", _interval(part.ci95, ",.1f"))
        for part in (*query.parts, dataclasses.replace(query.first, name="all, the first time"))
    ]
    rows.append(("all, again", f"{query.again.ms:,.1f}", _interval(query.again.ci95, ",.1f")))
    lines += ["", f"a query: {query.what}, medians", *_aligned(rows)]
    return [*lines, f"aim {query.aim_ms:g} ms the first time: {_met(query.met)}"]


def _throughput(found: Loader | StageCost | AugmentationCost) -> tuple[str, str, str]:
    """Returns images a second, their interval, and the share of the limit."""
    return f"{found.images_per_s:,.0f}", _interval(found.ci95, ",.0f"), f"{100 * found.ratio_to_limit:.1f} %"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" if not at else f"{cell:>{width}}" for at, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )
    return [line.rstrip() for line in lines]


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT MET"


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return "-" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"
