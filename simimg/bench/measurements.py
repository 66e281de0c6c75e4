"""Measuring: runs of several tools in turn, and medians and ratios with their intervals.

A shared machine changes its speed from minute to minute. So the tools take turns within each round, and a ratio is
taken within a round and only then put together over the rounds: what slows a round down slows both its sides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

__all__ = ["MIN_FOR_INTERVAL", "Estimate", "Run", "RunFailed", "estimate", "limit_of_both", "ratios", "take_turns"]

MIN_FOR_INTERVAL = 5  # of fewer values, a bootstrap's interval is narrower than the truth by a wide margin
_NUM_RESAMPLES = 10_000


class RunFailed(Exception):
    """A tool cannot be run, or did not do its job; `str(error)` is the reason to report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One timed run of one tool: seconds, pictures, bytes left on disk, seconds of all cores together, most memory."""

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
        seed: of the resampling, so that the same values always get the same interval.
    """
    array = np.asarray(values, np.float64)
    if len(array) < MIN_FOR_INTERVAL:
        return Estimate(float(np.median(array)), None)
    drawn = np.random.default_rng(seed).integers(0, len(array), (_NUM_RESAMPLES, len(array)))
    low, high = np.quantile(np.median(array[drawn], axis=1), (0.025, 0.975))
    return Estimate(float(np.median(array)), (float(low), float(high)))


def ratios(runs: Sequence[Run], others: Sequence[Run]) -> list[float]:
    """Returns how many times faster `runs` are than `others`, round by round."""
    return [run.images_per_s / other.images_per_s for run, other in zip(runs, others, strict=True)]


def limit_of_both(first: Sequence[Run], second: Sequence[Run]) -> list[Run]:
    """Returns, round by round, the run of doing one thing after the other: the seconds a picture add up."""
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

    Round r starts with tool r, so that none always runs right after the same other one, while its bytes are still
    being written back to disk.

    Args:
        tools: what runs each tool once, by name.
        repeats: counted rounds, at least 1.
        progress: called after each run.

    Returns:
        The counted runs by tool, as many for each; and the reason of each tool that failed, which has no runs.
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
