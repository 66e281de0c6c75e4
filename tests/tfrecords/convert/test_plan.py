"""The plan deals every file to one place, by its name and the seed, whoever carries it out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.convert import plan as plan_module
from tfrecords.convert.plan import COMPRESSION, SHARD_BYTES, ShardPlan, make_plan, num_shards
from tfrecords.convert.sources import ImageFile


def image_files(count: int) -> list[ImageFile]:
    return [ImageFile(id=id, path=f"a/{id}.jpg", label=id % 3, num_bytes=1) for id in range(count)]


def plan_of(files: list[ImageFile], *, seed: int = 0, image_size: int = 64, encoding: str = "raw") -> ShardPlan:
    split_of = {file.id: "test" if file.id % 4 == 3 else "train" for file in files}
    return make_plan(
        "zoo", files, split_of, splits=("train", "test"), image_size=image_size, encoding=encoding, seed=seed
    )


@given(st.integers(0, 2000), st.sampled_from([1, 64, 224, 1024]), st.sampled_from(sorted(COMPRESSION)))
@settings(deadline=None, max_examples=40)
def test_every_file_has_one_place(count: int, image_size: int, encoding: str) -> None:
    files = image_files(count)
    plan = plan_of(files, image_size=image_size, encoding=encoding)
    assert sorted(itertools.chain.from_iterable(shard.ids for shard in plan.shards)) == list(range(count))
    for split in ("train", "test"):
        shards = [shard for shard in plan.shards if shard.split == split]
        assert [shard.shard for shard in shards] == list(range(len(shards)))
        assert [shard.file for shard in shards] == [
            f"zoo-{split}.tfrecord-{number:05d}-of-{len(shards):05d}" for number in range(len(shards))
        ]
        assert all((id % 4 == 3) == (split == "test") for shard in shards for id in shard.ids)
        lengths = [len(shard.ids) for shard in shards]
        assert not lengths or max(lengths) - min(lengths) <= 1
        assert all(lengths)


def test_a_split_without_files_has_no_shard() -> None:
    assert [shard.split for shard in plan_of(image_files(2)).shards] == ["train"]
    assert plan_of([]).shards == ()


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
    files = image_files(100)
    orders = [tuple(id for shard in plan_of(files, seed=seed).shards for id in shard.ids) for seed in (0, 1, -1)]
    assert len(set(orders)) == 3
    labels = [id % 3 for id in orders[0][:20]]
    assert len(set(labels)) == 3
    assert list(orders[0][:75]) != sorted(orders[0][:75])


def test_order_does_not_depend_on_the_order_of_the_files() -> None:
    files = image_files(50)
    assert plan_of(files[::-1]) == plan_of(files)


def test_golden_plan() -> None:
    """If this changes, a half finished conversion would go on with other pictures in the shards than it began with.

    And data sets converted before and after the change would have their examples in another order.
    """
    (train, test) = plan_of(image_files(12), seed=5).shards
    assert train.ids == (6, 4, 2, 9, 10, 5, 0, 1, 8)
    assert test.ids == (11, 7, 3)


def test_is_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MIN_EXAMPLES_A_SHARD", 3)
    assert str(plan_of(image_files(8))) == (
        "zoo-train.tfrecord-00000-of-00002  3 files\n"
        "zoo-train.tfrecord-00001-of-00002  3 files\n"
        "zoo-test.tfrecord-00000-of-00001  2 files"
    )
