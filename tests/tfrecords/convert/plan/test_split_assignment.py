"""Photos are dealt to splits in the promised numbers, by their names and the seed and nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.plan.split_assignment import (
    REST,
    assign_counts,
    assign_splits,
    draw_ranks,
    parse_splits,
    splits_text,
)

HUNDREDTHS = st.lists(st.integers(1, 100), min_size=1, max_size=4).map(
    lambda parts: [part * 100 // sum(parts) or 1 for part in parts]
)
SIZES = st.lists(st.integers(1, 120), min_size=1, max_size=4)


def photos_of(sizes: list[int]) -> tuple[list[str], np.ndarray]:
    """Returns the paths and labels of classes of these sizes."""
    names = [(f"class_{label}/{number}.jpg", label) for label, size in enumerate(sizes) for number in range(size)]
    return [path for path, _ in names], np.array([label for _, label in names], np.int32)


def deal(
    sizes: list[int], fractions: dict[str, float], seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Returns the labels of the photos, and the split of each."""
    paths, labels = photos_of(sizes)
    names = list(fractions)
    dealt = assign_splits(labels, draw_ranks(seed, paths)[:, 0], fractions, groups)
    return labels, [names[split] for split in dealt]


def fractions_of(hundredths: list[int]) -> dict[str, float]:
    """Makes the parts add up to 100 and writes them as a user does."""
    last = 100 - sum(hundredths[1:])
    parts = [last, *hundredths[1:]]
    return parse_splits(",".join(f"s{number}={part / 100:.2f}" for number, part in enumerate(parts)))


def promised(num_photos: int, fractions: dict[str, float]) -> dict[str, int]:
    """The docstring of `assign_splits`, in exact arithmetic."""
    exact = {name: num_photos * Fraction(f"{fraction:.6f}") for name, fraction in fractions.items()}
    counts = {name: int(value) for name, value in exact.items()}
    rest = num_photos - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:rest]:
        counts[name] += 1
    return counts


@given(SIZES, HUNDREDTHS.filter(lambda parts: sum(parts[1:]) < 100), st.integers(0, 2**32))
@settings(max_examples=80)
@example([50], [29, 71], 0)
@example([1, 2, 3], [75, 25], 0)
@example([2, 2, 2, 2], [75, 25], 0)
def test_each_class_is_dealt_in_the_promised_numbers(sizes: list[int], hundredths: list[int], seed: int) -> None:
    """All photos together exactly, and each class to less than one photo."""
    fractions = fractions_of(hundredths)
    labels, splits = deal(sizes, fractions, seed)
    wanted = promised(sum(sizes), fractions)
    assert Counter(splits) == Counter({name: count for name, count in wanted.items() if count})
    for label, size in enumerate(sizes):
        found = Counter(split for split, own in zip(splits, labels, strict=True) if own == label)
        for name, fraction in fractions.items():
            exact = size * Fraction(f"{fraction:.6f}")
            assert int(exact) <= found[name] <= -(-exact // 1)


def test_numbers_of_the_defaults() -> None:
    labels, splits = deal([4, 5, 6, 7, 1, 2], parse_splits("train=0.75,test=0.25"), 0)
    found = Counter(zip(labels.tolist(), splits, strict=True))
    assert [(found[label, "train"], found[label, "test"]) for label in range(6)] == [
        (3, 1),
        (4, 1),
        (5, 1),  # 4.5 and 1.5: the one left over goes to the earlier split
        (5, 2),
        (1, 0),
        (1, 1),  # but a quarter of all 25 is 6
    ]


@pytest.mark.parametrize(
    ("sizes", "splits", "totals"),
    [
        ([2] * 1500, "train=0.75,test=0.25", [2250, 750]),
        ([1] * 40, "train=0.75,test=0.25", [30, 10]),
        ([3] * 100, "train=0.8,val=0.1,test=0.1", [240, 30, 30]),
        ([2, 6, 3, 7, 1], "a=0.25,b=0.25,c=0.25,d=0.25", [5, 5, 5, 4]),
        ([1, 1, 1], "train=0.75,test=0.25", [2, 1]),
    ],
)
def test_shares_hold_over_classes_that_are_too_small_for_them(sizes: list[int], splits: str, totals: list[int]) -> None:
    labels, dealt = deal(sizes, parse_splits(splits), 5)
    assert [dealt.count(split) for split in parse_splits(splits)] == totals
    # Which classes give a photo depends on the seed, not on their names.
    first_half = [label for label, split in zip(labels, dealt, strict=True) if split != dealt[0]]
    others = [label for label, split in zip(*deal(sizes, parse_splits(splits), 6), strict=True) if split != dealt[0]]
    assert len(sizes) < 10 or first_half != others


def test_classes_that_are_large_enough_are_dealt_by_themselves() -> None:
    """Only where remainders add up to a photo is a class dealt otherwise than alone."""
    fractions = parse_splits("train=0.75,test=0.25")
    labels, splits = deal([40, 80, 44], fractions, 3)
    for label, size in enumerate((40, 80, 44)):
        of_class = [split for split, own in zip(splits, labels, strict=True) if own == label]
        assert Counter(of_class) == promised(size, fractions)


@given(SIZES, st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=40)
def test_photos_of_other_classes_move_one_photo_per_border_at_most(sizes: list[int], seed: int, extra: int) -> None:
    fractions = parse_splits("train=0.6,val=0.2,test=0.2")
    labels, before = deal(sizes, fractions, seed)
    _, after = deal([*sizes, extra], fractions, seed)
    for label in range(len(sizes)):
        changed = [b != a for b, a, own in zip(before, after, labels, strict=False) if own == label]
        assert sum(changed) <= len(fractions) - 1


@given(SIZES, st.integers(0, 100), st.randoms())
@settings(max_examples=40)
def test_the_order_of_the_files_does_not_matter(sizes: list[int], seed: int, random: Random) -> None:
    fractions = parse_splits("train=0.5,test=0.5")
    paths, labels = photos_of(sizes)
    before = dict(zip(paths, assign_splits(labels, draw_ranks(seed, paths)[:, 0], fractions), strict=True))
    order = list(range(len(paths)))
    random.shuffle(order)
    shuffled = [paths[index] for index in order]
    after = assign_splits(labels[order], draw_ranks(seed, shuffled)[:, 0], fractions)
    assert dict(zip(shuffled, after, strict=True)) == before


@given(st.lists(st.integers(1, 5), min_size=1, max_size=25), st.integers(0, 50))
@settings(max_examples=60)
def test_copies_stay_together(group_sizes: list[int], seed: int) -> None:
    """And a group moves a border by less than its own size."""
    starts = list(itertools.accumulate(group_sizes, initial=0))[:-1]
    groups = np.repeat(starts, group_sizes)
    _, splits = deal([sum(group_sizes)], parse_splits("train=0.7,test=0.3"), seed, groups)
    for start, size in zip(starts, group_sizes, strict=True):
        assert len(set(splits[start : start + size])) == 1
    wanted = promised(len(splits), {"train": 0.7, "test": 0.3})["train"]
    assert wanted <= splits.count("train") < wanted + max(group_sizes)


def test_a_group_may_be_named_after_any_of_its_photos() -> None:
    first = np.array([0, 0, 0, 3, 3, 5])
    last = np.array([2, 2, 2, 4, 4, 5])
    fractions = parse_splits("train=0.5,test=0.5")
    for seed in range(9):
        assert deal([6], fractions, seed, first)[1] == deal([6], fractions, seed, last)[1]


def test_copies_of_two_classes_stay_together() -> None:
    groups = np.arange(40) % 20
    for seed in range(5):
        _, splits = deal([20, 20], parse_splits("train=0.5,test=0.5"), seed, groups)
        assert splits[:20] == splits[20:]
        assert set(splits) == {"train", "test"}


def test_without_copies_groups_change_nothing() -> None:
    fractions = parse_splits("train=0.6,val=0.2,test=0.2")
    assert deal([30, 7], fractions, 3)[1] == deal([30, 7], fractions, 3, np.arange(37))[1]


def test_another_seed_deals_otherwise() -> None:
    dealt = [deal([30, 30], parse_splits("train=0.5,test=0.5"), seed)[1] for seed in (0, 1, 2, -1)]
    assert len({tuple(splits) for splits in dealt}) == 4


def test_golden_assignment() -> None:
    """If this changes, photos that a model was trained on move to the test split of the same dataset, converted anew.

    Who is hurt: everyone who compares an accuracy with one of before.
    """
    _, splits = deal([8, 5], parse_splits("a=0.5,b=0.25,c=0.25"), 7)
    assert "".join(splits) == "aabcbaacabaac"
    ranks = draw_ranks(7, ["a/1.jpg", "벌/\udcff.jpg"])
    assert (hex(ranks[0, 0]), hex(ranks[1, 1])) == ("0x22659940b86f31f4", "0x5797417ab11b7ccb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train=0.75,test=0.25", {"train": 0.75, "test": 0.25}),
        ("all_of_it=1", {"all_of_it": 1.0}),
        ("a=0.7, b=0.2 ,c=0.1", {"a": 0.7, "b": 0.2, "c": 0.1}),
        ("source", {}),
        ("a=0.333333,b=0.333333,c=0.333334", {"a": 0.333333, "b": 0.333333, "c": 0.333334}),
    ],
)
def test_parse_splits(text: str, expected: dict[str, float]) -> None:
    fractions = parse_splits(text)
    assert fractions == expected
    assert list(fractions) == list(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "train",
        "train=",
        "train=x",
        "=1",
        "train=0.5",
        "train=0.5,test=0.6",
        "train=1,test=0",
        "train=1.5,test=-0.5",
        "train=nan",
        "train=inf",
        "train=0.5,train=0.5",
        "train=0.5,test=0.5,",
        "a-b=1",
        "train=75%,test=25%",
    ],
)
def test_bad_splits_are_usage_errors_with_the_form(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_splits(text)
    message = str(caught.value)
    assert "train=0.75,test=0.25" in message or "add up to 1" in message


@given(st.lists(st.integers(4, 60), min_size=1, max_size=4), st.integers(0, 100), st.lists(st.integers(1, 3)))
@settings(max_examples=40)
def test_counts_hold_for_every_class_and_copies_stay_together(sizes: list[int], seed: int, copies: list[int]) -> None:
    """Copies of one photo may lie in two classes."""
    counts = parse_splits("train:3,test:20")
    paths, labels = photos_of(sizes)
    groups = np.arange(len(labels))
    for number, step in enumerate(copies):
        if number + step < len(groups) and len(labels) > 40:
            groups[number + step] = groups[number]
    ranks = draw_ranks(seed, paths)[:, 0]
    try:
        dealt = assign_counts(labels, ranks, counts, groups)
    except UsageError:
        assert len(copies) > 1  # copies left a class without a photo for the test
        return
    for label, size in enumerate(sizes):
        found = Counter(dealt[labels == label].tolist())
        assert found[0] <= 3
        assert found[1] <= 20
        if len(set(groups[labels == label])) == size and not copies:
            assert (found[0], found[1]) == (3, min(20, size - 3))
    for group in set(groups.tolist()):
        assert len(set(dealt[groups == group].tolist())) == 1
    order = np.random.default_rng(seed).permutation(len(labels))
    again = assign_counts(labels[order], ranks[order], counts, groups[order])
    assert (again == dealt[order]).all()


def test_a_class_too_small_for_its_counts_is_named() -> None:
    labels = np.repeat([0, 1], [9, 3])
    with pytest.raises(UsageError, match="class 'owls' has 3 images, and none is left for test. Give smaller numbers"):
        assign_counts(labels, np.arange(12), parse_splits("train:3,test:1"), np.arange(12), ("bats", "owls"))


@pytest.mark.parametrize("text", ["train:30,test:50", "source", "train=0.75,test=0.25", "a:1"])
def test_splits_are_written_as_they_are_read(text: str) -> None:
    assert splits_text(parse_splits(text)) == ("" if text == "source" else text)
    assert (REST in parse_splits(text)) == (":" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:30,test=0.5", "'test=0.5' should be NAME:NUMBER, a number of images of each class"),
        ("train:0", "'train:0' should be NAME:NUMBER"),
        ("train:1.5", "NAME:NUMBER"),
        ("train:-3", "NAME:NUMBER"),
        ("train:3,train:4", "has the split train twice"),
        ("train:3,rest:4", "rest gets the images that are left"),
    ],
)
def test_wrong_counts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_splits(text)
