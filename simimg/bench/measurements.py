"""Measuring: turns of several tools, medians and ratios with their intervals.

A shared machine changes its speed from minute to minute. So the tools take turns within each round, and a ratio is
computed within a round and only then combined over the rounds: what slows down a round slows down both its sides.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from simimg.bench.converters.tool_server import cpu_seconds

__all__ = [
    "MIN_FOR_INTERVAL",
    "Estimate",
    "Run",
    "RunFailed",
    "estimate",
    "limit_of_both",
    "ratios",
    "repeating",
    "take_turns",
    "timed",
    "wait_for",
]

MIN_FOR_INTERVAL = 5  # with fewer values, a bootstrap interval is narrower than the true one by a wide margin
_NUM_RESAMPLES = 10_000
_MIN_TURN_S = 1.0
_MIN_CALLS = 3


class RunFailed(Exception):
    """A tool cannot run, or did not do its job; `str(error)` is the reason to report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One timed run of one tool.

    Attributes:
        seconds: wall time.
        num_images: images processed; other stages count queries or floating-point operations.
        num_bytes: bytes left on disk, or read.
        cpu_seconds: processor time of all cores together.
        peak_bytes: the most memory that the process has had.
    """

    seconds: float
    num_images: int
    num_bytes: int
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def images_per_s(self) -> float:
        """Throughput."""
        return self.num_images / self.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A median and its 95 % interval, which is None where there are too few values for one."""

    median: float
    ci95: tuple[float, float] | None


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Returns the median of `values` with its 95 % interval by the percentile bootstrap.

    Args:
        values: at least one.
        seed: of the resampling, so that the same values always have the same interval.
    """
    array = np.asarray(values, np.float64)
    if len(array) < MIN_FOR_INTERVAL:
        return Estimate(float(np.median(array)), None)
    drawn = np.random.default_rng(seed).integers(0, len(array), (_NUM_RESAMPLES, len(array)))
    low, high = np.quantile(np.median(array[drawn], axis=1), (0.025, 0.975))
    return Estimate(float(np.median(array)), (float(low), float(high)))


def ratios(runs: Sequence[Run], others: Sequence[Run]) -> list[float]:
    """Returns how many times as fast `runs` are as `others`, round by round."""
    return [run.images_per_s / other.images_per_s for run, other in zip(runs, others, strict=True)]


def limit_of_both(first: Sequence[Run], second: Sequence[Run]) -> list[Run]:
    """Returns, round by round, the run of doing one job after the other: their seconds per image add up."""
    return [
        Run(one.seconds / one.num_images + two.seconds / two.num_images, 1, 0)
        for one, two in zip(first, second, strict=True)
    ]


def take_turns(
    tools: Mapping[str, Callable[[], Run]],
    *,
    repeats: int,
    progress: Callable[[], object] = lambda: None,
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Runs each tool once to warm up and then `repeats` times, all in turn.

    Round r starts with tool r. Otherwise a tool would always run right after the same other one, while the bytes of
    that one are still being written to disk.

    Args:
        tools: by name, a function that runs the tool once.
        repeats: counted rounds, at least 1.
        progress: called after each run.

    Returns:
        The counted runs by tool, the same number for each; and the reason of each tool that failed, which has no runs.
    """
    names = list(tools)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    for number in range(repeats + 1):  # the first is the warm-up
        shift = number % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            if name not in failures:
                try:
                    run = tools[name]()
                except RunFailed as error:
                    failures[name] = str(error)
                else:
                    if number:
                        runs[name].append(run)
            progress()
    return {name: runs[name] for name in names if name not in failures}, failures


def repeating(call: Callable[[], Any], num_images: int) -> Callable[[], Run]:
    """Returns a function that times one turn of `call`, which returns tensors and processes `num_images` images."""
    last: list[Any] = []

    def once() -> int:
        last[:] = [call()]
        return num_images

    return lambda: timed(once, lambda: wait_for(last))


def timed(
    once: Callable[[], int],
    wait: Callable[[], None] = lambda: None,
    *,
    min_s: float | None = None,
    min_calls: int = _MIN_CALLS,
) -> Run:
    """Calls `once` again and again in this process for one turn.

    Args:
        once: returns the number of images that it processed.
        wait: called at the end of the turn, to wait for the work that a device still has.
        min_s: the turn takes at least so long; by default a second.
        min_calls: and has at least so many calls.
    """
    shortest = _MIN_TURN_S if min_s is None else min_s
    cpu_start, start = cpu_seconds(), time.perf_counter()
    num_images = num_calls = 0
    while num_calls < min_calls or time.perf_counter() - start < shortest:
        num_images += once()
        num_calls += 1
    wait()
    return Run(time.perf_counter() - start, num_images, 0, cpu_seconds() - cpu_start)


def wait_for(result: Any) -> None:
    """Returns when the devices have computed all tensors of a structure, the parts of replicas included."""
    import tensorflow as tf  # here, because the comparison of converters does without it

    for part in tf.nest.flatten(result):
        for tensor in getattr(part, "values", (part,)):
            tensor.numpy()
