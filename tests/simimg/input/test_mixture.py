"""The order of several datasets, as properties: shares, own orders, replicas and positions."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.errors import UsageError
from simimg.input import mixture
from simimg.input.mixture import PLACE_BITS, Mixture, parse_weights
from simimg.input.permutation import Mixing
from simimg.input.sampler import Order, Position

counts_of = st.lists(st.integers(1, 60), min_size=2, max_size=4)


def batches(order: Order) -> np.ndarray:
    """All elements as an array `[num_elements, per_replica_batch_size]`."""
    return np.array(list(order.indices().as_numpy_iterator()), np.int64).reshape(-1, order.per_replica_batch_size)


def order_of(mixed: Mixture, batch: int, epochs: int = 1, **others: Any) -> Order:
    common = {"num_examples": sum(mixed.counts), "global_batch_size": batch, "num_epochs": epochs, "seed": 7}
    return Order(**common, mixture=mixed, **others)


def all_places(order: Order) -> np.ndarray:
    """The places of each epoch, `[num_epochs, positions]`, without making a dataset."""
    positions = tf.range(order.steps_per_epoch * order.global_batch_size, dtype=tf.int64)
    return np.array([order.at(positions, tf.constant(epoch, tf.int64)) for epoch in range(order.num_epochs)])


def own_places(places: np.ndarray, counts: tuple[int, ...]) -> list[np.ndarray]:
    """The places in each dataset, in the order in which they come."""
    places = places.ravel() & (1 << PLACE_BITS) - 1
    firsts = np.cumsum((0, *counts))
    return [places[(places >= first) & (places < end)] - first for first, end in itertools.pairwise(firsts)]


def alone(count: int, num_epochs: int, mixing: Mixing | None = None) -> np.ndarray:
    return all_places(Order(num_examples=count, global_batch_size=1, num_epochs=num_epochs, seed=7, mixing=mixing))


@given(
    counts=counts_of,
    weights=st.lists(st.integers(1, 20), min_size=4, max_size=4),
    batch=st.integers(1, 9),
    windowed=st.booleans(),
)
@settings(max_examples=4, deadline=None)
def test_a_dataset_comes_in_its_own_order_epoch_after_epoch(
    counts: list[int], weights: list[int], batch: int, windowed: bool
) -> None:
    """So nothing is lost or repeated within an epoch of a dataset, whatever the epochs of the training."""
    mixing = Mixing(block=3, blocks_per_window=2) if windowed else None
    mixed = Mixture(
        counts=tuple(counts), weights=tuple(weights[: len(counts)]), mixings=(mixing,) * len(counts) if windowed else ()
    )
    found = all_places(order_of(mixed, min(batch, sum(counts)), 2))
    for count, own in zip(counts, own_places(found, mixed.counts), strict=True):
        expected = alone(count, -(-len(own) // count), mixing).ravel() if len(own) else own
        np.testing.assert_array_equal(own, expected[: len(own)])


@given(counts=counts_of, weights=st.lists(st.integers(1, 1000), min_size=4, max_size=4))
@settings(max_examples=4, deadline=None)
def test_the_shares_are_those_of_the_weights(counts: list[int], weights: list[int]) -> None:
    mixed = Mixture(counts=(*counts[:-1], counts[-1] + 700), weights=tuple(weights[: len(counts)]))
    found = all_places(order_of(mixed, 1, 2)).ravel()
    for end in (256, 512, sum(mixed.counts), len(found)):
        taken = np.array([len(own) for own in own_places(found[:end], mixed.counts)])
        wanted = np.array([float(share) for share in mixed.shares]) * end
        assert np.abs(taken - wanted).max() < len(counts)


@given(counts=counts_of)
@settings(max_examples=4, deadline=None)
def test_without_weights_each_example_comes_once_an_epoch(counts: list[int]) -> None:
    mixed = Mixture(counts=tuple(counts))
    found = all_places(order_of(mixed, 1, 2))
    assert (np.sort(found) == np.arange(sum(counts))).all()
    for places in zip(*(own_places(epoch, mixed.counts) for epoch in found), strict=True):
        np.testing.assert_array_equal(places, alone(len(places[0]), 2))


@pytest.mark.parametrize("weights", [(), (3, 1)])
def test_any_start_and_any_division_over_processes(weights: tuple[int, ...]) -> None:
    mixed = Mixture(counts=(60, 23), weights=weights)
    one = batches(order_of(mixed, 16, 4))  # 5 steps an epoch
    np.testing.assert_array_equal(one.reshape(4, -1), all_places(order_of(mixed, 16, 4)))
    eight = batches(order_of(mixed, 16, 4, num_replicas=8))
    np.testing.assert_array_equal(eight.reshape(20, 16), one)
    local = {"num_replicas": 4, "first_replica": 2, "num_local_replicas": 2}
    resumed = order_of(mixed, 16, 4, **local, start=Position(2, 3))
    found = batches(resumed)
    np.testing.assert_array_equal(found, one.reshape(20, 4, 4)[13:, 2:].reshape(-1, 4))
    np.testing.assert_array_equal(resumed.places(tf.constant(resumed.elements.start, tf.int64)), found[0])


def test_a_single_dataset_and_the_order_on_disk() -> None:
    single = order_of(Mixture(counts=(40,)), 8, 2)
    np.testing.assert_array_equal(all_places(single), all_places(dataclasses.replace(single, mixture=None)))
    found = all_places(order_of(Mixture(counts=(30, 50), weights=(1, 1), in_order=True), 8)).ravel()
    first, second = own_places(found, (30, 50))
    np.testing.assert_array_equal(first, np.arange(40) % 30)
    np.testing.assert_array_equal(second, np.arange(40))
    passes = found[(found & (1 << PLACE_BITS) - 1) < 30] >> PLACE_BITS
    np.testing.assert_array_equal(passes, np.arange(40) // 30)


def test_golden_order() -> None:
    """Who changes these values, changes the batches of every interrupted training on several datasets."""
    found = all_places(order_of(Mixture(counts=(5, 300), weights=(1, 3)), 12, 2)) & (1 << PLACE_BITS) - 1
    assert [found[0, :12].tolist(), found[-1, -12:].tolist()] == GOLDEN


GOLDEN = [
    [45, 0, 245, 274, 195, 46, 2, 32, 3, 289, 57, 1],
    [139, 1, 3, 0, 85, 4, 171, 17, 2, 169, 137, 147],
]


def test_billions_of_examples() -> None:
    mixed = Mixture(counts=(1_500_000_000, 400_000_000))
    order = order_of(mixed, 1024, 1000)
    last = order.places(tf.constant(order.elements.stop - 1, tf.int64)).numpy()
    assert len(np.unique(last)) == 1024
    assert abs((last < mixed.counts[0]).mean() - 15 / 19) < 0.03


@pytest.mark.parametrize(
    ("given", "num_datasets", "found"),
    [("3,1", 2, (3, 1)), ("0.75, 0.25", 2, (3, 1)), ([30, 10.0], 2, (3, 1)), ("1e-1,1", 2, (1, 10))],
)
def test_weights(given: str, num_datasets: int, found: tuple[int, ...]) -> None:
    assert parse_weights(given, num_datasets) == found


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("3,1,2", "--dataset_weights=3,1,2 has 3 numbers for 2 datasets."),
        ("3", "--dataset_weights=3 has 1 number for 2 datasets."),
        *(
            (bad, f"--dataset_weights={bad}: should be numbers above 0")
            for bad in ("3,0", "3,-1", "a,b", "1,nan", "1,")
        ),
        ("1,1e-300", "--dataset_weights=1,1e-300: should be numbers above 0"),
    ],
)
def test_weights_that_are_none(given: str, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_weights(given, 2)
    assert str(raised.value).startswith(text)


def test_what_looks_like_weights() -> None:
    assert all(mixture.looks_like_weights(text) for text in ("3,1", "0.5,0.5,2"))
    assert not any(mixture.looks_like_weights(text) for text in ("auto", "3", "runs/a,b", "1,", ",", "imagenet"))
