"""Raw records are an array on disk: one length, and every part at its offset."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import DataError
from tfrecords.format.example import decode_example, encode_example
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.record import footer, header
from tfrecords.format.record_layout import INT_BYTES, Offsets, encode_record, record_spans
from tfrecords.format.shard import open_shard


def frame(payload: bytes) -> bytes:
    """Returns a payload as a record, with its framing."""
    return header(len(payload)) + payload + footer(payload)


GOLDEN = Path(__file__).parents[2] / "golden"
LARGEST = 2**35 - 1
NUMBERS = st.integers(0, LARGEST)


def unpadded(group: bytes) -> int:
    """Decodes a padded varint as a reader that has only the offset does."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(group))


@pytest.mark.parametrize("image_size", [1, 8, 64, 128, 224])
@pytest.mark.parametrize("id", [0, 1, 127, 128, 2**31, LARGEST])
def test_offsets_point_at_the_parts(image_size: int, id: int) -> None:
    offsets = Offsets.of("raw", image_size)
    pixels = np.random.default_rng(id).integers(0, 256, image_size * image_size * 3, dtype=np.uint8).tobytes()
    for label in (0, 5, LARGEST):
        record = frame(encode_record(pixels, label, id))
        assert len(record) == offsets.record_bytes
        assert record[offsets.image_offset : offsets.image_offset + len(pixels)] == pixels
        assert unpadded(record[offsets.id_offset : offsets.id_offset + INT_BYTES]) == id
        assert unpadded(record[offsets.label_offset : offsets.label_offset + INT_BYTES]) == label


@given(NUMBERS, NUMBERS, st.binary(min_size=12, max_size=12))
@settings(max_examples=100)
def test_every_record_has_the_same_length(id: int, label: int, pixels: bytes) -> None:
    payload = encode_record(pixels, label, id)
    assert len(frame(payload)) == Offsets.of("raw", 2).record_bytes
    assert decode_example(payload) == {"id": id, "image": pixels, "label": label}


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.binary(min_size=12, max_size=12)), min_size=1, max_size=5))
@settings(max_examples=30)
def test_a_shard_is_an_array(examples: list[tuple[int, int, bytes]]) -> None:
    offsets = Offsets.of("raw", 2)
    shard = b"".join(frame(encode_record(pixels, label, id)) for id, label, pixels in examples)
    array = np.frombuffer(shard, np.uint8).reshape(-1, offsets.record_bytes)
    images = array[:, offsets.image_offset : offsets.image_offset + 12]
    assert [row.tobytes() for row in images] == [pixels for _, _, pixels in examples]


@given(
    st.one_of(st.integers(0, 300), st.integers(2**14 - 40, 2**14 + 40), st.integers(2**21 - 40, 2**21 + 40)),
    NUMBERS,
    NUMBERS,
)
@settings(max_examples=200)
def test_a_record_is_an_example(length: int, label: int, id: int) -> None:
    """`encode_record` fills a template; `encode_example` builds the message part by part."""
    image = bytes(length)
    expected = encode_example({"id": id, "image": image, "label": label}, int_bytes=INT_BYTES)
    assert encode_record(image, label, id) == expected


@pytest.mark.parametrize(("label", "id"), [(0, LARGEST + 1), (LARGEST + 1, 0), (-1, 0), (0, -1)])
def test_numbers_that_do_not_fit_are_errors(label: int, id: int) -> None:
    with pytest.raises(ValueError, match="should fit into 5 varint bytes"):
        encode_record(b"", label, id)


def a_layout() -> Layout:
    return Layout(
        name="zoo",
        version="1.2.0",
        encoding="raw",
        image_size=2,
        class_names=("ant", "벌"),
        offsets=Offsets.of("raw", 2),
        splits={
            "train": (
                ShardInfo(file="zoo-train.tfrecord-00000-of-00002", num_examples=3, num_bytes=249, sha256="ab" * 32),
                ShardInfo(file="zoo-train.tfrecord-00001-of-00002", num_examples=2, num_bytes=166, sha256="cd" * 32),
            ),
            "test": (
                ShardInfo(file="zoo-test.tfrecord-00000-of-00001", num_examples=0, num_bytes=0, sha256="ef" * 32),
            ),
        },
        files={"manifest.parquet": "23" * 32},
        config={"name": "zoo", "categories": ["ant", "벌"], "splits": "train=0.8,test=0.2", "seed": -7},
        source_sha256="01" * 32,
        versions={"pillow": "1.2.3", "libjpeg_turbo": "4.5.6"},
    )


@given(
    lengths=st.lists(
        st.integers(0, 600) | st.integers(16_200, 16_500) | st.integers(2_097_000, 2_097_200), min_size=1, max_size=6
    ),
    id=st.integers(0, 2**35 - 1),
)
def test_a_records_length_tells_where_its_parts_lie(lengths: list[int], id: int) -> None:
    images = [
        bytes([7, number % 251]) * (length // 2) + b"\x09" * (length % 2) for number, length in enumerate(lengths)
    ]
    records = [frame(encode_record(image, 3, id)) for image in images]
    spans = record_spans(np.array([len(record) for record in records]))
    for record, image, id_at, image_at, num_bytes in zip(records, images, *(s.tolist() for s in spans), strict=True):
        assert num_bytes == len(image)
        assert record[image_at : image_at + num_bytes] == image
        assert record[id_at : id_at + INT_BYTES] == record[record.index(b"id") + 8 :][:INT_BYTES]
        assert decode_example(record[12:-4])["id"] == id


def test_lengths_that_no_record_has() -> None:
    there = {len(encode_record(bytes(length), 0, 0)) + 16 for length in range(300)}
    for length in range(300):
        (num_bytes,) = record_spans(np.array([length]))[2]
        assert (num_bytes >= 0) == (length in there)


def test_save_and_load(tmp_path: Path) -> None:
    assert not Layout.exists(tmp_path)
    a_layout().save(tmp_path)
    assert Layout.exists(tmp_path)
    loaded = Layout.load(tmp_path)
    assert loaded == a_layout()
    assert list(loaded.splits) == ["train", "test"]
    assert loaded.num_examples("train") == 5
    assert loaded.num_examples("test") == 0


def test_variable_records_have_no_offsets(tmp_path: Path) -> None:
    layout = dataclasses.replace(a_layout(), encoding="jpeg", offsets=Offsets())
    layout.save(tmp_path)
    assert Layout.load(tmp_path).offsets == Offsets(record_bytes=0, id_offset=0, image_offset=0, label_offset=0)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    with pytest.raises(DataError, match=r"layout\.json is missing"):
        Layout.load(tmp_path)
    with pytest.raises(DataError, match=r"layout\.json is missing"):
        Layout.load(_regular_file(tmp_path))
    for text, message in [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "should have the format 'simimg-layout/2'"),
        ("{}", "should have the format 'simimg-layout/2'"),
        ('{"format": "other/2"}', "should have the format 'simimg-layout/2'"),
        ('{"format": "simimg-layout/1"}', "has the format 'simimg-layout/1'; this version reads 'simimg-layout/2'"),
        ('{"format": "simimg-layout/2"}', "its own checksum fails"),
    ]:
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=message) as caught:
            Layout.load(tmp_path)
        assert str(path) in str(caught.value)


def test_every_changed_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    a_layout().save(tmp_path)
    good = path.read_bytes()
    num_noticed = 0
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        try:
            if json.loads(bad) == json.loads(good):
                continue  # white space
        except ValueError:
            pass
        path.write_bytes(bad)
        with pytest.raises(DataError):
            Layout.load(tmp_path)
        num_noticed += 1
    assert num_noticed > 1000


def _regular_file(folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(b"")
    return path


def _golden_shard(path: Path) -> ShardInfo:
    with open_shard(path) as writer:
        for id in range(3):
            pixels = (np.arange(4 * 4 * 3) * 5 + id * 60).astype(np.uint8)
            writer.write(encode_record(pixels.tobytes(), id % 2, id * 1000))
    return writer.info()


def test_golden_shard(tmp_path: Path) -> None:
    """If these bytes change, every raw dataset on disk is one that this version would not write again.

    Who is hurt: whoever maps shards by offset (simimg's mapped reader, other programs with the numbers of layout.json),
    and whoever goes on with a conversion that an older version began: its shards would be mixed with others.
    """
    info = _golden_shard(tmp_path / "golden-train.tfrecord-00000-of-00001")
    assert (tmp_path / info.file).read_bytes() == (GOLDEN / info.file).read_bytes()
    assert Offsets.of("raw", 4) == Offsets(record_bytes=118, id_offset=26, image_offset=46, label_offset=109)


def test_golden_layout(tmp_path: Path) -> None:
    """If these bytes change, datasets that were converted before cannot be opened, or are taken for changed ones.

    A change of the format needs another name than simimg-layout/2, and `Layout.load` should go on reading this one.
    """
    info = _golden_shard(tmp_path / "golden-train.tfrecord-00000-of-00001")
    config: dict[str, Any] = {"name": "golden", "categories": [], "image_size": 4, "resize": "stretch"}
    layout = Layout(
        name="golden",
        version="1.0.0",
        encoding="raw",
        image_size=4,
        class_names=("ant", "bee"),
        offsets=Offsets.of("raw", 4),
        splits={"train": (info,)},
        files={"manifest.parquet": "11" * 32, "features.json": "22" * 32},
        config={**config, "encoding": "raw", "splits": "train=1", "seed": 0},
        source_sha256="00" * 32,
        versions={"pillow": "13.0.0", "libjpeg_turbo": "3.1.0"},
    )
    layout.save(tmp_path)
    assert (tmp_path / "layout.json").read_bytes() == (GOLDEN / "layout.json").read_bytes()
    assert Layout.load(GOLDEN) == layout
