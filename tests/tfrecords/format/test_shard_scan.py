"""A shard is read once, and all that is in it, or wrong with it, is told."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.format import shard_scan as scan_module
from tfrecords.format.example import decode_example, encode_example
from tfrecords.format.record import FRAMING_BYTES, footer, header
from tfrecords.format.record_layout import INT_BYTES, encode_record
from tfrecords.format.shard_scan import ShardScan, scan_shard


def frame(payload: bytes) -> bytes:
    """Returns a payload as a record, with its framing."""
    return header(len(payload)) + payload + footer(payload)


LARGEST = 2**35 - 1
# Around the lengths at which a length that stands in a record takes a byte more.
LENGTHS = st.one_of(st.integers(0, 300), st.integers(2**14 - 60, 2**14 + 20), st.integers(2**21 - 60, 2**21 + 20))
NUMBERS = st.integers(0, LARGEST)


@pytest.fixture(params=[1, 7, 100, 1 << 22])
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is read at a time: wherever a chunk ends, the same is found."""
    monkeypatch.setattr(scan_module, "_CHUNK_BYTES", request.param)
    return int(request.param)


def scan(path: Path, *parts: bytes, progress: Any = lambda num_records: None) -> ShardScan:
    """Scans a file of these bytes."""
    path.write_bytes(b"".join(parts))
    return scan_shard(path, progress=progress)


def record(id: int, *, num_bytes: int = 48, label: int = 1) -> bytes:
    return frame(encode_record(bytes([id % 251]) * num_bytes, label, id))


@pytest.mark.usefixtures("chunk_bytes")
def test_what_is_in_a_shard(tmp_path: Path) -> None:
    records = [
        record(id, num_bytes=num_bytes, label=id % 3) for id, num_bytes in enumerate([48, 0, 3, 500, 48, 15, 16])
    ]
    seen: list[int] = []
    found = scan(tmp_path / "shard", *records, progress=seen.append)
    assert found.ids.tolist() == list(range(7))
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.ids.dtype == found.labels.dtype == "int64"
    assert found.lengths.tolist() == [len(part) for part in records]
    assert (found.faults, found.whole, sum(seen)) == ((), True, 7)
    assert found.num_bytes == sum(map(len, records))
    assert found.sha256 == hashlib.sha256(b"".join(records)).hexdigest()


def test_empty_shard(tmp_path: Path) -> None:
    found = scan(tmp_path / "shard")
    assert (len(found.ids), found.num_bytes, found.faults, found.whole) == (0, 0, (), True)
    assert found.sha256 == hashlib.sha256().hexdigest()


def test_no_shard(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan_shard(tmp_path / "shard")


def test_every_record_that_can_be_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shard"

    @given(st.lists(st.tuples(LENGTHS, NUMBERS, NUMBERS), min_size=1, max_size=5))
    @settings(max_examples=60)
    def check(examples: list[tuple[int, int, int]]) -> None:
        found = scan(path, *(frame(encode_record(bytes(length), label, id)) for length, label, id in examples))
        assert found.faults == ()
        assert found.labels.tolist() == [label for _, label, _ in examples]
        assert found.ids.tolist() == [id for _, _, id in examples]

    check()


@pytest.mark.usefixtures("chunk_bytes")
def test_every_flipped_byte_is_told_with_its_record(tmp_path: Path) -> None:
    """Also one in each checksum; the records beside it are read."""
    records = [record(5), record(6, num_bytes=3), record(7)]
    good = b"".join(records)
    starts = [0, len(records[0]), len(records[0]) + len(records[1])]
    for at in range(0, len(good), 5):
        bad = bytearray(good)
        bad[at] ^= 4
        found = scan(tmp_path / "shard", bytes(bad))
        number = max(number for number, start in enumerate(starts) if start <= at)
        in_header = at - starts[number] < 12
        what = "length" if in_header else "payload"
        assert found.faults == (f"record {number} at byte {starts[number]}: the checksum of the {what} fails",)
        assert found.whole == (not in_header)
        assert found.sha256 == hashlib.sha256(bad).hexdigest()  # of all of the file, also where records were lost
        expected = [5, 6, 7]
        expected[number:] = [] if in_header else [-1, *expected[number + 1 :]]
        assert found.ids.tolist() == expected
        assert len(found.lengths) == len(found.labels) == len(expected)


@pytest.mark.usefixtures("chunk_bytes")
def test_truncated_at_any_byte(tmp_path: Path) -> None:
    records = [record(5), record(6)]
    good = b"".join(records)
    for length in range(1, len(good), 3):
        found = scan(tmp_path / "shard", good[:length])
        number, rest = divmod(length, len(records[0]))
        if rest:
            fault = f"record {number} at byte {number * len(records[0])}: the file ends inside the record"
            assert (found.faults, found.whole) == ((fault,), False)
        assert found.ids.tolist() == [5, 6][:number]


@pytest.mark.parametrize("length", [2**20, 2**40, 2**64 - 1])
def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path, length: int) -> None:
    """Its checksum is right, so only the file's size tells."""
    start = struct.pack("<Q", length)
    assert header(length).startswith(start)
    tracemalloc.start()
    try:
        found = scan(tmp_path / "shard", record(5), header(length), bytes(100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.faults == (f"record 1 at byte {len(record(5))}: the file ends inside the record",)
    assert (found.ids.tolist(), found.whole, found.num_bytes) == ([5], False, len(record(5)) + 112)
    assert peak < 2 * scan_module._CHUNK_BYTES


def test_a_record_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_CHUNK_BYTES", 64)
    found = scan(tmp_path / "shard", record(1, num_bytes=100_000), record(2), record(3, num_bytes=70_000))
    assert (found.ids.tolist(), found.faults, found.whole) == ([1, 2, 3], (), True)


@pytest.mark.parametrize("num_bad", [1, 2, 3, 4, 9])
def test_many_faults_are_summarized(tmp_path: Path, num_bad: int) -> None:
    bad = bytearray(record(0))
    bad[-1] ^= 1
    found = scan(tmp_path / "shard", bytes(bad) * num_bad, record(7))
    fault = "the checksum of the payload fails"
    expected = [f"record {number} at byte {number * len(bad)}: {fault}" for number in range(min(num_bad, 3))]
    if num_bad > 3:
        expected[-1] += f", and {num_bad - 3} more of its records are damaged"
    assert found.faults == tuple(expected)
    assert found.ids.tolist() == [-1] * num_bad + [7]
    assert found.labels.tolist() == [-1] * num_bad + [1]
    assert found.whole


def _flipped(payload: bytes, at: int) -> bytes:
    """Returns a payload with a bit changed that says whether a number goes on."""
    flipped = bytearray(payload)
    flipped[at] ^= 0x80
    return bytes(flipped)


IMAGE = bytes(48)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"\x0a\xff", "not a tf.train.Example (the message ends inside a varint)"),
        (b"", "has the features [] instead of id, image, label"),
        (encode_example({"id": 1, "image": IMAGE}, int_bytes=5), "has the features ['id', 'image'] instead of"),
        (
            encode_example({"id": 1, "image": IMAGE, "label": 0, "x": 0}),
            "has the features ['id', 'image', 'label', 'x']",
        ),
        (encode_example({"id": b"1", "image": IMAGE, "label": 0}), "its id and label should be integers"),
        (encode_example({"id": 1, "image": IMAGE, "label": b"0"}), "its id and label should be integers"),
        (
            encode_example({"id": 1, "image": 0, "label": 0}),
            "its id and label should be integers, its image a byte string",
        ),
        (encode_example({"id": 1, "image": IMAGE, "label": 0}), "its parts are not where this version writes them"),
        (encode_example({"id": 1, "image": IMAGE, "label": 0}, int_bytes=6), "its parts are not where this version"),
        (encode_example({"id": -1, "image": IMAGE, "label": 0}), "its id or label is invalid: "),
        (encode_example({"id": 1, "image": IMAGE, "label": 2**35}, int_bytes=6), "its id or label is invalid: "),
        (_flipped(encode_record(IMAGE, 0, 0), 14), "not a tf.train.Example (feature 'id' should hold one integer)"),
        (_flipped(encode_record(IMAGE, 0, 0), -1), "not a tf.train.Example (the message ends inside a varint)"),
        (encode_record(IMAGE, 0, 0) + b"\x0a\x00", "its parts are not where this version writes them"),
    ],
)
def test_records_of_another_kind(tmp_path: Path, payload: bytes, fault: str) -> None:
    found = scan(tmp_path / "shard", record(4), frame(payload), record(6))
    (told,) = found.faults
    assert told.startswith(f"record 1 at byte {len(record(4))}: {fault}")
    assert found.ids.tolist() == [4, -1, 6]
    assert found.lengths[1] == FRAMING_BYTES + len(payload)
    assert found.whole


@given(st.binary(max_size=100), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=300)
def test_any_payload_is_told_of_or_is_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, flip: int
) -> None:
    """Checksums are right here: a payload without a fault is the one that belongs to the numbers that were read."""
    path = tmp_path_factory.getbasetemp() / "any"
    payload = bytearray(encode_record(noise, 3, 1000))
    payload[at % len(payload)] ^= flip
    for each in (bytes(payload), noise):
        found = scan(path, frame(each))
        if not found.faults:
            example = decode_example(each)
            assert (found.ids.tolist(), found.labels.tolist()) == ([example["id"]], [example["label"]])
            assert encode_example(example, int_bytes=INT_BYTES) == each
