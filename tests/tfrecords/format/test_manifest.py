"""The manifest gives back its rows, other tools read it, and a damaged one is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tfrecords.errors import DataError
from tfrecords.format.manifest import MANIFEST_FILE, OK, REFUSED, ManifestRow, read_manifest, write_manifest


def rows(count: int = 6) -> list[ManifestRow]:
    good = [
        ManifestRow(
            id=id,
            path=f"벌/bee {id}.jpg",
            sha256=f"{id * 7919**15:064x}"[-64:],
            width=640 + id,
            height=480,
            label=id % 2,
            split="train" if id % 3 else "test",
            shard=id // 2,
            position=id,
            status=OK,
            reason="",
        )
        for id in range(count - 1)
    ]
    refused = dataclasses.replace(
        good[0],
        id=2**35,
        path="x\\xff.jpg",
        sha256="",
        width=0,
        height=0,
        label=-1,
        split="",
        shard=-1,
        position=-1,
        status=REFUSED,
        reason="empty",
    )
    return [*good, refused]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_round_trip(tmp_path: Path, count: int) -> None:
    write_manifest(tmp_path, rows()[:count])
    assert read_manifest(tmp_path) == rows()[:count]
    assert [entry.name for entry in tmp_path.iterdir()] == [MANIFEST_FILE]


def test_columns_are_those_of_the_row(tmp_path: Path) -> None:
    write_manifest(tmp_path, rows())
    table = pq.read_table(tmp_path / MANIFEST_FILE)
    assert table.column_names == [field.name for field in dataclasses.fields(ManifestRow)]
    assert table.to_pylist() == [dataclasses.asdict(row) for row in rows()]


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, iter(rows()))
    assert (tmp_path / "a" / MANIFEST_FILE).read_bytes() == (tmp_path / "b" / MANIFEST_FILE).read_bytes()


def test_no_flipped_byte_changes_a_row_unnoticed(tmp_path: Path) -> None:
    """Parquet's own page checksums; the bytes they leave out (statistics, the writer's name) are of no row."""
    write_manifest(tmp_path, rows())
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
            assert found == rows(), at
    assert num_noticed > len(good) // 28


def test_truncated_and_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_FILE
    with pytest.raises(DataError, match=r"manifest\.parquet is missing"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, rows())
    good = path.read_bytes()
    for length in range(0, len(good), 97):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"manifest\.parquet cannot be read"):
            read_manifest(tmp_path)


def test_other_columns_are_an_error(tmp_path: Path) -> None:
    write_manifest(tmp_path, rows())
    path = tmp_path / MANIFEST_FILE
    table = pq.read_table(path)
    for other in (table.drop_columns(["reason"]), table.rename_columns([*table.column_names[:-1], "cause"])):
        pq.write_table(other, path)
        with pytest.raises(DataError, match="should have the columns id, path, sha256"):
            read_manifest(tmp_path)
