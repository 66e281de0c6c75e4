"""The manifest gives back its rows, other tools read it, and a damaged one is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import DataError
from tfrecords.format import manifest as manifest_module
from tfrecords.format.manifest import OK, REFUSED, Manifest, ManifestRow, iter_manifest, read_manifest, write_manifest
from tfrecords.format.naming import MANIFEST_FILE

SPLITS, REASONS = ("train", "test"), ("empty", "corrupt")


def manifest(count: int = 6) -> Manifest:
    """Columns of `count` files, the last of which is refused."""
    numbers = np.arange(count)
    refused = numbers == count - 1
    digests = np.random.default_rng(0).integers(1, 256, (count, 32), dtype=np.uint8)
    digests[refused] = 0

    def column(values: Any, dtype: str, of_refused: int) -> np.ndarray:
        return np.where(refused, of_refused, values).astype(dtype)

    return Manifest(
        ids=column(numbers, "int64", 2**35),
        paths=[f"벌/bee\n{number}.jpg" for number in range(count - 1)] + ["x\\xff.jpg"] * min(count, 1),
        sha256=digests,
        pixels_sha256=digests[:, ::-1].copy(),
        phash=np.where(refused, np.uint64(0), np.uint64(2**63) + numbers.astype(np.uint64)),
        widths=column(640 + numbers, "int32", 0),
        heights=column(480, "int32", 0),
        labels=column(numbers % 2, "int32", -1),
        split_names=SPLITS,
        splits=column(numbers % 3 == 0, "int8", -1),
        shards=column(numbers // 2, "int32", -1),
        positions=column(numbers, "int64", -1),
        groups=column(numbers // 2 * 2, "int64", 2**35),
        reason_names=REASONS,
        reasons=np.where(refused, 1, -1).astype(np.int8),
    )


def same(a: Manifest, b: Manifest) -> bool:
    """Tells whether two manifests have the same rows, and the same names for what may come."""
    return list(a) == list(b) and (a.split_names, a.reason_names) == (b.split_names, b.reason_names)


def test_stamps_are_a_column_if_there_are_any(tmp_path: Path) -> None:
    without = manifest()
    write_manifest(tmp_path, without)
    assert "stamp" not in pq.read_schema(tmp_path / MANIFEST_FILE).names
    assert read_manifest(tmp_path).stamps.tolist() == [0] * 6
    stamped = dataclasses.replace(without, stamps=np.arange(6) - 3)
    write_manifest(tmp_path, stamped)
    assert pq.read_schema(tmp_path / MANIFEST_FILE).names[-1] == "stamp"
    back = read_manifest(tmp_path)
    assert back.stamps.tolist() == [-3, -2, -1, 0, 1, 2]
    assert same(back, without)
    assert np.concatenate([part.stamps for part in iter_manifest(tmp_path)]).tolist() == back.stamps.tolist()
    assert back.concat(without).stamps.tolist() == [-3, -2, -1, 0, 1, 2, *[0] * 6]
    assert back.take(np.array([5, 0])).stamps.tolist() == [2, -3]
    assert back[2:4].stamps.tolist() == [-1, 0]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_round_trip(tmp_path: Path, count: int) -> None:
    write_manifest(tmp_path, manifest(count))
    assert same(read_manifest(tmp_path), manifest(count))
    assert [entry.name for entry in tmp_path.iterdir()] == [MANIFEST_FILE]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8))
@settings(max_examples=30)
def test_any_path_comes_back(tmp_path_factory: pytest.TempPathFactory, paths: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_manifest(folder, dataclasses.replace(manifest(len(paths)), paths=paths))
    assert read_manifest(folder).paths == paths


def test_rows_are_plain_values() -> None:
    rows = list(manifest())
    assert rows[3] == ManifestRow(
        id=3,
        path="벌/bee\n3.jpg",
        sha256=manifest().sha256[3].tobytes().hex(),
        pixels_sha256=manifest().pixels_sha256[3].tobytes().hex(),
        phash=2**63 + 3,
        width=643,
        height=480,
        label=1,
        split="test",
        shard=1,
        position=3,
        copy_group=2,
        status=OK,
        reason="",
    )
    assert (rows[-1].sha256, rows[-1].split, rows[-1].status, rows[-1].reason) == ("", "", REFUSED, "corrupt")
    assert manifest().ok.tolist() == [True] * 5 + [False]
    assert list(manifest()[2:4]) == rows[2:4]


def test_many_rows_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "ROWS_PER_GROUP", 4)
    write_manifest(tmp_path, manifest(10))
    assert pq.ParquetFile(tmp_path / MANIFEST_FILE).num_row_groups == 3
    assert [len(part) for part in iter_manifest(tmp_path)] == [4, 4, 2]
    assert [row for part in iter_manifest(tmp_path) for row in part] == list(manifest(10))
    assert same(read_manifest(tmp_path), manifest(10))


@pytest.mark.parametrize(
    "changes", [{"ids": np.zeros(6, np.int32)}, {"phash": np.zeros(5, np.uint64)}, {"sha256": np.zeros(6, np.uint8)}]
)
def test_columns_of_another_kind_are_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(changes))}` should be "):
        dataclasses.replace(manifest(), **changes)


def test_columns_are_those_of_the_row(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    table = pq.read_table(tmp_path / MANIFEST_FILE)
    names = [field.name for field in dataclasses.fields(ManifestRow)]
    names.insert(names.index("label") + 1, "class")
    names.insert(names.index("shard") + 1, "shard_file")
    assert table.column_names == names
    derived = {"class": "", "shard_file": ""}
    assert table.to_pylist() == [{**dataclasses.asdict(row), **derived} for row in manifest()]
    write_manifest(
        tmp_path, manifest(), ["ant", "bee"], {"train": ["a-0", "a-1", "a-2"], "test": ["b-0", "b-1", "b-2"]}
    )
    table = pq.read_table(tmp_path / MANIFEST_FILE)
    assert table.column_names == names
    for row in table.to_pylist():
        assert row["class"] == ["ant", "bee", ""][row["label"]]
        assert row["shard_file"] == (
            "" if row["status"] == REFUSED else f"{'ab'[row['split'] == 'test']}-{row['shard']}"
        )
    assert same(read_manifest(tmp_path), manifest())


def test_a_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has a column `group`, and neither class names nor names of shards."""
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST_FILE
    metadata = pq.read_schema(path).metadata
    table = pq.read_table(path).drop_columns(["class", "shard_file"])
    table = table.rename_columns(["group" if name == "copy_group" else name for name in table.column_names])
    for name in ("split", "status", "reason"):  # as they are in the file; reading widens the codes
        column = table[name].combine_chunks()
        codes = pa.DictionaryArray.from_arrays(column.indices.cast(pa.int8()), column.dictionary)
        table = table.set_column(table.column_names.index(name), name, codes)
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, use_dictionary=["split", "status", "reason"], write_page_checksum=True)
    assert same(read_manifest(tmp_path), manifest())
    assert [row for part in iter_manifest(tmp_path) for row in part] == list(manifest())
    for names in (["group", "path"], ["copy_group", "path"]):
        pq.write_table(table.drop_columns(["path"]).append_column(names[0], table["id"]), path)
        with pytest.raises(DataError, match="should have the columns"):
            read_manifest(tmp_path)


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, manifest())
    assert (tmp_path / "a" / MANIFEST_FILE).read_bytes() == (tmp_path / "b" / MANIFEST_FILE).read_bytes()


def test_no_flipped_byte_changes_a_row_unnoticed(tmp_path: Path) -> None:
    """Parquet's own page checksums; the bytes they leave out (statistics, the writer's name) are of no row."""
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST_FILE
    good = path.read_bytes()
    num_noticed = 0
    for at in range(0, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 0x10
        path.write_bytes(bad)
        try:
            found = read_manifest(tmp_path)
        except DataError:
            num_noticed += 1
        else:
            assert same(found, manifest()), at
    assert num_noticed > len(good) // 28


def test_truncated_and_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_FILE
    with pytest.raises(DataError, match=r"manifest\.parquet is missing"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, manifest())
    good = path.read_bytes()
    for length in range(0, len(good), 97):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"manifest\.parquet cannot be read"):
            read_manifest(tmp_path)


def test_other_columns_are_an_error(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    path = tmp_path / MANIFEST_FILE
    table = pq.read_table(path)
    for other in (table.drop_columns(["reason"]), table.rename_columns([*table.column_names[:-1], "cause"])):
        pq.write_table(other, path)
        with pytest.raises(DataError, match="should have the columns id, path, sha256"):
            read_manifest(tmp_path)
