"""Groups are never divided, and the shares are as near as a greedy assignment of whole groups gets them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.near_duplicates import join_groups
from tfrecords.convert.plan.group_split import assign_groups, check_groups, fold_fractions
from tfrecords.convert.plan.split_assignment import draw_ranks

# Each group is the labels of its images.
GROUPS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=40)
FRACTIONS = st.sampled_from(
    [{"train": 0.75, "test": 0.25}, {"train": 0.8, "val": 0.1, "test": 0.1}, fold_fractions(2), fold_fractions(5)]
)


def deal(groups: list[list[int]], fractions: dict[str, float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the label, the group and the split of each image."""
    labels = np.array([label for group in groups for label in group], np.int32)
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    ranks = draw_ranks(seed, [f"{number}.png" for number in range(len(labels))])[:, 0]
    return labels, owner, assign_groups(labels, ranks, fractions, owner)


@given(GROUPS, FRACTIONS, st.integers(0, 2**32))
@settings(max_examples=150)
@example([[0]] * 12 + [[1]] * 12, fold_fractions(5), 0)
@example([[0] * 9, [1], [2]], fold_fractions(3), 0)
def test_no_group_is_divided_and_no_share_is_missed_by_a_group(
    groups: list[list[int]], fractions: dict[str, float], seed: int
) -> None:
    _, owner, splits = deal(groups, fractions, seed)
    assert all(len(set(splits[owner == group])) == 1 for group in range(len(groups)))
    counts = np.bincount(splits, minlength=len(fractions))
    largest = max(map(len, groups))
    over = counts - len(splits) * np.array(list(fractions.values()))
    assert over.max() < largest + 1e-6
    assert over.min() > -(len(fractions) - 1) * largest - 1e-6
    if len(groups) >= len(fractions):
        assert counts.all()


@given(st.lists(st.integers(5, 40), min_size=1, max_size=4), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=60)
def test_single_images_give_equal_folds_of_each_class(sizes: list[int], folds: int, seed: int) -> None:
    groups = [[label] for label, size in enumerate(sizes) for _ in range(size)]
    labels, _, splits = deal(groups, fold_fractions(folds), seed)
    counts = np.bincount(splits, minlength=folds)
    assert counts.max() - counts.min() <= 1
    for label, size in enumerate(sizes):
        of_class = np.bincount(splits[labels == label], minlength=folds)
        assert np.abs(of_class - size / folds).max() < 2


@given(GROUPS, FRACTIONS, st.integers(0, 99), st.randoms())
@settings(max_examples=40)
def test_the_order_of_the_files_does_not_matter(groups, fractions, seed, random) -> None:  # type: ignore[no-untyped-def]
    labels, owner, splits = deal(groups, fractions, seed)
    ranks = draw_ranks(seed, [f"{number}.png" for number in range(len(labels))])[:, 0]
    order = np.array(random.sample(range(len(labels)), len(labels)))
    assert (assign_groups(labels[order], ranks[order], fractions, owner[order]) == splits[order]).all()


def test_classes_are_balanced_over_patients_and_the_seed_decides() -> None:
    """40 patients with six images each, of two classes in different numbers."""
    groups = [[number % 2] * 4 + [(number // 2) % 2] * 2 for number in range(40)]
    seen = set()
    for seed in range(4):
        labels, _, splits = deal(groups, {"train": 0.75, "test": 0.25}, seed)
        assert Counter(splits.tolist()) == {0: 180, 1: 60}
        assert abs(np.bincount(labels[splits == 1]) - 30).max() <= 4
        seen.add(tuple(splits))
    assert len(seen) == 4
    assert (deal(groups, fold_fractions(5), 7)[2] == deal(groups, fold_fractions(5), 7)[2]).all()


def test_keys_join_groups_of_copies() -> None:
    """Image 5 is a copy of image 0, so the patients 7 and 8 stay together; -1 is no patient."""
    groups = np.array([0, 1, 2, 3, 4, 0])
    joined = join_groups(groups, np.array([7, 7, -1, 8, -1, 8]))
    assert joined.tolist() == [0, 0, 2, 0, 4, 0]
    assert groups.tolist() == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize(
    ("names", "fractions", "message"),
    [
        (["a", "a", "b"], fold_fractions(3), r"2 groups cannot be divided among 3 folds. Give --folds=2 or fewer"),
        (["a"] * 8 + ["b"] * 2, {"train": 0.5, "test": 0.5}, r"group 'a' has 8 of the 10 images, .*share of any split"),
        (["a"] * 4 + list("bcdefg"), fold_fractions(5), r"group 'a' has 4 of the 10 .*fewer --folds"),
        (["a", "a"], {"train": 0.75, "test": 0.25}, r"1 groups cannot be divided among 2 splits"),
    ],
)
def test_groups_that_cannot_be_divided_are_an_error(
    names: list[str], fractions: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_groups(names, fractions, "--group_column=patient")
    assert check_groups(["a"] * 7 + ["b", "", ""], {"train": 0.75, "test": 0.25}, "--group_column=patient") == (
        "2 images have no group (--group_column=patient); each is divided as one of its own",
    )
