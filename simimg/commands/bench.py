"""Measure how fast pictures are converted and read here, beside other tools and the machine's limit.

`--stage=convert` converts the JPEG files of a folder to 64 x 64 px with simimg and with each rival in turn, and once
more with four times as many pictures. `--stage=input` reads records in shuffled batches, with simimg's readers and
with other loaders, and draws a plot.

Rivals that are not part of simimg's own installation get virtual environments of their own under --cache_dir, which
takes some minutes and 3 GB once. A rival that cannot be installed is named with the reason; the exit code is then 2.
Every run's time goes into a dated JSON file in --out_dir.

Examples:
    simimg bench --stage=convert --image_dir=photos
    simimg bench --stage=input --image_dir=photos --encoding=jpeg --image_size=224 --num_images=6000
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simimg.bench import machine_facts
from simimg.bench.convert import IMAGE_SIZE, Comparison, Stage, compare_converters
from simimg.bench.pictures import good_jpegs
from simimg.bench.readers import RIVALS as LOADERS
from simimg.bench.rivals import RIVALS, Tool
from simimg.commands.console import Result, note, progress_bar, quiet_tensorflow
from simimg.errors import UsageError
from simimg.sample import draw_sample
from tfrecords.format.files import write_json
from tfrecords.options import check_choices, option, to_json

with quiet_tensorflow():
    from simimg.bench.input import InputComparison, compare_readers
    from simimg.bench.plot import plot_readers
    from simimg.bench.shards import records_of

_CONVERTERS = ("tutorial", "tfdata", "dali", "ffcv")
_LARGE_CONVERTERS = ("tutorial",)
_BUSY = 0.3  # processes a core that run or wait, from which on a machine is not quiet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `bench` can be told."""

    stage: str = option("What to measure.", choices=("convert", "input"))
    image_dir: Path | None = option("Pictures to use, one folder a class; by default they are drawn.", None)
    out_dir: Path = option("The dated results go here.", Path("bench_results"))
    rivals: tuple[str, ...] = option("Whom to compare with, or none; by default all; --stage decides who there is.", ())
    repeats: int = option("Rounds that count; the intervals need 5 or more.", 9)
    replicate: int = option("convert: so many times as many pictures, too; 1 to 8, 1 to leave that out.", 4)
    megapixels: int = option("convert: pictures of this size instead, against the tutorial; 12 is a camera's.", 0)
    num_large: int = option("convert: how many of --megapixels; of 12 they take 5 MB each in --cache_dir.", 200)
    encoding: str = option("input: what the records hold.", "raw", choices=tuple(LOADERS))
    image_size: int = option("input: side of the pictures, in px.", 64)
    batch_size: int = option("input: pictures a batch.", 256)
    num_images: int = option("input: pictures an epoch.", 60_000)
    cache_dir: Path = option("Environments of rivals, and the pictures, are kept here.", Path("~/.cache/simimg"))


def run(options: Options) -> Result:
    """Measures, writes the dated file and returns what is in it."""
    check_choices(options)
    if options.repeats < 1:
        raise UsageError(f"--repeats={options.repeats}: should be 1 or more.")
    rivals = _rivals(options)
    cache_dir = options.cache_dir.expanduser().absolute()
    start = datetime.datetime.now(datetime.UTC)
    load = _load_per_core()
    if load > _BUSY:
        note(f"the machine is busy ({load:.1f} processes a core); figures of a quiet one are better")
    image_dir = options.image_dir or _drawn(cache_dir)
    comparison: Comparison | InputComparison
    with progress_bar(None, "measuring", "run") as bar:

        def watch(num_runs: int) -> Callable[[], object]:
            bar.total = num_runs
            return bar.update

        if options.stage == "convert":
            comparison = _compare_converters(options, image_dir, rivals, cache_dir, watch)
        else:
            comparison = _compare_readers(options, image_dir, rivals, cache_dir, watch)
    machine = machine_facts()
    command = [f"--{name}={_flag(value)}" for name, value in to_json(options).items() if value not in (None, [])]
    values = {
        "format": "simimg-bench/1",
        "date": start.isoformat(timespec="seconds"),
        "command": shlex.join(["simimg", "bench", *command]),
        "machine": machine,
        "load_per_core": {"before": load, "after": _load_per_core()},
        "repeats": options.repeats,
        **dataclasses.asdict(comparison),
    }
    file = options.out_dir / f"bench-{options.stage}-{start:%Y-%m-%dT%H-%M-%SZ}.json"
    options.out_dir.mkdir(parents=True, exist_ok=True)
    write_json(file, values)
    lines = [f"{machine['processor']}, {machine['cores']} cores; {machine['versions']}"]
    ending = f"every run is in {file}"
    if isinstance(comparison, InputComparison):
        plot_readers(comparison, machine, file.with_suffix(".png"))
        ending += f", the plot in {file.with_suffix('.png')}"
        lines += ["", *_loaders_table(comparison)]
    else:
        for stage in comparison.stages:
            lines += ["", *_converters_table(stage)]
    lines += [f"left out: {name}: {reason}" for name, reason in comparison.left_out.items()]
    text = "\n".join([*lines, "", ending])
    return Result(values={**values, "file": str(file)}, text=text, exit_code=2 if comparison.left_out else 0)


def _compare_converters(
    options: Options,
    image_dir: Path,
    rivals: Sequence[Tool],
    cache_dir: Path,
    watch: Callable[[int], Callable[[], object]],
) -> Comparison:
    return compare_converters(
        image_dir,
        rivals,
        cache_dir=cache_dir,
        repeats=options.repeats,
        replicate=options.replicate,
        megapixels=options.megapixels,
        num_large=options.num_large,
        note=note,
        watch=watch,
    )


def _compare_readers(
    options: Options,
    image_dir: Path,
    rivals: Sequence[Tool],
    cache_dir: Path,
    watch: Callable[[int], Callable[[], object]],
) -> InputComparison:
    note("preparing the records")
    records = records_of(
        good_jpegs(image_dir, cache_dir), options.num_images, options.image_size, options.encoding, cache_dir
    )
    return compare_readers(
        records,
        rivals,
        batch_size=options.batch_size,
        repeats=options.repeats,
        cache_dir=cache_dir,
        note=note,
        watch=watch,
    )


def _rivals(options: Options) -> list[Tool]:
    there = RIVALS if options.stage == "convert" else LOADERS[options.encoding]
    default = tuple(there)
    if options.stage == "convert":
        default = _LARGE_CONVERTERS if options.megapixels else _CONVERTERS
    names = options.rivals or default
    names = () if names == ("none",) else tuple(dict.fromkeys(names))
    for name in names:
        if name not in there:
            raise UsageError(f"--rivals={','.join(names)}: {name!r} should be one of {', '.join(there)}, or none.")
    return [there[name] for name in names]


def _drawn(cache_dir: Path) -> Path:
    image_dir = cache_dir / "bench" / "sample"
    draw_sample(image_dir)
    return image_dir


def _load_per_core() -> float:
    return round(os.getloadavg()[0] / int(machine_facts()["cores"]), 2)


def _flag(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _converters_table(stage: Stage) -> list[str]:
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


def _loaders_table(comparison: InputComparison) -> list[str]:
    title = f"input: {comparison.what}, shuffled batches of {comparison.batch_size}"
    rows = [("", "images/s", "95 % interval", "of the limit", "cores", "memory")]
    for loader in comparison.loaders:
        rows.append(
            (
                f"simimg {loader.name}" if loader.is_ours else loader.name,
                f"{loader.images_per_s:,.0f}",
                _interval(loader.ci95, ",.0f"),
                f"{100 * loader.ratio_to_limit:.1f} %",
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
