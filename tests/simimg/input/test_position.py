"""The contract of order, as properties: permutations, positions, replicas and processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import UsageError
from simimg.input import Order, Position


def batches(order: Order) -> np.ndarray:
    """All elements as an array `[num_elements, per_replica_batch_size]`."""
    return np.array(list(order.indices().as_numpy_iterator()), np.int64).reshape(-1, order.per_replica_batch_size)


@given(
    num_examples=st.integers(1, 200),
    per_replica=st.integers(1, 9),
    num_replicas=st.integers(1, 8),
    seed=st.integers(-9, 9),
)
@settings(deadline=None, max_examples=25)
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
@settings(deadline=None, max_examples=25)
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


def test_golden_order() -> None:
    """If this changes, a run that is resumed with the new version sees some examples twice and others not at all."""
    order = Order(num_examples=1000, global_batch_size=8, num_epochs=2, seed=42)
    elements = batches(order)
    assert elements[0].tolist() == [113, 949, 390, 380, 267, 844, 817, 716]
    assert elements[order.steps_per_epoch].tolist() == [927, 680, 739, 226, 967, 32, 752, 960]


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
