"""Records whose label is not one class, or that have further features: their bytes, and where their parts lie."""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import DataError
from tfrecords.format.example import decode_lists
from tfrecords.format.layout import Layout
from tfrecords.format.record import footer, header
from tfrecords.format.record_layout import Offsets, encode_record, encode_with_tail, find_spans
from tfrecords.format.schema import PLAIN, FeatureSpec, Schema, check_value
from tfrecords.format.shard import open_shard
from tfrecords.format.shard_scan import scan_shard
from tfrecords.format.tfds_metadata import metadata_files

NUMBERS = (FeatureSpec(name="age", dtype="int64"), FeatureSpec(name="box", dtype="float32", length=4))
TEXTS = (FeatureSpec(name="caption", dtype="text"), FeatureSpec(name="words", dtype="bytes", length=-1))
VALUES = (-7, [0.5, -1.0, math.inf, 2.0])
SCHEMAS = {
    "single": (Schema(features=NUMBERS), 3, [3]),
    "multi": (Schema(label_type="multi", label_size=3, features=NUMBERS), (0, 4), [0, 4]),
    "multi without any": (Schema(label_type="multi", label_size=200, features=NUMBERS), (), []),
    "float": (Schema(label_type="float", label_size=2, features=NUMBERS), (1.5, -2.0), [1.5, -2.0]),
    "none": (Schema(label_type="none", features=NUMBERS), None, None),
}


def framed(payload: bytes) -> bytes:
    return header(len(payload)) + payload + footer(payload)


@pytest.mark.parametrize(("schema", "label", "expected"), SCHEMAS.values(), ids=SCHEMAS)
def test_a_record_of_numbers_has_one_length_and_its_parts_are_found(schema: Schema, label: Any, expected: Any) -> None:
    image = bytes(range(12))
    record = framed(encode_with_tail(image, 300, schema.tail(label, VALUES)))
    at = Offsets.of("raw", 2, schema)
    assert at.record_bytes == len(record)
    assert record[at.image_offset :].startswith(image)
    data = np.frombuffer(record, np.uint8)
    spans = find_spans(data, np.array([0]), np.array([len(record)]))
    assert [part.tolist() for part in spans] == [[at.id_offset], [at.image_offset], [12]]
    features = decode_lists(record[12:-4])
    assert features["id"] == [300]
    assert features["age"] == [-7]
    assert features["box"] == VALUES[1]
    assert features.get("label") == expected
    found = schema.labels_of(data[None, at.label_offset : at.label_offset + schema.label_bytes], 5).tolist()
    hot = [[int(number in (expected or ())) for number in range(5)]]
    assert found == {"single": [3], "none": [-1], "float": [[1.5, -2.0]], "multi": hot}[schema.label_type]


def test_a_plain_record_is_what_it_always_was() -> None:
    assert encode_with_tail(b"abc", 5, PLAIN.tail(7, ())) == encode_record(b"abc", 7, 5)
    assert Offsets.of("raw", 64, PLAIN) == Offsets.of("raw", 64)
    assert PLAIN.is_plain
    assert not Schema(features=NUMBERS).is_plain


def test_text_ends_the_fixed_length() -> None:
    schema = Schema(features=TEXTS)
    assert schema.tail_bytes is None
    assert Offsets.of("raw", 8, schema) == Offsets()
    assert not FeatureSpec(name="a", dtype="int64", length=-1).is_fixed


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.text(max_size=200), st.lists(st.binary(max_size=9))), min_size=1))
def test_parts_of_records_of_any_length_are_found(rows: list[tuple[bytes, str, list[bytes]]]) -> None:
    schema = Schema(features=TEXTS)
    tails = [
        schema.tail(number, (text.replace("\ud800", ""), several)) for number, (_, text, several) in enumerate(rows)
    ]
    records = [framed(encode_with_tail(row[0], 9, tail)) for row, tail in zip(rows, tails, strict=True)]
    ends = np.cumsum([len(record) for record in records])
    data = np.frombuffer(b"".join(records), np.uint8)
    _, images, lengths = find_spans(data, ends - [len(record) for record in records], ends)
    for record, at, length, row in zip(records, images.tolist(), lengths.tolist(), rows, strict=True):
        assert record[at : at + length] == row[0]


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=40, max_size=200))
def test_no_bytes_make_the_search_for_parts_fail(noise: bytes) -> None:
    data = np.frombuffer(framed(noise), np.uint8)
    _, at, length = find_spans(data, np.array([0]), np.array([len(data)]))
    assert length[0] < 0 or at[0] + length[0] <= len(data) - 4


@pytest.mark.parametrize("kind", ["single", "multi", "float", "none"])
def test_a_shard_is_read_back(tmp_path: Path, kind: str) -> None:
    labels = {"single": (2, 0), "multi": ((1, 2), ()), "float": ((0.5,), (1.5,)), "none": (None, None)}[kind]
    schema = Schema(label_type=kind, label_size=2 if kind == "multi" else 1, features=TEXTS)
    with open_shard(tmp_path / "shard") as writer:
        for id, label in enumerate(labels):
            writer.write(encode_with_tail(b"pixels", id, schema.tail(label, ("ü", [b"a", b""]))))
    scan = scan_shard(tmp_path / "shard", schema=schema)
    assert scan.faults == ()
    assert scan.ids.tolist() == [0, 1]
    assert scan.labels.tolist() == {"single": [2, 0], "multi": [1, -1]}.get(kind, [0, 0])
    assert len(scan_shard(tmp_path / "shard").faults) == 2
    other = dataclasses.replace(schema, features=(*TEXTS[:1], dataclasses.replace(TEXTS[1], length=3)))
    assert "feature words has 2 values instead of 3" in scan_shard(tmp_path / "shard", schema=other).faults[0]


def layout_of(schema: Schema) -> Layout:
    return Layout(
        name="a",
        version="1.0.0",
        encoding="raw",
        image_size=4,
        class_names=("x", "y"),
        offsets=Offsets.of("raw", 4, schema),
        splits={},
        files={},
        config={},
        source_sha256="",
        versions={},
        schema=schema,
    )


def test_layout(tmp_path: Path) -> None:
    schema = Schema(label_type="multi", label_size=3, features=NUMBERS)
    layout_of(schema).save(tmp_path)
    assert Layout.load(tmp_path).schema == schema
    assert b"schema" not in layout_of(PLAIN).to_bytes()
    assert "label.labels.txt" in metadata_files(layout_of(schema))
    assert "label.labels.txt" not in metadata_files(layout_of(Schema(label_type="none")))


@pytest.mark.parametrize(
    "schema",
    [
        Schema(label_type="several"),
        Schema(label_type="multi", label_size=-1),
        Schema(features=(FeatureSpec(name="image", dtype="int64"),)),
        Schema(features=(FeatureSpec(name="a", dtype="int8"),)),
        Schema(features=(FeatureSpec(name="a", dtype="text", length=-2),)),
        Schema(features=(NUMBERS[1], NUMBERS[0])),
    ],
)
def test_a_layout_from_elsewhere(tmp_path: Path, schema: Schema) -> None:
    dataclasses.replace(layout_of(PLAIN), schema=schema).save(tmp_path)
    with pytest.raises(DataError, match=r"schema is not one"):
        Layout.load(tmp_path)


def test_values_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="int64"):
        Schema(features=NUMBERS[:1]).tail(0, (1 << 63,))
    with pytest.raises(ValueError, match="too large for a float32"):
        Schema(label_type="float").tail((1e300,), ())
    assert check_value(NUMBERS[0], [1, 2]) == "has 2 values instead of 1"
    assert check_value(NUMBERS[0], [b"a"]) == "should have values of int64"
    assert check_value(NUMBERS[0], None) == "is not a list"
    assert struct.unpack("<f", Schema(label_type="float").tail((math.nan,), ())[-4:])[0] != 0
