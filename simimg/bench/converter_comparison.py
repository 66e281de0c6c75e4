"""Throughput of converters: this project's, other tools', and the limit.

All tools convert the same JPEG files to 64 x 64 px and write them in their own format. Each runs in a process that has
done its imports and the whole job once before, on files in the page cache. The whole call is timed.

No converter can exceed the limit: reading and hashing every file, and then writing the bytes of the results, with all
cores and nothing else to do.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from simimg.bench.converters import LIMIT_READ, LIMIT_WRITE, OURS, Tool
from simimg.bench.converters.tool_server import ConvertJob
from simimg.bench.image_sets import DAYLIGHT, HIGH_SENSITIVITY, ImageSet, good_jpegs, large_jpegs, turned_jpegs
from simimg.bench.measurements import Run, RunFailed, estimate, limit_of_both, ratios, take_turns
from simimg.bench.tool_process import ToolProcess
from simimg.bench.virtualenvs import environment_variables, python_of
from simimg.errors import SimimgError
from tfrecords.machine_limits import num_cores

__all__ = ["IMAGE_SIZE", "Against", "Comparison", "Stage", "compare_converters"]

IMAGE_SIZE = 64

_NEEDED = (OURS, LIMIT_READ, LIMIT_WRITE)

# The aims of the converter on two cores, as a multiple of the rival's throughput.
_BARS = {"tutorial": 4.0, "tfdata": 1.8, "dali": 1.8, "ffcv": 1.8}
_LARGE_BARS = {"tutorial": 8.0}  # camera photos, for which scaled decoding saves most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Against:
    """One rival: its throughput, and how many times as fast simimg is, with 95 % intervals.

    `met` is whether the ratio reaches `bar`; both are None for a rival without an aim.
    """

    name: str
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio: float
    ratio_ci95: tuple[float, float] | None
    bar: float | None
    met: bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One set of images, converted by all tools.

    Attributes:
        name: `convert`, `convert-x4`, `convert-12mp`, `convert-12mp-noisy`.
        what: a description of the images.
        num_images: their number.
        num_bytes: the size of their files.
        images_per_s: simimg's median throughput.
        ci95: its 95 % interval; None if there were fewer than five rounds.
        ratio_to_limit: that throughput as a share of the limit's.
        ratio_to_limit_ci95: its interval.
        limits: throughput of each part of the limit, in images/s.
        rivals: the other tools.
        rounds: every counted run, by tool.
    """

    name: str
    what: str
    num_images: int
    num_bytes: int
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio_to_limit: float
    ratio_to_limit_ci95: tuple[float, float] | None
    limits: dict[str, float]
    rivals: tuple[Against, ...]
    rounds: dict[str, list[Run]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All measurements.

    Attributes:
        stages: one per set of images.
        tools: script, versions and settings of each tool, by name.
        left_out: the reason for each tool that could not be compared, by name.
    """

    stages: tuple[Stage, ...]
    tools: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def compare_converters(
    image_dir: Path,
    rivals: Sequence[Tool],
    *,
    cache_dir: Path,
    repeats: int,
    replicate: int = 1,
    megapixels: int = 0,
    num_large: int = 0,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> Comparison:
    """Measures on the images of `image_dir`, and on more or larger images made of them.

    A tool that cannot be installed, started or run is left out, with the reason.

    Args:
        image_dir: its JPEG files are copied; the others are not used.
        rivals: the tools to compare with.
        cache_dir: holds the rivals' environments and the images, which stay, and the tools' output, which is removed;
            so all of them are on one disk.
        repeats: counted rounds.
        replicate: if more than 1, a second stage converts that many times as many images.
        megapixels: if not 0, images of this size are converted instead.
        num_large: their number; at least 1 if `megapixels` is not 0.
        note: called with a line about each phase.
        watch: takes the number of runs and returns a function to call after each.

    Raises:
        UsageError: there are no images, or `replicate`, `megapixels` or `num_large` is out of range.
        SimimgError: simimg or the limit cannot be measured.
    """
    note("preparing the images")
    photos = good_jpegs(image_dir, cache_dir)
    if megapixels:
        jobs = {
            f"convert-{megapixels}mp{name}": large_jpegs(photos, megapixels, num_large, cache_dir, noise=noise)
            for name, noise in (("", DAYLIGHT), ("-noisy", HIGH_SENSITIVITY))
        }
        bars = _LARGE_BARS
    else:
        jobs, bars = {"convert": photos}, _BARS
        if replicate != 1:
            jobs[f"convert-x{replicate}"] = turned_jpegs(photos, replicate, cache_dir)

    left_out: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    tools = []
    for tool in (OURS, *rivals, LIMIT_READ, LIMIT_WRITE):
        try:
            pythons[tool.name] = python_of(tool, cache_dir, note)
            tools.append(tool)
        except RunFailed as error:
            left_out[tool.name] = str(error)

    advance = watch(len(jobs) * len(tools) * (repeats + 1))
    about: dict[str, dict[str, Any]] = {}
    stages = []
    for name, pictures in jobs.items():
        with tempfile.TemporaryDirectory(prefix="out-", dir=cache_dir / "bench") as work_dir, ExitStack() as stack:
            note(f"{name}: {len(pictures.files):,} images, {repeats} rounds and one to warm up")
            started: dict[str, Callable[[], Run]] = {}
            for tool in tools:
                try:
                    process = ToolProcess(
                        tool, pythons[tool.name], _job(pictures, tool, work_dir), environment_variables(tool)
                    )
                except RunFailed as error:
                    if tool in _NEEDED:
                        raise _cannot_measure(tool, error) from None
                    left_out[tool.name] = str(error)
                    continue
                stack.enter_context(process)
                started[tool.name] = partial(_run_needed, tool, process) if tool in _NEEDED else process.run
                about[tool.name] = {"script": tool.script.name, **process.about}
            runs, failures = take_turns(started, repeats=repeats, progress=advance)
            left_out.update(failures)
        stages.append(stage(name, pictures, runs, bars))
    return Comparison(stages=tuple(stages), tools=about, left_out=left_out)


def stage(name: str, pictures: ImageSet, runs: Mapping[str, list[Run]], bars: Mapping[str, float]) -> Stage:
    """Returns the figures of a stage from its runs.

    Args:
        name: the name of the stage.
        pictures: the images that were converted.
        runs: by tool: simimg, both parts of the limit, and any rivals; the same number of runs for each.
        bars: the ratio aimed at, by rival.
    """
    ours, first, second = runs[OURS.name], runs[LIMIT_READ.name], runs[LIMIT_WRITE.name]
    throughput = estimate([run.images_per_s for run in ours])
    to_limit = estimate(ratios(ours, limit_of_both(first, second)))
    rivals = [name for name in runs if name not in {tool.name for tool in _NEEDED}]
    return Stage(
        name=name,
        what=pictures.what,
        num_images=len(pictures.files),
        num_bytes=pictures.num_bytes,
        images_per_s=throughput.median,
        ci95=throughput.ci95,
        ratio_to_limit=to_limit.median,
        ratio_to_limit_ci95=to_limit.ci95,
        limits={
            tool.name: estimate([run.images_per_s for run in runs[tool.name]]).median
            for tool in (LIMIT_READ, LIMIT_WRITE)
        },
        rivals=tuple(_against(name, ours, runs[name], bars.get(name)) for name in rivals),
        rounds=dict(runs),
    )


def _run_needed(tool: Tool, process: ToolProcess) -> Run:
    try:
        return process.run()
    except RunFailed as error:
        raise _cannot_measure(tool, error) from None


def _cannot_measure(tool: Tool, error: RunFailed) -> SimimgError:
    return SimimgError(f"{tool.name} cannot be measured, but is needed: {error}.")


def _against(name: str, ours: Sequence[Run], theirs: Sequence[Run], bar: float | None) -> Against:
    throughput = estimate([run.images_per_s for run in theirs])
    ratio = estimate(ratios(ours, theirs))
    return Against(
        name=name,
        images_per_s=throughput.median,
        ci95=throughput.ci95,
        ratio=ratio.median,
        ratio_ci95=ratio.ci95,
        bar=bar,
        met=None if bar is None else ratio.median >= bar,
    )


def _job(pictures: ImageSet, tool: Tool, work_dir: str) -> ConvertJob:
    return ConvertJob(
        image_dir=str(pictures.folder),
        files=list(pictures.files),
        labels=pictures.labels(),
        image_size=IMAGE_SIZE,
        num_workers=num_cores(),
        variant=tool.variant,
        work_dir=work_dir,
    )
