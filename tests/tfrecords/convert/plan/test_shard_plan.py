"""The plan deals every file to one place, by its name and the seed, whoever carries it out."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.convert.plan import shard_plan as plan_module
from tfrecords.convert.plan.shard_plan import (
    COMPRESSION,
    SHARD_BYTES,
    PlannedShard,
    ShardPlan,
    make_plan,
    num_shards,
    rebalance,
)
from tfrecords.convert.plan.split_assignment import draw_ranks

SPLITS = ("train", "test")


def ranks_of(count: int, seed: int = 0) -> np.ndarray:
    return draw_ranks(seed, [f"a/{row}.jpg" for row in range(count)])[:, 1]


def dealt(count: int) -> np.ndarray:
    """Every fourth photo is for the test."""
    return (np.arange(count) % 4 == 3).astype(np.int8)


def plan_of(count: int, *, seed: int = 0, image_size: int = 64, encoding: str = "raw", **more: object) -> ShardPlan:
    return make_plan(
        "zoo",
        np.arange(count),
        dealt(count),
        ranks_of(count, seed),
        splits=SPLITS,
        image_size=image_size,
        encoding=encoding,
        **more,  # type: ignore[arg-type]
    )


def rows_of(plan: ShardPlan) -> list[int]:
    return list(itertools.chain.from_iterable(shard.rows.tolist() for shard in plan.shards))


@given(st.integers(0, 2000), st.sampled_from([1, 64, 224, 1024]), st.sampled_from(sorted(COMPRESSION)))
@settings(max_examples=40)
def test_every_file_has_one_place(count: int, image_size: int, encoding: str) -> None:
    plan = plan_of(count, image_size=image_size, encoding=encoding)
    assert sorted(rows_of(plan)) == list(range(count))
    for split in SPLITS:
        shards = [shard for shard in plan.shards if shard.split == split]
        assert [shard.shard for shard in shards] == list(range(len(shards)))
        assert [shard.file for shard in shards] == [
            f"zoo-{split}.tfrecord-{number:05d}-of-{len(shards):05d}" for number in range(len(shards))
        ]
        assert all((row % 4 == 3) == (split == "test") for shard in shards for row in shard.rows)
        lengths = [len(shard.rows) for shard in shards]
        assert not lengths or max(lengths) - min(lengths) <= 1
        assert all(lengths)


def test_a_split_without_files_has_no_shard() -> None:
    assert [shard.split for shard in plan_of(2).shards] == ["train"]
    assert plan_of(0).shards == ()


@given(st.integers(0, 10**8), st.integers(1, 4096), st.sampled_from(sorted(COMPRESSION)))
def test_number_of_shards(num_examples: int, image_size: int, encoding: str) -> None:
    count = num_shards(num_examples, image_size, encoding)
    expected_bytes = num_examples * image_size**2 * 3 / COMPRESSION[encoding]
    assert count >= 1
    assert expected_bytes <= count * SHARD_BYTES * 1.0001
    assert count <= max(8, expected_bytes / SHARD_BYTES + 1)


@pytest.mark.parametrize(
    ("num_examples", "image_size", "encoding", "expected"),
    [
        (0, 64, "raw", 1),
        (127, 64, "raw", 1),
        (128, 64, "raw", 2),
        (512, 64, "raw", 8),
        (43_690, 64, "raw", 8),  # 537 MB of pixels: eight shards of 64 MiB
        (43_691, 64, "raw", 9),
        (60_000, 64, "raw", 11),
        (1_281_167, 224, "jpeg", 360),
    ],
)
def test_known_numbers_of_shards(num_examples: int, image_size: int, encoding: str, expected: int) -> None:
    assert num_shards(num_examples, image_size, encoding) == expected


def test_order_is_mixed_and_depends_on_the_seed() -> None:
    orders = [tuple(rows_of(plan_of(100, seed=seed))) for seed in (0, 1, -1)]
    assert len(set(orders)) == 3
    assert len({row % 3 for row in orders[0][:20]}) == 3
    assert list(orders[0][:75]) != sorted(orders[0][:75])


def test_rows_that_are_not_asked_for_are_left_out() -> None:
    rows = np.array([1, 2, 7, 9])
    plan = make_plan("zoo", rows, dealt(10), ranks_of(10), splits=SPLITS, image_size=64, encoding="raw")
    assert sorted(rows_of(plan)) == rows.tolist()


def test_appended_shards_are_counted_after_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MIN_EXAMPLES_PER_SHARD", 3)
    plan = plan_of(8, num_before={"train": 5, "val": 9})
    assert [shard.file for shard in plan.shards] == [
        "zoo-train.tfrecord-00005-of-00007",
        "zoo-train.tfrecord-00006-of-00007",
        "zoo-test.tfrecord-00000-of-00001",
    ]
    assert [shard.shard for shard in plan.shards] == [5, 6, 0]


def test_golden_plan() -> None:
    """If this changes, a half finished conversion would go on with other pictures in the shards than it began with.

    And datasets converted before and after the change would have their examples in another order.
    """
    (train, test) = plan_of(12, seed=5).shards
    assert train.rows.tolist() == [6, 4, 2, 9, 10, 5, 0, 1, 8]
    assert test.rows.tolist() == [11, 7, 3]


# When copies are known


def rebalanced(plan: ShardPlan, split_of: np.ndarray) -> ShardPlan:
    return rebalance(plan, split_of, ranks_of(len(split_of)))


def test_without_a_move_the_plan_is_kept() -> None:
    plan = plan_of(100)
    assert rebalanced(plan, dealt(100)) is plan


@given(st.integers(1, 400), st.sets(st.integers(0, 399), max_size=30))
@settings(max_examples=60)
def test_moved_photos_are_where_a_plan_from_scratch_has_their_rank(count: int, moved: set[int]) -> None:
    split_of = dealt(count)
    movers = [row for row in moved if row < count]
    split_of[movers] = 1 - split_of[movers]
    plan = plan_of(count)
    ranks = ranks_of(count)
    settled = rebalanced(plan, split_of)
    assert sorted(rows_of(settled)) == list(range(count))
    for number, split in enumerate(SPLITS):
        rows = np.concatenate([*(s.rows for s in settled.shards if s.split == split), np.empty(0, np.int64)])
        assert (split_of[rows] == number).all()
        assert (np.diff(ranks[rows].astype(object)) > 0).all()  # so the order is that of a plan from scratch
    before = {shard.file: shard for shard in plan.shards}
    for shard in settled.shards:
        untouched = shard.file in before and shard.rows.tolist() == before[shard.file].rows.tolist()
        assert untouched == (shard is before.get(shard.file))
    assert {shard.file for shard in plan.shards} <= {shard.file for shard in settled.shards}


def test_a_split_that_had_no_shard_gets_one() -> None:
    plan = plan_of(3)
    assert [shard.split for shard in plan.shards] == ["train"]
    settled = rebalanced(plan, np.array([0, 1, 0], np.int8))
    assert [(shard.file, shard.rows.tolist()) for shard in settled.shards][1] == (
        "zoo-test.tfrecord-00000-of-00001",
        [1],
    )
    assert sorted(settled.shards[0].rows.tolist()) == [0, 2]
    appended = rebalanced(dataclasses.replace(plan, num_before={"test": 4, "train": 2}), np.array([0, 1, 0], np.int8))
    assert appended.shards[1].file == "zoo-test.tfrecord-00004-of-00005"
    assert appended.shards[1].shard == 4


def test_a_shard_that_loses_all_its_photos_stays_empty() -> None:
    plan = ShardPlan("zoo", SPLITS, {}, (PlannedShard("f", "train", 0, np.array([0])),))
    settled = rebalanced(plan, np.array([1], np.int8))
    assert [(shard.split, shard.rows.tolist()) for shard in settled.shards] == [("train", []), ("test", [0])]


def test_few_large_files_are_work_for_all_processes() -> None:
    megabyte = 2**20
    assert num_shards(45, 64, "raw") == 1
    assert num_shards(45, 64, "raw", 15 * megabyte) == 1
    assert num_shards(45, 64, "raw", 45 * 3 * megabyte) == 8
    assert num_shards(45, 64, "raw", 40 * megabyte) == 2
    assert num_shards(2, 64, "raw", 500 * megabyte) == 2
    assert num_shards(100_000, 64, "raw", 10**12) == num_shards(100_000, 64, "raw")
    rows = np.arange(6)
    plan = make_plan(
        "zoo",
        rows,
        np.zeros(6, np.int8),
        rows.astype(np.uint64),
        splits=("train",),
        image_size=64,
        encoding="raw",
        sizes=np.array([30, 30, -1, 30, -1, 30]) * megabyte,
    )
    assert [len(shard.rows) for shard in plan.shards] == [1, 1, 1, 1, 1, 1]
