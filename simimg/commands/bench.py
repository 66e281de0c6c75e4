"""Measure how fast a stage runs here, beside other tools and beside what the machine allows.

`--stage=convert` converts the JPEG files of a folder to 64 x 64 px with simimg and with each rival in turn, and once
more with four times as many pictures. Rivals that are not part of simimg's own installation (dali, ffcv) get virtual
environments of their own under --cache_dir, which takes some minutes and 2.5 GB once. A rival that cannot be installed
is named with the reason; the exit code is then 2. Every run's time goes into a dated JSON file in --out_dir.

Example: simimg bench --stage=convert --image_dir=photos
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simimg.bench import machine_facts
from simimg.bench.convert import IMAGE_SIZE, Comparison, Stage, compare_converters
from simimg.bench.rivals import RIVALS, Tool
from simimg.commands.console import Result, note, progress_bar
from simimg.errors import UsageError
from simimg.sample import draw_sample
from tfrecords.format.files import write_json
from tfrecords.options import check_choices, option, to_json

_RIVALS = ("tutorial", "tfdata", "dali", "ffcv")
_LARGE_RIVALS = ("tutorial",)
_BUSY = 0.3  # processes a core that run or wait, from which on a machine is not quiet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `bench` can be told."""

    stage: str = option("What to measure.", choices=("convert",))
    image_dir: Path | None = option("Pictures to convert, one folder a class; by default they are drawn.", None)
    out_dir: Path = option("The dated results go here.", Path("bench_results"))
    rivals: tuple[str, ...] = option(
        f"Whom to compare with: {', '.join(RIVALS)}, or none; by default {', '.join(_RIVALS)}.", ()
    )
    repeats: int = option("Rounds that count; the intervals need 5 or more.", 9)
    replicate: int = option("Converts so many times as many pictures, too; 1 to 8, 1 to leave that out.", 4)
    megapixels: int = option("Converts pictures of this size instead, against the tutorial; 12 is a camera's.", 0)
    num_large: int = option("How many pictures of --megapixels; 12 megapixels take 5 MB each in --cache_dir.", 200)
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
    with progress_bar(None, "measuring", "run") as bar:

        def watch(num_runs: int) -> Callable[[], object]:
            bar.total = num_runs
            return bar.update

        comparison = compare_converters(
            options.image_dir or _drawn(cache_dir),
            rivals,
            cache_dir=cache_dir,
            repeats=options.repeats,
            replicate=options.replicate,
            megapixels=options.megapixels,
            num_large=options.num_large,
            note=note,
            watch=watch,
        )
    command = [f"--{name}={_flag(value)}" for name, value in to_json(options).items() if value not in (None, [])]
    values = {
        "format": "simimg-bench/1",
        "date": start.isoformat(timespec="seconds"),
        "command": shlex.join(["simimg", "bench", *command]),
        "machine": machine_facts(),
        "load_per_core": {"before": load, "after": _load_per_core()},
        "repeats": options.repeats,
        **dataclasses.asdict(comparison),
    }
    file = options.out_dir / f"bench-{options.stage}-{start:%Y-%m-%dT%H-%M-%SZ}.json"
    options.out_dir.mkdir(parents=True, exist_ok=True)
    write_json(file, values)
    text = "\n".join([*_lines(values["machine"], comparison), "", f"every run is in {file}"])
    return Result(values={**values, "file": str(file)}, text=text, exit_code=2 if comparison.left_out else 0)


def _rivals(options: Options) -> list[Tool]:
    names = options.rivals or (_LARGE_RIVALS if options.megapixels else _RIVALS)
    names = () if names == ("none",) else tuple(dict.fromkeys(names))
    for name in names:
        if name not in RIVALS:
            raise UsageError(f"--rivals={','.join(names)}: {name!r} should be one of {', '.join(RIVALS)}, or none.")
    return [RIVALS[name] for name in names]


def _drawn(cache_dir: Path) -> Path:
    image_dir = cache_dir / "bench" / "sample"
    draw_sample(image_dir)
    return image_dir


def _load_per_core() -> float:
    return round(os.getloadavg()[0] / int(machine_facts()["cores"]), 2)


def _flag(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _lines(machine: dict[str, str], comparison: Comparison) -> list[str]:
    lines = [f"{machine['processor']}, {machine['cores']} cores; {machine['versions']}"]
    for stage in comparison.stages:
        lines += ["", *_table(stage)]
    lines += [f"left out: {name}: {reason}" for name, reason in comparison.left_out.items()]
    return lines


def _table(stage: Stage) -> list[str]:
    rounds = len(next(iter(stage.rounds.values())))
    plural = "" if rounds == 1 else "s"
    title = (
        f"{stage.name}: {stage.num_images:,} pictures ({stage.num_bytes / 2**20:,.0f} MB) to {IMAGE_SIZE} x "
        f"{IMAGE_SIZE}, {rounds} round{plural}: {stage.what}"
    )
    rows = [("", "images/s", "95 % interval", "simimg is", "95 % interval", "aim")]
    rows.append(("simimg", f"{stage.images_per_s:,.0f}", _interval(stage.ci95, ",.0f"), "", "", ""))
    for rival in stage.rivals:
        aim = "" if rival.bar is None else f"{rival.bar:g}x: {'met' if rival.met else 'NOT MET'}"
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" if not at else f"{cell:>{width}}" for at, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in rows)
    ]
    parts = " and ".join(f"{name} {value:,.0f} images/s" for name, value in stage.limits.items())
    lines.append(f"{100 * stage.ratio_to_limit:.1f} % of the limit ({parts})")
    return [title, *(line.rstrip() for line in lines)]


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return "-" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"
