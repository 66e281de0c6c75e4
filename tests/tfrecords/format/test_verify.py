"""Verify says ok of a good data set, and finds whatever is done to one."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.format.files import read_json, write_json
from tfrecords.format.layout import Layout, encode_record
from tfrecords.format.manifest import MANIFEST_FILE, read_manifest, write_manifest
from tfrecords.format.metadata import write_metadata
from tfrecords.format.shard import ShardReader, ShardWriter
from tfrecords.format.verify import verify


@pytest.fixture
def folder(converted: Any, tmp_path: Path) -> Path:
    """A data set of each encoding, to be spoiled."""
    return Path(shutil.copytree(converted.folder, tmp_path / "set"))


@pytest.fixture
def raw_folder(converted_raw: Any, tmp_path: Path) -> Path:
    """A raw data set, to be spoiled."""
    return Path(shutil.copytree(converted_raw.folder, tmp_path / "set"))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tfrecord-?????-of-?????"))


def problems(folder: Path) -> str:
    """Returns what verify finds; fails where it finds nothing."""
    found = verify(folder)
    assert not found.ok
    assert found.problems
    return "\n".join(found.problems)


def test_ok(folder: Path, converted: Any) -> None:
    seen: list[int] = []
    found = verify(folder, progress=seen.append)
    assert found.problems == ()
    assert found.ok
    assert found.num_examples == converted.summary.num_examples == sum(seen) == 40


def test_finds_a_flipped_byte_anywhere_in_the_shards(folder: Path) -> None:
    pick = random.Random(5)
    places = [(path, at) for path in shards(folder) for at in range(path.stat().st_size)]
    edges = [(path, at) for path in shards(folder) for at in (0, 8, 12, path.stat().st_size - 1)]
    for path, at in pick.sample(places, 60) + edges:
        good = path.read_bytes()
        bad = bytearray(good)
        bad[at] ^= 1 << pick.randrange(8)
        path.write_bytes(bad)
        assert str(path) in problems(folder)
        path.write_bytes(good)
    assert verify(folder).ok


@pytest.mark.parametrize("name", ["layout.json", "dataset_info.json", "features.json", "label.labels.txt"])
def test_finds_a_flipped_byte_in_the_small_files(raw_folder: Path, name: str) -> None:
    path = raw_folder / name
    good = path.read_bytes()
    num_flipped = 0
    for at in random.Random(6).sample(range(len(good)), min(len(good), 60)):
        bad = bytearray(good)
        bad[at] ^= 1
        if name == "layout.json" and _same_json(good, bad):
            continue  # white space that was flipped to other white space
        path.write_bytes(bad)
        assert str(path) in problems(raw_folder)
        num_flipped += 1
    assert num_flipped >= min(len(good), 40)


def _same_json(a: bytes, b: bytes) -> bool:
    try:
        return bool(json.loads(a) == json.loads(b))
    except ValueError:
        return False


def test_finds_a_flipped_byte_in_the_manifest_where_a_row_changes(raw_folder: Path) -> None:
    path = raw_folder / MANIFEST_FILE
    good, rows = path.read_bytes(), read_manifest(raw_folder)
    for at in random.Random(7).sample(range(len(good)), 60):
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bad)
        if verify(raw_folder).ok:
            assert read_manifest(raw_folder) == rows


@pytest.mark.parametrize(
    "name", ["layout.json", MANIFEST_FILE, "dataset_info.json", "features.json", "label.labels.txt"]
)
def test_finds_a_missing_file(raw_folder: Path, name: str) -> None:
    (raw_folder / name).unlink()
    assert f"{raw_folder / name} is missing" in problems(raw_folder)


def test_finds_a_missing_shard(folder: Path) -> None:
    path = shards(folder)[2]
    path.unlink()
    assert problems(folder) == f"{path} is missing."


def test_finds_two_swapped_shards(folder: Path) -> None:
    first, second = shards(folder)[-2:]
    for a, b in [(first, second), (Path(f"{first}.idx"), Path(f"{second}.idx"))]:
        if a.exists():
            kept = a.read_bytes()
            a.write_bytes(b.read_bytes())
            b.write_bytes(kept)
    found = problems(folder)
    for path in (first, second):
        assert f"{path}: record 0: id" in found
        assert f"{path}: its SHA-256 is not the one in layout.json" in found


def test_finds_an_extra_shard(folder: Path) -> None:
    extra = folder / "zoo-train.tfrecord-00007-of-00008"
    shutil.copy(shards(folder)[0], extra)
    assert problems(folder) == f"{extra} is not in layout.json."


@pytest.mark.parametrize("change", [1, -1])
def test_finds_a_wrong_count_in_dataset_info(raw_folder: Path, change: int) -> None:
    path = raw_folder / "dataset_info.json"
    info = read_json(path, "a test")
    lengths = info["splits"][0]["shardLengths"]
    lengths[0] = str(int(lengths[0]) + change)
    write_json(path, info)
    assert "dataset_info.json counts" in problems(raw_folder)


def test_finds_a_missing_record(folder: Path) -> None:
    path = shards(folder)[0]
    payloads = list(ShardReader(path))
    with ShardWriter(path, index=Path(f"{path}.idx").exists()) as writer:
        for payload in payloads[:-1]:
            writer.write(payload)
    assert f"{path} has {len(payloads) - 1} records, layout.json says {len(payloads)}." in problems(folder)


def test_finds_an_extra_record(folder: Path) -> None:
    path = shards(folder)[0]
    payloads = list(ShardReader(path))
    with ShardWriter(path, index=Path(f"{path}.idx").exists()) as writer:
        for payload in [*payloads, payloads[0]]:
            writer.write(payload)
    assert f"{path} has {len(payloads) + 1} records, layout.json says {len(payloads)}." in problems(folder)


def test_finds_another_picture_in_a_well_formed_record(raw_folder: Path) -> None:
    """Checksums of records and counts are right; only the shard's own checksum tells."""
    path = shards(raw_folder)[0]
    data = path.read_bytes()
    offsets = Layout.load(raw_folder).offsets
    payloads = [bytearray(payload) for payload in ShardReader(path)]
    payloads[0][offsets.image_offset - 12] ^= 1
    with ShardWriter(path) as writer:
        for payload in payloads:
            writer.write(bytes(payload))
    assert len(path.read_bytes()) == len(data)
    assert problems(raw_folder) == f"{path}: its SHA-256 is not the one in layout.json."


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0a\xff", "record 0: no tf.train.Example"),
        (b"", "record 0: has the features [] instead of id, image, label"),
        (encode_record(b"short", 0, 0), "record 0: is "),
    ],
)
def test_finds_a_record_of_another_kind(raw_folder: Path, payload: bytes, message: str) -> None:
    path = shards(raw_folder)[0]
    payloads = list(ShardReader(path))
    with ShardWriter(path) as writer:
        for each in [payload, *payloads[1:]]:
            writer.write(each)
    assert f"{path}: {message}" in problems(raw_folder)


@pytest.mark.parametrize("converted", ["png", "jpeg"], indirect=True)
def test_finds_a_changed_or_missing_sidecar(folder: Path) -> None:
    path = Path(f"{shards(folder)[1]}.idx")
    good = path.read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bad)
        assert str(path) in problems(folder)
    path.unlink()
    assert f"{path} is missing" in problems(folder)


def _relabel(folder: Path) -> None:
    rows = read_manifest(folder)
    rows[0] = dataclasses.replace(rows[0], label=1 - rows[0].label)
    write_manifest(folder, rows)


def _forget_a_row(folder: Path) -> None:
    write_manifest(folder, read_manifest(folder)[1:])


def _rename_a_class(folder: Path) -> None:
    layout = Layout.load(folder)
    dataclasses.replace(layout, class_names=("ant", "wasp")).save(folder)


def _move_the_offsets(folder: Path) -> None:
    layout = Layout.load(folder)
    offsets = dataclasses.replace(layout.offsets, image_offset=layout.offsets.image_offset + 1)
    dataclasses.replace(layout, offsets=offsets).save(folder)


def _other_num_bytes(folder: Path) -> None:
    layout = Layout.load(folder)
    first = dataclasses.replace(layout.splits["train"][0], num_bytes=1)
    layout = dataclasses.replace(layout, splits={**layout.splits, "train": (first, *layout.splits["train"][1:])})
    layout.save(folder)
    write_metadata(folder, layout)


def _misnamed_shard(folder: Path) -> None:
    layout = Layout.load(folder)
    first = dataclasses.replace(layout.splits["train"][0], file="zoo-train.tfrecord-00000-of-00001")
    (folder / layout.splits["train"][0].file).rename(folder / first.file)
    dataclasses.replace(layout, splits={**layout.splits, "train": (first, *layout.splits["train"][1:])}).save(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_relabel, "are not what manifest.parquet has in this place"),
        (_forget_a_row, "manifest.parquet counts"),
        (_rename_a_class, "label.labels.txt is not what belongs to layout.json"),
        (_move_the_offsets, "layout.json's offsets do not fit 16 px raw records"),
        (_other_num_bytes, "bytes, layout.json says 1."),
        (_misnamed_shard, "should be named zoo-train.tfrecord-00000-of-0000"),
    ],
)
def test_finds_parts_that_disagree(raw_folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(raw_folder)
    assert message in problems(raw_folder)


def test_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert "layout.json is missing" in problems(folder)
