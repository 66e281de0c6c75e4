"""The latest images are the test split; ties and images without a time are told, and what is no time is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.plan.time_split import assign_by_time, parse_times, time_notes, time_order

FLAG = "--time_column=taken"
SHARES = {"test": 0.2, "train": 0.6, "val": 0.2}


def test_order_of_splits() -> None:
    assert time_order(["test", "val", "train", "late"]) == ["train", "val", "late", "test"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=60))
@settings(max_examples=100)
def test_nothing_is_later_than_the_beginning_of_the_next_split(images: list[tuple[int, int]]) -> None:
    """For the latest image of each group, also where groups reach over a border."""
    times, groups = (np.array(column, float) for column in zip(*images, strict=True))
    try:
        splits, _ = assign_by_time(times, groups.astype(int), SHARES, FLAG)
    except UsageError as error:
        assert "the times do not differ enough" in str(error)
        return
    latest = np.array([times[groups == group].max() for group in groups])
    train, val, test = (latest[splits == number] for number in (1, 2, 0))
    assert train.max() < val.min()
    assert val.max() < test.min()
    assert times[splits == 1].max() < times[splits == 0].max()
    assert all(len(set(splits[groups == group])) == 1 for group in groups)


def test_shares_ties_and_missing_times() -> None:
    cells = ["2024-05-31T10:00:00Z", "2024:05:30 09:00:00", "2024/6/1", "", "2024-05-01", "2024-05", "2024-05-30T09:00"]
    paths = [f"{number}.png" for number in range(7)]
    times = parse_times(cells, paths, FLAG)
    assert np.argsort(times[[4, 6, 0, 2]]).tolist() == [0, 1, 2, 3]
    assert times[1] == times[6]
    assert times[4] == times[5]
    assert np.isnan(times[3])
    splits, tied = assign_by_time(times, np.arange(7), {"train": 0.6, "test": 0.4}, FLAG)
    assert splits.tolist() == [1, 0, 1, 0, 0, 0, 0]
    assert [members.tolist() for members in tied] == [[1, 6]]
    assert time_notes(times, cells, paths, splits, ["train", "test"], tied, FLAG) == [
        f"{FLAG}: train 2024-05-01 to 2024:05:30 09:00:00, test 2024-05-31T10:00:00Z to 2024/6/1",
        f"{FLAG}: 1 image has no time, e.g. 3.png; such images are in train",
        f"{FLAG}: 2 images have the time 2024:05:30 09:00:00 at the border of two splits, or belong to a group or "
        "copies that end then; all of them are in train",
    ]


def test_images_without_a_time_follow_their_group() -> None:
    times, groups = np.array([1, 2, np.nan, 3, np.nan, 4.0]), np.array([0, 1, 2, 3, 5, 5])
    splits, tied = assign_by_time(times, groups, {"train": 0.6, "test": 0.4}, FLAG)
    assert splits.tolist() == [0, 0, 0, 0, 1, 1]
    cells = ["1", "2", "", "3", "", "4"]
    notes = time_notes(times, cells, list("abcdef"), splits, ["train", "test"], tied, FLAG)
    assert notes[1] == (
        f"{FLAG}: 2 images have no time, e.g. c; such images are in train and test, with the rest of their group or "
        "their copies"
    )


def test_numbers_are_times_too() -> None:
    assert parse_times(["1999", " 2e3", "nan", "-4.5"], list("abcd"), FLAG)[[0, 1, 3]].tolist() == [1999, 2000, -4.5]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["yesterday", "2024-05-01"], "a.png has 'yesterday', which is no time. Give all images a number, or a date"),
        (["1999", "2024-05-01"], "a.png has '1999'"),
        (["2024-13-01"], "has '2024-13-01'"),
        (["31.05.2024"], "has '31.05.2024'"),
        (["", "NaN"], "no image has a time. Name another column"),
    ],
)
def test_what_is_no_time_is_an_error(cells: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_times(cells, ["a.png", "b.png"], FLAG)


def test_one_time_for_all_is_an_error() -> None:
    with pytest.raises(UsageError, match="no image is left for the split 'test'.* 9 of 9 images have the same one"):
        assign_by_time(np.ones(9), np.arange(9), {"train": 0.75, "test": 0.25}, FLAG)
