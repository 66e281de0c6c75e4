"""The manifest's rows are found by their shard, in whatever order they are, and every row that is not right is told."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import numpy as np
import pytest

from tfrecords.format.dataset_verification import _ExampleRows
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest
from tfrecords.format.record_layout import Offsets
from tfrecords.format.shard_scan import ShardScan

# Split, shard, position, id and label of each example: two shards of train and one of test; a rejected file follows.
EXAMPLES = [(0, 0, 0, 3, 1), (0, 0, 1, 0, 0), (0, 0, 2, 7, 1), (0, 1, 0, 2, 0), (1, 0, 0, 5, 1), (1, 0, 1, 6, 0)]


def manifest(order: list[int] | None = None, **changes: dict[int, int]) -> Manifest:
    """Returns the rows in some order; `changes` are other values of a column, by the row's number before that."""
    values = np.array([*EXAMPLES, (-1, -1, -1, 9, -1)])
    names = ("splits", "shards", "positions", "ids", "labels")
    columns = dict(zip(names, values.T, strict=True)) | {"reasons": np.array([-1] * 6 + [0])}
    for name, column in changes.items():
        for row, value in column.items():
            columns[name][row] = value
    dtypes = {"splits": "int8", "reasons": "int8", "shards": "int32", "labels": "int32"}
    columns = {name: column[order or slice(None)].astype(dtypes.get(name, "int64")) for name, column in columns.items()}
    n = len(values)
    return Manifest(
        paths=[f"{row}.jpg" for row in range(n)],
        sha256=np.zeros((n, 32), np.uint8),
        pixels_sha256=np.zeros((n, 32), np.uint8),
        phash=np.zeros(n, np.uint64),
        widths=np.ones(n, np.int32),
        heights=np.ones(n, np.int32),
        groups=columns["ids"],
        split_names=("train", "test"),
        reason_names=("empty",),
        **columns,
    )


def scan(split: int, shard: int, **changes: Any) -> ShardScan:
    """Returns what is in a shard that is as the examples say: records of 100, 101, 102... bytes."""
    found = [example for example in EXAMPLES if example[:2] == (split, shard)]
    ids, labels = (np.array([example[at] for example in found], np.int64) for at in (3, 4))
    lengths = array("q", range(100, 100 + len(found)))
    good = ShardScan(num_bytes=sum(lengths), sha256="", ids=ids, labels=labels, lengths=lengths, faults=(), whole=True)
    return dataclasses.replace(good, **changes)


def layout(num_classes: int = 2, **num_examples: int) -> Layout:
    counts = {"train": 4, "test": 2} | num_examples
    return Layout(
        name="zoo",
        version="1.0.0",
        encoding="jpeg",
        image_size=8,
        class_names=tuple("abc"[:num_classes]),
        offsets=Offsets(),
        splits={
            split: (ShardInfo(file=split, num_examples=count, num_bytes=0, sha256=""),)
            for split, count in counts.items()
        },
        files={},
        config={},
        source_sha256="",
        versions={},
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [2, 6, 4, 0, 3, 1, 5]])
def test_rows_in_any_order(order: list[int]) -> None:
    rows = _ExampleRows(manifest(order))
    assert rows.num_refused == 1
    assert list(rows.problems(layout())) == []
    assert list(rows.problems(layout(empty=0))) == []
    for split, name, shard in [(0, "train", 0), (0, "train", 1), (1, "test", 0)]:
        assert list(rows.shard_problems(name, shard, scan(split, shard))) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"ids": {0: 4}},
            ": record 0 at byte 0 has id 3 and label 1; manifest.parquet has id 4, ",
        ),
        (
            {"labels": {1: 1}},
            ": record 1 at byte 100 has id 0 and label 0; manifest.parquet has id 0, label 1 and position 1 for",
        ),
        (
            {"positions": {2: 3}},
            ": record 2 at byte 201 has id 7 and label 1; manifest.parquet has id 7, label 1 and position 3 for",
        ),
        ({"positions": {0: 1, 1: 0}}, "id 0, label 0 and position 0 for this record, and 1 more such records"),
        ({"shards": {2: 1}}, " has 3 records; manifest.parquet has 2 rows for it"),
        ({"shards": {3: 0}}, " has 3 records; manifest.parquet has 4 rows for it"),
        ({"splits": {0: 1}}, " has 3 records; manifest.parquet has 2 rows for it"),
        ({"reasons": {0: 0}}, " has 3 records; manifest.parquet has 2 rows for it"),
    ],
)
def test_records_that_are_not_the_manifests(changes: dict[str, dict[int, int]], problem: str) -> None:
    (found,) = _ExampleRows(manifest(**changes)).shard_problems("train", 0, scan(0, 0))
    assert problem in found


def test_only_the_shard_that_is_wrong_is_told() -> None:
    rows = _ExampleRows(manifest(labels={3: 1}))
    assert not list(rows.shard_problems("train", 0, scan(0, 0)))
    assert len(list(rows.shard_problems("train", 1, scan(0, 1)))) == 1
    assert not list(rows.shard_problems("test", 0, scan(1, 0)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ids": {0: 9}}, "has id 9 more than once"),
        ({"ids": dict.fromkeys(range(7), 4)}, "has id 4 more than once, and 5 more such ids"),
        ({"labels": {4: 2}}, "has label 2 for id 5; layout.json has 2 classes"),
        ({"labels": {0: -1, 4: 2}}, "has label -1 for id 3; layout.json has 2 classes, and 1 more such labels"),
        ({"splits": {0: 1}}, "has {'train': 3, 'test': 3} examples; layout.json has {'train': 4, 'test': 2}"),
        ({"reasons": {4: 0, 5: 0}}, "has {'train': 4} examples; layout.json has {'train': 4, 'test': 2}"),
        ({"reasons": {6: -1}, "labels": {6: 0}}, "has 1 examples without a split"),
    ],
)
def test_a_manifest_that_cannot_be(changes: dict[str, dict[int, int]], problem: str) -> None:
    assert list(_ExampleRows(manifest(**changes)).problems(layout())) == [problem]


def test_a_class_that_nothing_is_of_is_none_too_many() -> None:
    assert list(_ExampleRows(manifest()).problems(layout(num_classes=3))) == []
