"""The tables that `simimg bench` prints, one per stage, as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simimg.bench.bench_plots import aligned, interval, met
from simimg.bench.converter_comparison import IMAGE_SIZE, Stage

if TYPE_CHECKING:
    from simimg.bench.augmentation_costs import AugmentationCost, AugmentationCosts
    from simimg.bench.command_costs import CommandCosts
    from simimg.bench.embedding_speed import EngineSpeeds
    from simimg.bench.exact_search import ExactSearch
    from simimg.bench.keras_layers import LayerSpeeds
    from simimg.bench.loop_overhead import LoopCosts
    from simimg.bench.reader_comparison import InputComparison, Loader
    from simimg.bench.search_speed import EmbeddingSpeed, QueryTime
    from simimg.bench.training_stages import StageCost, TrainingCosts


def converters_table(stage: Stage) -> list[str]:
    """Return the converters, and whether the aims are met."""
    rounds = len(next(iter(stage.rounds.values())))
    plural = "" if rounds == 1 else "s"
    title = (
        f"{stage.name}: {stage.num_images:,} images ({stage.num_bytes / 2**20:,.0f} MB) to {IMAGE_SIZE} x "
        f"{IMAGE_SIZE}, {rounds} round{plural}: {stage.what}"
    )
    rows = [("", "images/s", "95 % interval", "simimg / rival", "95 % interval", "aim")]
    rows.append(("simimg", *_rate(stage.images_per_s, stage.ci95), "", "", ""))
    for rival in stage.rivals:
        aim = "" if rival.bar is None else f"{rival.bar:g}x: {met(bool(rival.met))}"
        ratio = (f"{rival.ratio:.2f}x", interval(rival.ratio_ci95, ".2f"))
        rows.append((rival.name, *_rate(rival.images_per_s, rival.ci95), *ratio, aim))
    parts = " and ".join(f"{name} {value:,.0f} images/s" for name, value in stage.limits.items())
    return [title, *aligned(rows), f"{100 * stage.ratio_to_limit:.1f} % of the limit ({parts})"]


def loaders_table(comparison: InputComparison) -> list[str]:
    """Return the readers and the rivals, and whether the aims are met."""
    title = f"input: {comparison.what}, shuffled batches of {comparison.batch_size}"
    rows = [("", "images/s", "95 % interval", "share of limit", "cores", "memory")]
    for loader in comparison.loaders:
        memory = f"{loader.peak_bytes / 1e9:.1f} GB"
        rows.append((loader_name(loader), *_throughput(loader), f"{loader.cores:.1f}", memory))
    rows.append(("page cache, one thread", f"{comparison.limit_images_per_s:,.0f}", "", "100.0 %", "", ""))
    lines = [title, *aligned(rows)]
    for aim in comparison.aims:
        ratio = _ratio(aim.ratio, aim.ratio_ci95)
        lines.append(f"simimg {aim.reader} is {ratio} as fast as {aim.rival}; aim {aim.aim:g}x: {met(aim.met)}")
    return lines


def loader_name(loader: Loader) -> str:
    """Return the name under which a reader is shown."""
    return f"simimg {loader.name}" if loader.is_ours else loader.name


def stages_table(costs: TrainingCosts) -> list[str]:
    """Return the stages of a training run, its bottleneck, and how to see the trace if there is one."""
    rows = [("", "images/s", "95 % interval", "share of limit", "added per image", "cores")]
    for stage in costs.stages:
        own = "" if stage.own_us is None else f"{stage.own_us:,.1f} us"
        rows.append((stage.name, *_throughput(stage), own, f"{stage.cores:.1f}"))
    memory = f"peak memory: {costs.peak_bytes / 1e9:.1f} GB"
    lines = [f"train: {costs.what}", *aligned(rows), memory, costs.bottleneck]
    if costs.profile_dir:
        lines.append(
            f"to see the trace: pip install tensorboard-plugin-profile; tensorboard --logdir={costs.profile_dir}"
        )
    return lines


def loop_table(costs: LoopCosts) -> list[str]:
    """Return the ways of training, compared with the bare step."""
    rows = [("", "steps/s", "share of bare step", "95 % interval", "added per step")]
    for way in costs.ways:
        ends = "-" if way.ci95 is None else f"{100 * way.ci95[0]:.1f} to {100 * way.ci95[1]:.1f} %"
        share = f"{100 * way.ratio_to_bare:.1f} %"
        rows.append((way.name, f"{way.steps_per_s:,.2f}", share, ends, f"{way.overhead_us:,.0f} us"))
    return [
        f"loop: {costs.what}",
        *aligned(rows),
        f"the loop is {_ratio(costs.to_fit, costs.to_fit_ci95)} as fast as Keras's fit",
    ]


def augmentations_table(costs: AugmentationCosts) -> list[str]:
    """Return each augmentation, and the comparison with Keras."""
    rows = [("", "images/s", "95 % interval", "share of limit", "pixels", "cores")]
    for cost in costs.augmentations:
        rows.append((cost.name, *_throughput(cost), f"{cost.gb_per_s:.2f} GB/s", f"{cost.cores:.1f}"))
    ratio = _ratio(costs.ratio_to_keras, costs.ratio_to_keras_ci95)
    aim = f"rotation and flip are {ratio} as fast as the layers of Keras; aim {costs.aim:g}x: {met(costs.met)}"
    return [f"augment: {costs.what}", *aligned(rows), aim]


def layers_table(speeds: LayerSpeeds) -> list[str]:
    """Return the augmentations that Keras has layers for, and how many times as fast they are."""
    rows = [("like Keras's", "images/s", "Keras: images/s", "ratio", f"aim {speeds.aim:g}x")]
    for one in speeds.layers:
        rates = (f"{one.images_per_s:,.0f}", f"{one.keras_images_per_s:,.0f}")
        rows.append((one.name, *rates, _ratio(one.ratio, one.ratio_ci95), met(one.met)))
    return [f"augment: beside Keras's layers of the same name, {speeds.what}", *aligned(rows)]


def engines_table(found: EngineSpeeds) -> list[str]:
    """Return the engines, and how far their results are from TensorFlow's."""
    rows: list[tuple[str, ...]] = [
        ("", "ms/image", "95 % interval", "processor ms", "to TensorFlow", "difference", "cosine", "same bits"),
    ]
    for engine in found.engines:
        same = [
            "-" if value is None else "yes" if value else "NO"
            for value in (engine.same_in_batches, engine.same_with_threads)
        ]
        rows.append(
            (
                engine.name,
                *_rate(engine.ms.median, engine.ms.ci95, ".2f"),
                f"{engine.cpu_ms.median:.2f}",
                _ratio(engine.times_tensorflow.median, engine.times_tensorflow.ci95),
                f"{engine.largest_difference:.1e}",
                f"{engine.least_cosine:.7f}",
                ", ".join(same),
            )
        )
    lines = [f"engines: {found.what}", *aligned(rows)]
    lines += [
        "to TensorFlow: as fast; difference: the largest of a number of the unit vectors; cosine: the least",
        "same bits: in batches of 1, 8 and 32, and with one thread as with all",
    ]
    return [*lines, *(f"not measured: {name}: {reason}" for name, reason in found.not_measured.items())]


def commands_table(costs: CommandCosts) -> list[str]:
    """Return the costs of each command, and the ratios to those of an earlier version."""
    rows: list[tuple[str, ...]] = [("", "", "s", "95 % interval", "processor s", "peak memory")]
    for cost in costs.commands:
        memory = f"{cost.peak_bytes.median / 1e6:,.0f} MB"
        cpu_s = f"{cost.cpu_seconds.median:.2f}"
        rows.append((cost.name, cost.version, *_rate(cost.seconds.median, cost.seconds.ci95, ".2f"), cpu_s, memory))
    lines = [f"commands, each in a new process: {costs.what}", *aligned(rows)]
    if costs.ratios:
        rows = [("before / this version", "s", "processor s", "peak memory")]
        for ratio in costs.ratios:
            parts = (ratio.seconds, ratio.cpu_seconds, ratio.peak_bytes)
            rows.append((ratio.name, *(_ratio(part.median, part.ci95) for part in parts)))
        lines += ["", *aligned(rows)]
    return lines


def search_table(embedding: EmbeddingSpeed, exact: ExactSearch, query: QueryTime) -> list[str]:
    """Return embedding, exact search and one query, each with its limits."""
    rows: list[tuple[str, ...]] = [("", "images/s", "95 % interval")]
    rows += [(name, *_rate(value, embedding.ci95[name])) for name, value in embedding.images_per_s.items()]
    lines = [
        f"embedding: {embedding.what}",
        *aligned(rows),
        f"index is {embedding.index_to_decode:.2f}x as fast as decoding alone and {embedding.index_to_network:.2f}x as "
        f"fast as the network alone; "
        f"aim {embedding.aim:g} images/s: {met(embedding.met)}",
        f"the network needs {embedding.gflops_per_image:.3f} GFLOP per image and reaches "
        f"{embedding.network_to_peak:.0%} of the CPU's {embedding.peak_gflops:,.0f} GFLOP/s",
    ]
    rows = [
        ("", "batch", "queries/s", "95 % interval", "read", "of memory", "of peak", "cores", "simimg / rival"),
    ]
    for speed in exact.speeds:
        shares = (f"{speed.gb_per_s:.2f} GB/s", f"{speed.ratio_to_memory:.0%}", f"{speed.ratio_to_peak:.0%}")
        ours = "" if speed.times_ours is None else _ratio(speed.times_ours, speed.times_ours_ci95)
        rate = _rate(speed.queries_per_s, speed.ci95, ",.1f")
        rows.append((speed.name, f"{speed.batch}", *rate, *shares, f"{speed.cores:.1f}", ours))
    lines += ["", f"exact search: {exact.what}", *aligned(rows)]
    lines.append(f"limits: memory {exact.memory_gb_per_s:.1f} GB/s, peak {exact.peak_gflops:,.0f} GFLOP/s")
    parts = {part.name: part for part in query.parts} | {
        "all, for the first time": query.first,
        "all, again": query.again,
    }
    rows = [("", "ms", "95 % interval")]
    rows += [(name, *_rate(part.ms, part.ci95, ",.1f")) for name, part in parts.items()]
    lines += ["", f"one query: {query.what}, medians", *aligned(rows)]
    return [*lines, f"aim {query.aim_ms:g} ms for the first time: {met(query.met)}"]


def _throughput(found: Loader | StageCost | AugmentationCost) -> tuple[str, str, str]:
    """Return images per second, their interval, and the share of the limit."""
    return *_rate(found.images_per_s, found.ci95), f"{100 * found.ratio_to_limit:.1f} %"


def _rate(value: float, ci95: tuple[float, float] | None, form: str = ",.0f") -> tuple[str, str]:
    return f"{value:{form}}", interval(ci95, form)


def _ratio(value: float, ci95: tuple[float, float] | None) -> str:
    return f"{value:.2f}x ({interval(ci95, '.2f')})"
