"""Medians, intervals and ratios against what they should be by other ways of counting; turns in the right order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from simimg.bench.measurements import Run, RunFailed, estimate, limit_of_both, ratios, take_turns


def quantile_of_resampled_median(values: list[float], share: float) -> float:
    """Returns the exact quantile of the median of `values` drawn with replacement, for an odd number of values.

    That median is at most the k-th smallest value when more than half of the draws are, which is a binomial tail.
    """
    count, ordered = len(values), sorted(values)
    for rank in range(1, count + 1):
        chance = rank / count
        tail = sum(
            math.comb(count, hits) * chance**hits * (1 - chance) ** (count - hits)
            for hits in range(count // 2 + 1, count + 1)
        )
        if tail >= share:
            return ordered[rank - 1]
    raise AssertionError


@pytest.mark.parametrize("count", [5, 7, 9, 11, 13])
def test_interval_is_the_exact_one_of_the_bootstrap(count: int) -> None:
    values = np.random.default_rng(count).lognormal(7, 0.1, count).tolist()
    found = estimate(values)
    assert found.median == np.median(values)
    assert found.ci95 is not None
    assert found.ci95 == pytest.approx(
        (quantile_of_resampled_median(values, 0.025), quantile_of_resampled_median(values, 0.975))
    )
    assert estimate(values) == found  # the resampling has a seed


def test_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = estimate(rng.normal(100, 5, 15).tolist()).ci95 or (0, 0)
        hits += low <= 100 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_one_slow_round_moves_neither_the_median_nor_the_interval_far() -> None:
    low, high = estimate([100, 101, 99, 100, 102, 98, 100, 101, 50]).ci95 or (0, 0)
    assert 98 <= low <= 100 <= high <= 101


def test_few_values_have_no_interval() -> None:
    assert estimate([3.0, 1.0, 2.0, 10.0]) == estimate([10.0, 3.0, 2.0, 1.0])
    assert (estimate([3.0, 1.0, 2.0, 10.0]).median, estimate([1.0, 2.0, 3.0, 10.0]).ci95) == (2.5, None)
    assert estimate([1.0] * 5).ci95 == (1.0, 1.0)


def test_a_ratio_does_not_see_what_slows_a_whole_round() -> None:
    slowdowns = [1.0, 2.0, 1.3, 5.0, 1.1]
    ours = [Run(slowdown * 1.0, 100, 0) for slowdown in slowdowns]
    theirs = [Run(slowdown * 3.0, 120, 0) for slowdown in slowdowns]
    assert ratios(ours, theirs) == pytest.approx([2.5] * 5)
    with pytest.raises(ValueError, match="shorter"):
        ratios(ours, theirs[:4])


def test_limit_of_two_things_done_one_after_the_other() -> None:
    (run,) = limit_of_both([Run(2.0, 100, 0)], [Run(1.0, 200, 0)])  # 50 and 200 a second: 20 ms and 5 ms a picture
    assert run.images_per_s == pytest.approx(40)


def test_turns() -> None:
    order = []

    def tool(name: str) -> Callable[[], Run]:
        def run() -> Run:
            order.append(name)
            return Run(float(len(order)), 1, 0)

        return run

    num_calls = []
    runs, failures = take_turns(
        {name: tool(name) for name in "abc"}, repeats=3, progress=lambda: num_calls.append(len(order))
    )
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"  # the first round warms up
    assert num_calls == list(range(1, 13))
    assert failures == {}
    assert {name: [run.seconds for run in runs[name]] for name in runs} == {
        "a": [6, 8, 10],
        "b": [4, 9, 11],
        "c": [5, 7, 12],
    }


def test_who_fails_is_left_out_and_the_others_go_on() -> None:
    num_calls = {"good": 0, "bad": 0}

    def good() -> Run:
        num_calls["good"] += 1
        return Run(1.0, 1, 0)

    def bad() -> Run:
        num_calls["bad"] += 1
        if num_calls["bad"] == 3:
            raise RunFailed("out of paper")
        return Run(1.0, 1, 0)

    runs, failures = take_turns({"bad": bad, "good": good}, repeats=5)
    assert failures == {"bad": "out of paper"}
    assert {name: len(of_tool) for name, of_tool in runs.items()} == {"good": 5}
    assert num_calls == {"good": 6, "bad": 3}
