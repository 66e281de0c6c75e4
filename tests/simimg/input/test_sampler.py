"""The contract of order, as properties: permutations, positions, replicas and processes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import UsageError
from simimg.input.permutation import Mixing
from simimg.input.sampler import Order, Position


def batches(order: Order) -> np.ndarray:
    """All elements as an array `[num_elements, per_replica_batch_size]`."""
    return np.array(list(order.indices().as_numpy_iterator()), np.int64).reshape(-1, order.per_replica_batch_size)


@given(
    num_examples=st.integers(1, 200),
    per_replica=st.integers(1, 9),
    num_replicas=st.integers(1, 8),
    seed=st.integers(-9, 9),
)
@settings(max_examples=10)  # each one makes datasets, which takes 0.2 s
def test_an_epoch_is_a_permutation_whatever_the_replicas(
    num_examples: int, per_replica: int, num_replicas: int, seed: int
) -> None:
    total = per_replica * num_replicas
    if total > num_examples:
        num_examples += total
    common = {"num_examples": num_examples, "global_batch_size": total, "num_epochs": 2, "seed": seed}
    one = batches(Order(**common))
    many = batches(Order(**common, num_replicas=num_replicas))
    np.testing.assert_array_equal(many.reshape(one.shape), one)
    steps = num_examples // total
    for epoch in (one[:steps], one[steps:]):
        assert len(np.unique(epoch)) == steps * total
        assert epoch.min() >= 0
        assert epoch.max() < num_examples


@given(start=st.integers(0, 19), num_local=st.sampled_from([1, 2, 4]))
@settings(max_examples=10)
def test_any_start_and_any_division_over_processes(start: int, num_local: int) -> None:
    common = {"num_examples": 83, "global_batch_size": 16, "num_epochs": 4, "seed": 5}  # 5 steps an epoch
    whole = batches(Order(**common)).reshape(20, 4, 4)
    for first in range(0, 4, num_local):
        order = Order(
            **common,
            num_replicas=4,
            first_replica=first,
            num_local_replicas=num_local,
            start=Position(*divmod(start, 5)),
        )
        expected = whole[start:, first : first + num_local].reshape(-1, 4)
        np.testing.assert_array_equal(batches(order), expected)


@given(
    num_examples=st.integers(1, 300),
    per_replica=st.integers(1, 9),
    block=st.integers(1, 40),
    blocks_per_window=st.integers(1, 6),
    start=st.integers(0, 30),
)
@settings(max_examples=8)
def test_a_windowed_epoch_is_a_permutation_too(
    num_examples: int, per_replica: int, block: int, blocks_per_window: int, start: int
) -> None:
    num_examples = max(num_examples, 2 * per_replica)
    mixing = Mixing(block=block, blocks_per_window=blocks_per_window)
    common = {"num_examples": num_examples, "num_epochs": 2, "seed": 3, "mixing": mixing}
    single = batches(Order(**common, global_batch_size=1)).reshape(2, num_examples)
    assert (np.sort(single) == np.arange(num_examples)).all()
    whole = batches(Order(**common, global_batch_size=2 * per_replica, num_replicas=2)).reshape(2, -1)
    np.testing.assert_array_equal(whole, single[:, : whole.shape[1]])
    steps = num_examples // (2 * per_replica)
    at = Position(*divmod(min(start, 2 * steps - 1), steps))
    resumed = batches(Order(**common, global_batch_size=2 * per_replica, num_replicas=2, start=at))
    np.testing.assert_array_equal(resumed.ravel(), whole.ravel()[2 * per_replica * (at.epoch * steps + at.step) :])


def test_a_window_reads_few_blocks_and_mixes_them() -> None:
    count, block, per_window = 10_000, 50, 20
    order = Order(
        num_examples=count,
        global_batch_size=1,
        num_epochs=2,
        seed=1,
        mixing=Mixing(block=block, blocks_per_window=per_window),
    )
    epochs = batches(order).reshape(2, 10, 1000)
    for windows in epochs:
        for window in windows:
            runs = np.flatnonzero(np.diff(np.sort(window)) > 1)
            assert len(runs) <= per_window + 1  # one more where the counting starts
            assert abs(np.corrcoef(np.arange(1000), window)[0, 1]) < 0.15
        firsts = np.sort(windows, axis=1)
        assert len({tuple(first) for first in firsts.tolist()}) == 10
    # Not the same neighbours in both epochs: the blocks begin elsewhere.
    first, second = (np.argsort(epoch.ravel()) // 1000 for epoch in epochs)
    assert len(np.unique(first * 10 + second)) > 90


def test_the_size_of_windows_is_that_of_records_alone() -> None:
    assert Mixing.of_bytes(12363) == Mixing(block=42, blocks_per_window=2068)
    assert Mixing.of_bytes(1e9) == Mixing(block=1, blocks_per_window=1)


def test_golden_order() -> None:
    """If this changes, a run that is resumed with the new version sees some examples twice and others not at all."""
    order = Order(num_examples=1000, global_batch_size=8, num_epochs=2, seed=42)
    elements = batches(order)
    assert elements[0].tolist() == [113, 949, 390, 380, 267, 844, 817, 716]
    assert elements[order.steps_per_epoch].tolist() == [927, 680, 739, 226, 967, 32, 752, 960]
    windowed = batches(dataclasses.replace(order, mixing=Mixing(block=10, blocks_per_window=20)))
    assert windowed[0].tolist() == [274, 750, 374, 670, 383, 362, 669, 755]
    assert windowed[order.steps_per_epoch].tolist() == [757, 621, 124, 183, 887, 157, 333, 624]


def test_places_are_uniform() -> None:
    """Where example 0 stands, over 2,000 epochs of 20: chi-square against the 99.9 % quantile with 19 degrees."""
    order = Order(num_examples=20, global_batch_size=20, num_epochs=2000, seed=3)
    places = np.argmin(batches(order), axis=1)
    counts = np.bincount(places, minlength=20)
    assert ((counts - 100) ** 2 / 100).sum() < 43.8


def test_epochs_and_seeds_differ() -> None:
    orders = [batches(Order(num_examples=50, global_batch_size=50, num_epochs=2, seed=seed)) for seed in (0, 1)]
    assert len({epoch.tobytes() for order in orders for epoch in order}) == 4


@pytest.mark.parametrize(
    ("batch", "replicas", "words"),
    [(6, 4, "cannot be divided among 4 replicas"), (101, 1, "more than the 100 training examples")],
)
def test_impossible_batches_are_refused(batch: int, replicas: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Order(num_examples=100, global_batch_size=batch, num_epochs=1, seed=0, num_replicas=replicas)
