"""Photos are dealt to splits in the promised numbers, by their names and the seed and nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfrecords.convert.sources import ImageFile, scan_folder
from tfrecords.convert.split import assign_splits, find_copies, parse_splits, rank
from tfrecords.errors import UsageError

HUNDREDTHS = st.lists(st.integers(1, 100), min_size=1, max_size=4).map(
    lambda parts: [part * 100 // sum(parts) or 1 for part in parts]
)
SIZES = st.lists(st.integers(1, 120), min_size=1, max_size=4)


def image_files(sizes: list[int]) -> list[ImageFile]:
    names = [(label, f"class_{label}/{number}.jpg") for label, size in enumerate(sizes) for number in range(size)]
    return [ImageFile(id=id, path=path, label=label, num_bytes=1) for id, (label, path) in enumerate(names)]


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
@settings(deadline=None, max_examples=80)
@example([50], [29, 71], 0)
@example([1, 2, 3], [75, 25], 0)
def test_each_class_is_dealt_in_the_promised_numbers(sizes: list[int], hundredths: list[int], seed: int) -> None:
    files = image_files(sizes)
    fractions = fractions_of(hundredths)
    split_of = assign_splits(files, fractions, seed, {})
    assert list(split_of.keys() - {file.id for file in files}) == []
    for label, size in enumerate(sizes):
        found = Counter(split_of[file.id] for file in files if file.label == label)
        assert found == Counter({name: count for name, count in promised(size, fractions).items() if count})


def test_numbers_of_the_defaults() -> None:
    files = image_files([4, 5, 6, 7, 1, 2])
    split_of = assign_splits(files, parse_splits("train=0.75,test=0.25"), 0, {})
    found = Counter((file.label, split_of[file.id]) for file in files)
    assert [(found[label, "train"], found[label, "test"]) for label in range(6)] == [
        (3, 1),
        (4, 1),
        (5, 1),  # 4.5 and 1.5: the one left over goes to the earlier split
        (5, 2),
        (1, 0),
        (2, 0),
    ]


@given(SIZES, st.integers(0, 100), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_photos_of_other_classes_change_nothing(sizes: list[int], seed: int, extra: int) -> None:
    fractions = parse_splits("train=0.6,val=0.2,test=0.2")
    before = assign_splits(image_files(sizes), fractions, seed, {})
    after = assign_splits(image_files([*sizes, extra]), fractions, seed, {})
    assert {id: after[id] for id in before} == before


@given(SIZES, st.integers(0, 100), st.randoms())
@settings(deadline=None, max_examples=40)
def test_neither_ids_nor_the_order_of_the_files_matter(sizes: list[int], seed: int, random: object) -> None:
    fractions = parse_splits("train=0.5,test=0.5")
    files = image_files(sizes)
    split_of = assign_splits(files, fractions, seed, {})
    before = {file.path: split_of[file.id] for file in files}
    random.shuffle(files)  # type: ignore[attr-defined]
    renumbered = [ImageFile(id=id, path=file.path, label=file.label, num_bytes=1) for id, file in enumerate(files)]
    after = assign_splits(renumbered, fractions, seed, {})
    assert {file.path: after[file.id] for file in renumbered} == before


@given(st.lists(st.integers(1, 5), min_size=1, max_size=25), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_copies_stay_together(group_sizes: list[int], seed: int) -> None:
    """And a group moves a border by less than its own size."""
    files = image_files([sum(group_sizes)])
    first = list(itertools.accumulate(group_sizes, initial=0))
    copies = {
        id: start
        for start, size in zip(first, group_sizes, strict=False)
        if size > 1
        for id in range(start, start + size)
    }
    split_of = assign_splits(files, parse_splits("train=0.7,test=0.3"), seed, copies)
    for start, size in zip(first, group_sizes, strict=False):
        assert len({split_of[id] for id in range(start, start + size)}) == 1
    num_train = sum(split == "train" for split in split_of.values())
    wanted = promised(len(files), {"train": 0.7, "test": 0.3})["train"]
    assert wanted <= num_train < wanted + max(group_sizes)


def test_copies_of_two_classes_stay_together() -> None:
    files = image_files([20, 20])
    copies = {id: id % 20 for id in range(40)}
    for seed in range(5):
        split_of = assign_splits(files, parse_splits("train=0.5,test=0.5"), seed, copies)
        assert all(split_of[id] == split_of[id + 20] for id in range(20))
        assert set(split_of.values()) == {"train", "test"}


def test_another_seed_deals_otherwise() -> None:
    files = image_files([30, 30])
    dealt = [assign_splits(files, parse_splits("train=0.5,test=0.5"), seed, {}) for seed in (0, 1, 2, -1)]
    assert len({tuple(sorted(split_of.items())) for split_of in dealt}) == 4


def test_golden_assignment() -> None:
    """If this changes, photos that a model was trained on move to the test split of the same data set, converted anew.

    Who is hurt: everyone who compares an accuracy with one of before.
    """
    files = image_files([8, 5])
    split_of = assign_splits(files, parse_splits("a=0.5,b=0.25,c=0.25"), 7, {})
    assert "".join(split_of[id] for id in range(13)) == "aabcbaacabaac"
    assert rank(7, "split", "a/1.jpg").hex() == "22659940b86f31f434b603849c5b64dd"
    assert rank(7, "order", "벌/\udcff.jpg").hex() == "5797417ab11b7ccb7c503c04006c6734"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train=0.75,test=0.25", {"train": 0.75, "test": 0.25}),
        ("all_of_it=1", {"all_of_it": 1.0}),
        ("a=0.7, b=0.2 ,c=0.1", {"a": 0.7, "b": 0.2, "c": 0.1}),
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


def test_find_copies(tmp_path: Path) -> None:
    head = b"h" * 5000
    contents = {
        "a/1.jpg": b"one",
        "a/2.jpg": b"two",
        "a/3.jpg": b"one",
        "b/1.jpg": b"one",
        "b/2.jpg": head + b"x",
        "b/3.jpg": head + b"y",  # the same size and the same first 4 KiB, but no copy
        "b/4.jpg": head + b"x",
        "b/5.jpg": b"longer",
    }
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    files = scan_folder(tmp_path).usable()
    ids = {file.path: file.id for file in files}
    assert find_copies(tmp_path, files) == {
        ids["a/1.jpg"]: ids["a/1.jpg"],
        ids["a/3.jpg"]: ids["a/1.jpg"],
        ids["b/1.jpg"]: ids["a/1.jpg"],
        ids["b/2.jpg"]: ids["b/2.jpg"],
        ids["b/4.jpg"]: ids["b/2.jpg"],
    }


def test_find_copies_goes_on_past_a_file_that_vanished(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(b"same")
    files = scan_folder(tmp_path).usable()
    (tmp_path / "1.jpg").unlink()
    assert find_copies(tmp_path, files) == {1: 1, 2: 1}
