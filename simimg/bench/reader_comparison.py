"""Throughput of readers: this project's, other loaders', and the limit.

All deliver the same images in shuffled batches of uint8 pixels on the processor. Each runs in a process that has read
them once before, on files in the page cache. Whole epochs are timed.

The limit is reading the bytes of the shards from the page cache into a small buffer, with one thread and nothing else
to do.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from simimg.bench.converters import Tool
from simimg.bench.converters.tool_server import ReadJob
from simimg.bench.loaders import LIMIT, OURS
from simimg.bench.measurements import Estimate, Run, RunFailed, estimate, ratios, take_turns
from simimg.bench.record_sets import Records
from simimg.bench.tool_process import ToolProcess
from simimg.bench.virtualenvs import environment_variables, python_of
from simimg.errors import SimimgError, UsageError
from tfrecords.machine_limits import num_cores

__all__ = ["Aim", "InputComparison", "Loader", "compare_readers"]

# The aims of each reader on two cores, as a multiple of the rival's throughput.
_AIMS = {
    "raw": (("resident", "ffcv", 1.0), ("mapped", "dali", 3.0), ("mapped", "usual", 10.0), ("stream", "usual", 3.0)),
    "jpeg": (("mapped", "dali", 1.0), ("mapped", "ffcv", 1.0)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loader:
    """The figures of one reader or rival.

    Attributes:
        name: `resident`, `usual`, `dali`, ….
        is_ours: whether it is one of this project.
        images_per_s: its median throughput.
        ci95: the 95 % interval of that; None if there were fewer than five rounds.
        ratio_to_limit: its throughput as a share of the limit's.
        ratio_to_limit_ci95: the 95 % interval of that.
        cores: seconds of processor time per second.
        peak_bytes: the most memory that its process has had.
    """

    name: str
    is_ours: bool
    images_per_s: float
    ci95: tuple[float, float] | None
    ratio_to_limit: float
    ratio_to_limit_ci95: tuple[float, float] | None
    cores: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aim:
    """A ratio that is aimed at, and the measured one; `met` is whether its median reaches the aim."""

    reader: str
    rival: str
    ratio: float
    ratio_ci95: tuple[float, float] | None
    aim: float
    met: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputComparison:
    """All measurements.

    Attributes:
        what: a description of the images.
        num_images: images per run.
        batch_size: images per batch.
        limit_images_per_s: the throughput of the limit.
        loaders: ours first, then the rivals.
        aims: the aims whose reader and rival were both measured.
        rounds: every counted run, by tool.
        tools: script, versions and settings of each tool, by name.
        left_out: the reason for each tool that could not be compared, by name.
    """

    what: str
    num_images: int
    batch_size: int
    limit_images_per_s: float
    loaders: tuple[Loader, ...]
    aims: tuple[Aim, ...]
    rounds: dict[str, list[Run]]
    tools: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def compare_readers(
    records: Records,
    rivals: Sequence[Tool],
    *,
    batch_size: int,
    repeats: int,
    cache_dir: Path,
    ours: Sequence[Tool] = (),
    limit: Tool = LIMIT,
    wanted: Sequence[tuple[str, str, float]] = (),
    by_core: bool = False,
    note: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], Callable[[], object]] = lambda _: lambda: None,
) -> InputComparison:
    """Measures this project's readers and `rivals` on the same records.

    A rival that cannot be installed, started or run is left out, with the reason.

    Args:
        records: the records to read.
        rivals: the tools to compare with.
        batch_size: images per batch.
        repeats: counted rounds.
        cache_dir: holds the rivals' environments and their own forms of the records.
        ours: this project's tools; none are the readers of the records' encoding.
        limit: the tool that is the limit.
        wanted: the aims: one of ours, a rival, and how many times as fast it should be.
        by_core: take the processor time for the time of a run.
        note: called with a line about each phase.
        watch: takes the number of runs and returns a function to call after each.

    Raises:
        UsageError: the records do not fill a batch.
        SimimgError: one of our readers or the limit cannot be measured.
    """
    split = records.split
    if not 1 <= batch_size <= split.num_examples:
        raise UsageError(f"--batch_size={batch_size}: should be 1..{split.num_examples}, the number of images.")
    ours = ours or OURS[split.encoding]
    needed = {tool.name for tool in (*ours, limit)}
    left_out: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    tools = []
    for tool in (*ours, *rivals, limit):
        try:
            pythons[tool.name] = python_of(tool, cache_dir, note)
            tools.append(tool)
        except RunFailed as error:
            left_out[tool.name] = str(error)
    advance = watch(len(tools) * (repeats + 1))
    about: dict[str, dict[str, Any]] = {}
    note(f"{records.what}, batches of {batch_size}; {repeats} rounds and one to warm up")
    with tempfile.TemporaryDirectory(prefix="out-", dir=cache_dir / "bench") as work_dir, ExitStack() as stack:
        started: dict[str, Callable[[], Run]] = {}
        for tool in tools:
            job = _job(records, tool, batch_size, work_dir)
            try:
                process = ToolProcess(tool, pythons[tool.name], job, environment_variables(tool))
            except RunFailed as error:
                if tool.name in needed:
                    raise SimimgError(f"{tool.name} cannot be measured, but is needed: {error}.") from None
                left_out[tool.name] = str(error)
                continue
            stack.enter_context(process)
            started[tool.name] = process.run
            about[tool.name] = {"script": tool.script.name, **process.about}
        runs, failures = take_turns(started, repeats=repeats, progress=advance)
    if by_core:
        runs = {
            name: [dataclasses.replace(run, seconds=run.cpu_seconds) for run in each] for name, each in runs.items()
        }
    for name, reason in failures.items():
        if name in needed:
            raise SimimgError(f"{name} cannot be measured, but is needed: {reason}.")
    return InputComparison(
        what=records.what,
        num_images=split.num_examples // batch_size * batch_size,
        batch_size=batch_size,
        limit_images_per_s=estimate([run.images_per_s for run in runs[limit.name]]).median,
        loaders=tuple(
            loader(name, name in needed, found, runs[limit.name]) for name, found in runs.items() if name != limit.name
        ),
        aims=aims(split.encoding, runs, wanted),
        rounds=runs,
        tools=about,
        left_out={**left_out, **failures},
    )


def loader(name: str, is_ours: bool, runs: Sequence[Run], limit: Sequence[Run]) -> Loader:
    """Returns the figures of a tool from its runs and the limit's; both have the same number of runs."""
    throughput = estimate([run.images_per_s for run in runs])
    to_limit = estimate(ratios(runs, limit))
    return Loader(
        name=name,
        is_ours=is_ours,
        images_per_s=throughput.median,
        ci95=throughput.ci95,
        ratio_to_limit=to_limit.median,
        ratio_to_limit_ci95=to_limit.ci95,
        cores=estimate([run.cpu_seconds / run.seconds for run in runs]).median,
        peak_bytes=max(run.peak_bytes for run in runs),
    )


def aims(
    encoding: str, runs: Mapping[str, Sequence[Run]], wanted: Sequence[tuple[str, str, float]] = ()
) -> tuple[Aim, ...]:
    """Returns the aims for an encoding, or those `wanted` (a reader, a rival, how many times as fast), beside the
    measured ratios.
    """
    found = []
    for reader, rival, aim in wanted or _AIMS[encoding]:
        if reader in runs and rival in runs:
            ratio: Estimate = estimate(ratios(runs[reader], runs[rival]))
            found.append(
                Aim(
                    reader=reader,
                    rival=rival,
                    ratio=ratio.median,
                    ratio_ci95=ratio.ci95,
                    aim=aim,
                    met=ratio.median >= aim,
                )
            )
    return tuple(found)


def _job(records: Records, tool: Tool, batch_size: int, work_dir: str) -> ReadJob:
    split = records.split
    shards = [shard for shard in split.shards if shard.num_examples]
    return ReadJob(
        dataset_dir=str(split.dataset_dir),
        shards=[str(shard.path) for shard in shards],
        records=[shard.num_examples for shard in shards],
        image_dir=str(records.image_dir),
        encoding=split.encoding,
        image_size=split.image_shape[0],  # records for measurements are squares
        batch_size=batch_size,
        num_workers=num_cores(),
        variant=tool.variant,
        forms_dir=str(records.forms_dir),
        work_dir=work_dir,
    )
