"""`--format=array_record`: the same plan and examples in ArrayRecord files, which TFDS opens as data sources."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfrecords.base_errors import ConversionError, DataError, Interrupted, UsageError
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.array_record_shard import ArrayRecordReader, open_array_record
from tfrecords.format.dataset_images import DatasetImages, count_labels
from tfrecords.format.dataset_verification import verify
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import read_manifest
from tfrecords.format.record_layout import Offsets, encode_record
from tfrecords.format.shard import ShardReader
from tfrecords.format.shard_scan import scan_shard

ARRAY_RECORD: dict[str, Any] = {"format": "array_record"}


@pytest.fixture(scope="module")
def photos_with_copies(tmp_path_factory: pytest.TempPathFactory, make_folder: Any) -> Path:
    """Pictures, copies that change their split, and a broken file."""
    folder: Path = make_folder(tmp_path_factory.mktemp("array") / "zoo", {"ant": 22, "bee": 18})
    for number in range(6):
        shutil.copy(folder / "ant" / f"image_{2 * number}.jpg", folder / "bee" / f"x_{number}.jpg")
    (folder / "bee" / "broken.png").write_bytes(b"no picture")
    return folder


def records(folder: Path) -> dict[str, list[bytes]]:
    """The examples of each shard, by its name without the format."""
    return {
        info.file.replace("array_record", "tfrecord"): list(
            (ArrayRecordReader if "array_record" in info.file else ShardReader)(folder / info.file)  # type: ignore[arg-type]
        )
        for infos in Layout.load(folder).splits.values()
        for info in infos
    }


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_same_plan_records_and_order_as_tfrecord(
    photos_with_copies: Path, tmp_path: Path, a_config: Any, digests_of: Any, encoding: str
) -> None:
    options = {"encoding": encoding, "image_size": 16}
    plain = convert(a_config(photos_with_copies, tmp_path / "plain", **options)).dataset_dir
    summary = convert(a_config(photos_with_copies, tmp_path / "one", **options, **ARRAY_RECORD))
    folder = summary.dataset_dir
    expected = records(plain)
    assert records(folder) == expected
    assert len(expected) > 4
    layout, before = Layout.load(folder), Layout.load(plain)
    assert all((folder / info.file).is_file() for infos in layout.splits.values() for info in infos)
    assert (layout.file_format, before.file_format) == ("array_record", "tfrecord")
    assert "file_format" not in json.loads((plain / "layout.json").read_bytes())
    assert layout.offsets == Offsets()
    assert not list(folder.glob("*.idx"))
    assert layout.config == {**before.config, **ARRAY_RECORD}
    assert layout.versions.keys() - before.versions.keys() == {"array-record"}
    infos = [json.loads((each / "dataset_info.json").read_bytes()) for each in (folder, plain)]
    assert infos[0].pop("description") == infos[1].pop("description").replace(
        f"encoding {encoding},", f"encoding {encoding}, format array_record,"
    )
    assert infos[0] == {**infos[1], "fileFormat": "array_record"}
    for name in ("features.json", "label.labels.txt", "quarantine.jsonl"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    tables = [pq.read_table(each / "manifest.parquet") for each in (folder, plain)]
    files = [set(table["shard_file"].to_pylist()) - {None, ""} for table in tables]
    assert {file.replace("array_record", "tfrecord") for file in files[0]} == files[1]
    assert tables[0].drop_columns("shard_file").equals(tables[1].drop_columns("shard_file"))
    seen: list[int] = []
    found = verify(folder, progress=seen.append)
    assert found.problems == ()
    assert found.num_examples == summary.num_examples == sum(seen)
    manifest = read_manifest(folder)
    row = int(np.flatnonzero(manifest.ok)[3])
    images = [DatasetImages(where, Layout.load(where), manifest).image(row) for where in (folder, plain)]
    assert images[0].tobytes() == images[1].tobytes()

    two = convert(a_config(photos_with_copies, tmp_path / "two", num_workers=2, **options, **ARRAY_RECORD))
    assert digests_of(two.dataset_dir) == digests_of(folder)


@pytest.mark.usefixtures("small_shards")
def test_stopped_and_killed_conversions_end_with_the_same_bytes(
    photos_with_copies: Path, tmp_path: Path, a_config: Any, digests_of: Any, interrupt_at: Any, start_child: Any
) -> None:
    expected = digests_of(convert(a_config(photos_with_copies, tmp_path / "straight", **ARRAY_RECORD)).dataset_dir)
    config = a_config(photos_with_copies, tmp_path / "stopped", **ARRAY_RECORD)
    with pytest.raises(Interrupted, match="the same command resumes"):
        convert(config, progress=interrupt_at(20))
    work = next((tmp_path / "stopped" / "zoo").glob(".*.work"))
    assert list((work / "receipts").iterdir())
    with pytest.raises(UsageError, match="was begun with other options: --format=array_record there"):
        convert(dataclasses.replace(config, format="tfrecord"))
    summary = convert(config)
    assert 0 < summary.num_converted < summary.num_examples
    assert digests_of(summary.dataset_dir) == expected

    with start_child(photos_with_copies, tmp_path / "killed", stop_at=20, num_workers=2, **ARRAY_RECORD) as child:
        assert child.line() == "here"
        child.signal(signal.SIGKILL)
        assert child.ends()
    summary = convert(a_config(photos_with_copies, tmp_path / "killed", **ARRAY_RECORD))
    assert digests_of(summary.dataset_dir) == expected


@pytest.mark.usefixtures("small_shards")
def test_append_shares_the_old_shards(make_folder: Any, write_picture: Any, tmp_path: Path, a_config: Any) -> None:
    photos = make_folder(tmp_path / "zoo", {"ant": 10, "bee": 10})
    first = convert(a_config(photos, tmp_path / "data", **ARRAY_RECORD)).dataset_dir
    for number in range(5):
        write_picture(photos / "ant" / f"new_{number}.png", 700 + number)
    with pytest.raises(UsageError, match="made with other options"):
        convert(a_config(photos, tmp_path / "data", append=True))
    second = convert(a_config(photos, tmp_path / "data", append=True, **ARRAY_RECORD)).dataset_dir
    assert second.name == "1.1.0"
    assert verify(second).ok
    old = {path.stat().st_ino for path in first.glob("*.array_record-*")}
    assert old < {path.stat().st_ino for path in second.glob("*.array_record-*")}


def test_tfds_reads_it_as_a_data_source(converted_raw: Any, photos: Path, tmp_path: Path, a_config: Any) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = convert(a_config(photos, tmp_path, image_size=16, encoding="raw", **ARRAY_RECORD)).dataset_dir
    source = tfds.builder_from_directory(folder).as_data_source()
    manifest = read_manifest(folder)
    for split, examples in source.items():
        expected = [example for shard in records(folder).items() if f"-{split}." in shard[0] for example in shard[1]]
        assert len(examples) == len(expected) == Layout.load(folder).num_examples(split)
        for place in range(len(examples)):
            example = examples[place]
            image, label, id = example["image"], int(example["label"]), int(example["id"])
            assert (image.dtype, image.shape) == (np.uint8, (16, 16, 3))
            assert encode_record(image.tobytes(), label, id) == expected[place]
            assert manifest.labels[manifest.ids == id] == label


def test_readers_of_simimg_say_what_to_do(photos: Path, tmp_path: Path, a_config: Any) -> None:
    from simimg.input.split import open_split

    folder = convert(a_config(photos, tmp_path / "data", **ARRAY_RECORD)).dataset_dir
    with pytest.raises(UsageError, match=r"stored as array_record, .* convert the images again .* without --format\."):
        open_split(folder, "train")
    folder = convert(a_config(photos, tmp_path / "jpeg", encoding="jpeg", **ARRAY_RECORD)).dataset_dir
    with pytest.raises(UsageError, match=r"is stored as array_record\. Prepare it as TFRecord: .* convert the images"):
        convert(ConvertConfig(image_dir=str(folder), data_dir=tmp_path / "again"))


def test_without_the_package_nothing_is_begun(
    photos: Path, tmp_path: Path, a_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = convert(a_config(photos, tmp_path / "data", **ARRAY_RECORD)).dataset_dir
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    sentence = r"need the package array-record\. Install it with: pip install 'simimg-tf\[array_record\]'"
    with pytest.raises(UsageError, match=sentence):
        convert(a_config(photos, tmp_path / "new", **ARRAY_RECORD))
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match=sentence):
        verify(folder)


@pytest.fixture
def spoil(photos: Path, tmp_path: Path, a_config: Any) -> Callable[[Callable[[bytes], bytes]], str]:
    """Changes the bytes of a shard and returns what verify says."""
    folder = convert(a_config(photos, tmp_path / "data", image_size=32, encoding="raw", **ARRAY_RECORD)).dataset_dir
    path = min(folder.glob("*-train.*"))
    whole = path.read_bytes()

    def spoiled(change: Callable[[bytes], bytes]) -> str:
        path.write_bytes(change(whole))
        found = verify(folder)
        assert not found.ok
        return "\n".join(found.problems)

    return spoiled


def test_verify_names_what_is_damaged(spoil: Any) -> None:
    def flipped(at: int) -> Callable[[bytes], bytes]:
        return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    assert "train.array_record-00000-of-00001: record 22: Corrupted Riegeli/records file" in spoil(flipped(70_000))
    for at in (3, 40, 1_000, 66_000):
        assert "train.array_record" in spoil(flipped(at))
    for change in (*(slice(length) for length in (0, 10, 65_536, 70_000, -1)), None):
        text = spoil(lambda data, change=change: data + b"\0" if change is None else data[change])
        assert "train.array_record-00000-of-00001: the file cannot be opened: " in text


def test_errors_of_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "a-train.array_record-00000-of-00001"
    with open_array_record(path) as writer:
        for number in range(3):
            writer.write(encode_record(b"pixels", number, number))
    assert writer.info().payload_bytes == sum(map(len, ArrayRecordReader(path)))
    assert scan_shard(path).ids.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="has no record 3"):
        ArrayRecordReader(path).read(3)
    with pytest.raises(FileNotFoundError):
        ArrayRecordReader(tmp_path / "none")
    with pytest.raises(OSError, match="no-folder"), open_array_record(tmp_path / "no-folder" / path.name):
        pass
    before = path.read_bytes()
    with pytest.raises(ConversionError), open_array_record(path):
        raise ConversionError("stopped")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("kind", ["multi", "float", "none", "single"])
def test_labels_of_other_forms_and_features(labeled: Any, tmp_path: Path, kind: str) -> None:
    """The same records as in TFRecords, which are found, verified and counted."""
    plain, summary = labeled(kind, tmp_path / "plain"), labeled(kind, tmp_path / "array", **ARRAY_RECORD)
    folder, layout = summary.dataset_dir, Layout.load(summary.dataset_dir)
    assert records(folder) == records(plain.dataset_dir)
    assert layout.schema == Layout.load(plain.dataset_dir).schema
    assert layout.offsets == Offsets()
    assert verify(folder).problems == ()
    assert not any("differ in length" in note for note in summary.warnings)
    assert (folder / "features.json").read_bytes() == (plain.dataset_dir / "features.json").read_bytes()
    manifest = read_manifest(folder)
    counts = [count_labels(each, Layout.load(each), manifest) for each in (folder, plain.dataset_dir)]
    assert (counts[0] is None) == (kind != "multi")
    assert np.array_equal(counts[0], counts[1])  # type: ignore[arg-type]
    row = int(np.flatnonzero(manifest.ok)[0])
    values = [DatasetImages(each, Layout.load(each), manifest).values(row) for each in (folder, plain.dataset_dir)]
    assert values[0] == values[1]
    shard = folder / layout.splits["train"][0].file
    shard.write_bytes(shard.read_bytes()[:-1])
    assert verify(folder).problems != ()
