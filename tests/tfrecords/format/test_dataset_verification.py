"""Verify says ok of a good dataset, and finds whatever is done to one."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.atomic_files import file_sha256, read_json, write_json
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest, write_manifest
from tfrecords.format.naming import MANIFEST_FILE, find_index, index_path
from tfrecords.format.record import FRAMING_BYTES
from tfrecords.format.record_layout import encode_record
from tfrecords.format.shard import ShardReader, open_shard
from tfrecords.format.tfds_metadata import write_metadata


@pytest.fixture
def folder(converted: Any, tmp_path: Path) -> Path:
    """A dataset of each encoding, to be spoiled."""
    return Path(shutil.copytree(converted.folder, tmp_path / "set"))


@pytest.fixture
def html() -> bytes:
    """A report, as it ends."""
    html = "<!doctype html><p>사진 und so weiter\n".encode()
    return html + f"<!-- sha256 {hashlib.sha256(html).hexdigest()} -->\n".encode()


@pytest.fixture
def raw_folder(converted_raw: Any, tmp_path: Path) -> Path:
    """A raw dataset, to be spoiled."""
    return Path(shutil.copytree(converted_raw.folder, tmp_path / "set"))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tfrecord-?????-of-?????"))


def seal(folder: Path) -> None:
    """Has layout.json say of all other files that they are as they should be, so that only their meaning tells."""
    layout = Layout.load(folder)
    splits = {
        split: tuple(
            dataclasses.replace(
                info, sha256=file_sha256(folder / info.file), num_bytes=(folder / info.file).stat().st_size
            )
            for info in infos
        )
        for split, infos in layout.splits.items()
    }
    files = {name: file_sha256(folder / name) for name in layout.files}
    dataclasses.replace(layout, splits=splits, files=files).save(folder)


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


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_finds_any_flipped_byte(make_folder: Any, tmp_path: Path, html: bytes, encoding: str) -> None:
    """300 flips over all files together, weighted by their sizes, and 20 more and both ends of each."""
    photos = make_folder(tmp_path / "zoo", {"ant": 12, "bee": 12})
    (photos / "bee" / "broken.png").write_bytes(b"no picture")
    config = ConvertConfig(
        image_dir=str(photos), data_dir=tmp_path / "data", image_size=16, encoding=encoding, num_workers=1
    )
    folder = convert(config).dataset_dir
    (folder / "report.html").write_bytes(html)
    assert verify(folder).ok
    pick = random.Random(5)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path: path.stat().st_size for path in files if path.stat().st_size}
    names = {path.name for path in files}
    assert {"layout.json", MANIFEST_FILE, "quarantine.jsonl", "report.html", "features.json"} < names
    assert len(shards(folder)) > 3
    assert (f"{shards(folder)[0].name}.idx" in names) == (encoding == "jpeg")
    flips = [(path, pick.randrange(sizes[path])) for path in pick.choices(list(sizes), list(sizes.values()), k=300)]
    for path, size in sizes.items():
        flips += [(path, at) for at in {0, size - 1, *(pick.randrange(size) for _ in range(20))}]
    for path, at in flips:
        good = path.read_bytes()
        bad = bytearray(good)
        bad[at] ^= pick.choice((1 << pick.randrange(8), pick.randrange(1, 256)))
        path.write_bytes(bad)
        found = verify(folder)
        assert not found.ok, (path, at)
        assert str(path) in "\n".join(found.problems)
        path.write_bytes(good)
    assert verify(folder).ok


def test_finds_white_space_in_the_layout_that_was_changed(raw_folder: Path) -> None:
    """The same JSON, so the checksum in it is right."""
    path = raw_folder / "layout.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\t", 1))
    assert problems(raw_folder) == f"{path} has the right values, but its bytes were changed."


def test_a_flipped_byte_is_told_once_with_its_record(raw_folder: Path) -> None:
    path = shards(raw_folder)[0]
    record_bytes = Layout.load(raw_folder).offsets.record_bytes
    data = bytearray(path.read_bytes())
    data[2 * record_bytes + 100] ^= 1
    path.write_bytes(data)
    assert problems(raw_folder) == f"{path}: record 2 at byte {2 * record_bytes}: the checksum of the payload fails."


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


def test_many_missing_files_are_one_problem(folder: Path) -> None:
    gone = shards(folder)[:5]
    for path in gone:
        path.unlink()
    names = ", ".join(path.name for path in gone[:3])
    found = verify(folder)
    assert found.problems == (f"{folder} lacks 5 files: {names} and 2 more.",)
    assert 0 < found.num_examples < 40


def test_finds_a_truncated_shard(folder: Path) -> None:
    path = shards(folder)[1]
    data = path.read_bytes()
    num_records = len(list(ShardReader(path)))
    second = FRAMING_BYTES + len(next(iter(ShardReader(path))))
    for length, message in [
        (0, f"{path} has 0 records; layout.json says {num_records}."),
        (second, f"{path} has 1 records; layout.json says {num_records}."),
        (7, f"{path}: record 0 at byte 0: the file ends inside the record."),
        (second + 100, f"{path}: record 1 at byte {second}: the file ends inside the record."),
    ]:
        path.write_bytes(data[:length])
        assert problems(folder) == message


def test_finds_bytes_after_the_last_record(folder: Path) -> None:
    path = shards(folder)[1]
    end = path.stat().st_size
    num_records = len(list(ShardReader(path)))
    with open(path, "ab") as file:
        file.write(bytes(20))
    assert problems(folder) == f"{path}: record {num_records} at byte {end}: the checksum of the length fails."


def test_finds_a_folder_where_a_file_should_be(folder: Path) -> None:
    """Nothing of it is an error of the program."""
    for name in (shards(folder)[0].name, MANIFEST_FILE, "features.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
    assert problems(folder).count(" cannot be read: Is a directory.") == 4


def test_finds_two_swapped_shards(folder: Path) -> None:
    first, second = shards(folder)[-2:]
    for a, b in [(first, second), (find_index(first), find_index(second))]:
        if a.exists():
            kept = a.read_bytes()
            a.write_bytes(b.read_bytes())
            b.write_bytes(kept)
    found = problems(folder)
    assert f"{first} has the content of {second.name}." in found
    assert f"{second} has the content of {first.name}." in found
    seal(folder)
    found = problems(folder)
    for path in (first, second):
        assert f"{path}: record 0: id" in found or f"{path} has " in found


def test_finds_an_extra_shard(folder: Path) -> None:
    extra = folder / "zoo-train.tfrecord-00007-of-00008"
    shutil.copy(shards(folder)[0], extra)
    (folder / ".DS_Store").touch()
    assert problems(folder) == f"{extra} is not in layout.json."
    (folder / "notes.txt").touch()
    for name in ("copy of layout.json", "features.json~", "more"):
        (folder / name).mkdir()
    assert problems(folder) == (
        f"{folder} has 5 files that are not in layout.json: copy of layout.json, features.json~, more and 2 more."
    )


@pytest.mark.parametrize("end", [b"", b"more", b"<!-- sha256 00 -->\n"])
def test_finds_a_report_that_was_changed(raw_folder: Path, html: bytes, end: bytes) -> None:
    (raw_folder / "report.html").write_bytes(html[:-1] + end)
    assert "report.html: its checksum, in its last line, fails" in problems(raw_folder)


@pytest.mark.parametrize("change", [1, -1])
def test_finds_a_wrong_count_in_dataset_info(raw_folder: Path, change: int) -> None:
    path = raw_folder / "dataset_info.json"
    info = read_json(path, "a test")
    lengths = info["splits"][0]["shardLengths"]
    lengths[0] = str(int(lengths[0]) + change)
    write_json(path, info)
    assert problems(raw_folder) == f"{path}: its SHA-256 differs from the one in layout.json."
    seal(raw_folder)
    assert "dataset_info.json counts" in problems(raw_folder)


def test_finds_a_missing_record(folder: Path) -> None:
    path = shards(folder)[0]
    payloads = list(ShardReader(path))
    with open_shard(path, index=index_path(path).exists()) as writer:
        for payload in payloads[:-1]:
            writer.write(payload)
    assert f"{path} has {len(payloads) - 1} records; layout.json says {len(payloads)}." in problems(folder)


def test_finds_an_extra_record(folder: Path) -> None:
    path = shards(folder)[0]
    payloads = list(ShardReader(path))
    with open_shard(path, index=index_path(path).exists()) as writer:
        for payload in [*payloads, payloads[0]]:
            writer.write(payload)
    assert f"{path} has {len(payloads) + 1} records; layout.json says {len(payloads)}." in problems(folder)


def test_finds_another_picture_in_a_well_formed_record(raw_folder: Path) -> None:
    """Checksums of records and counts are right; only the shard's own checksum tells."""
    path = shards(raw_folder)[0]
    data = path.read_bytes()
    offsets = Layout.load(raw_folder).offsets
    payloads = [bytearray(payload) for payload in ShardReader(path)]
    payloads[0][offsets.image_offset - 12] ^= 1
    with open_shard(path) as writer:
        for payload in payloads:
            writer.write(bytes(payload))
    assert len(path.read_bytes()) == len(data)
    assert problems(raw_folder) == f"{path}: its SHA-256 differs from the one in layout.json."


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0a\xff", "record 0 at byte 0: not a tf.train.Example"),
        (b"", "record 0 at byte 0: has the features [] instead of id, image, label"),
        (encode_record(b"no square of pixels", 0, 0), "record 0 is "),
    ],
)
def test_finds_a_record_of_another_kind(raw_folder: Path, payload: bytes, message: str) -> None:
    path = shards(raw_folder)[0]
    payloads = list(ShardReader(path))
    with open_shard(path) as writer:
        for each in [payload, *payloads[1:]]:
            writer.write(each)
    seal(raw_folder)
    assert f"{path}: {message}" in problems(raw_folder)


@pytest.mark.parametrize("converted", ["png", "jpeg"], indirect=True)
def test_finds_a_sidecar_of_another_shard_or_none(folder: Path) -> None:
    path = find_index(shards(folder)[1])
    assert path.parent.name == "idx"
    path.write_bytes(find_index(shards(folder)[0]).read_bytes())
    seal(folder)
    assert problems(folder) == f"{path} does not match the shard."
    path.unlink()
    assert problems(folder) == f"{path} is missing."


def _relabel(folder: Path) -> None:
    rows = read_manifest(folder)
    labels = rows.labels.copy()
    labels[0] = 1 - labels[0]
    write_manifest(folder, dataclasses.replace(rows, labels=labels))
    seal(folder)


def _renumber(folder: Path) -> None:
    rows = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(rows, ids=rows.ids[::-1].copy()))
    seal(folder)


def _forget_a_row(folder: Path) -> None:
    write_manifest(folder, read_manifest(folder)[1:])
    seal(folder)


def _move_a_row(folder: Path) -> None:
    rows = read_manifest(folder)
    shards = rows.shards.copy()
    train = rows.split_names.index("train")
    shards[np.flatnonzero((rows.splits == train) & (shards == 0))[0]] = 1
    write_manifest(folder, dataclasses.replace(rows, shards=shards))
    seal(folder)


def _refuse_one_more(folder: Path) -> None:
    rows = read_manifest(folder)
    reasons = rows.reasons.copy()
    reasons[0] = 0
    write_manifest(folder, dataclasses.replace(rows, reason_names=("empty",), reasons=reasons))
    seal(folder)


def _list_one_more(folder: Path) -> None:
    (folder / "quarantine.jsonl").write_text('{"path": "x", "reason": "empty", "detail": ""}\n')
    layout = Layout.load(folder)
    dataclasses.replace(layout, files={**layout.files, "quarantine.jsonl": ""}).save(folder)
    seal(folder)


def _forget_a_file(folder: Path) -> None:
    layout = Layout.load(folder)
    files = {name: sha256 for name, sha256 in layout.files.items() if name != MANIFEST_FILE}
    dataclasses.replace(layout, files=files).save(folder)


def _rename_a_class(folder: Path) -> None:
    layout = Layout.load(folder)
    dataclasses.replace(layout, class_names=("ant", "wasp")).save(folder)
    seal(folder)


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
        (_relabel, " for this record"),
        (_renumber, "more such records"),
        (_move_a_row, "records; manifest.parquet has"),
        (_forget_a_file, "layout.json has no checksum for manifest.parquet"),
        (_refuse_one_more, "quarantine.jsonl lists 0 rejected files, manifest.parquet 1."),
        (_list_one_more, "quarantine.jsonl lists 1 rejected files, manifest.parquet 0."),
        (_forget_a_row, "manifest.parquet has {"),
        (_rename_a_class, "label.labels.txt does not match layout.json"),
        (_move_the_offsets, "layout.json: its offsets are not those of raw records with 16 px"),
        (_other_num_bytes, "bytes; layout.json says 1."),
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
