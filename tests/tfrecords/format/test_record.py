"""A record is framed as TensorFlow frames it, and no flipped or missing byte goes unnoticed."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import CorruptRecordError
from tfrecords.format.record import FRAMING_BYTES, HEADER_BYTES, footer, header, masked_crc32c, read_records, unmasked


def frame(payload: bytes) -> bytes:
    """Returns a payload as a record, with its framing."""
    return header(len(payload)) + payload + footer(payload)


PAYLOADS = [b"", b"\0", b"hello", bytes(range(256)) * 5, b"\xff" * 100]
MANY = settings(max_examples=60)


def read(data: bytes) -> list[bytes]:
    return list(read_records(io.BytesIO(data), "x.tfrecord"))


def test_masked_crc_of_known_strings() -> None:
    """CRC-32C of "123456789" is 0xE3069283 (RFC 3720); of nothing it is 0, so its mask is the constant alone."""
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32
    assert masked_crc32c(b"") == 0xA282EAD8


def test_unmasking_undoes_the_mask() -> None:
    checksums = np.array([0, 1, 0xE3069283, 0x80000000, 0xFFFFFFFF, 0xFFFF8000])
    stored = ((checksums >> 15 | checksums << 17) + 0xA282EAD8) & 0xFFFFFFFF
    np.testing.assert_array_equal(unmasked(stored), checksums)


def test_writes_what_tensorflow_writes(tf: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert path.read_bytes() == b"".join(map(frame, PAYLOADS))


def test_tensorflow_reads_what_we_write_and_we_what_it_writes(tf: Any, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"

    @given(st.lists(st.binary(max_size=300), max_size=8))
    @settings(max_examples=25)
    def check(payloads: list[bytes]) -> None:
        ours.write_bytes(b"".join(map(frame, payloads)))
        assert [record.numpy() for record in tf.data.TFRecordDataset(str(ours))] == payloads
        with tf.io.TFRecordWriter(str(theirs)) as writer:
            for payload in payloads:
                writer.write(payload)
        with open(theirs, "rb") as file:
            assert list(read_records(file, "theirs")) == payloads

    check()


@given(st.lists(st.binary(max_size=600), max_size=10))
@MANY
def test_round_trip(payloads: list[bytes]) -> None:
    file = io.BytesIO(b"".join(map(frame, payloads)))
    offset = 0
    for found, payload in zip(read_records(file, "x"), payloads, strict=True):
        assert found == payload
        offset += len(payload) + FRAMING_BYTES
        assert file.tell() == offset


@given(st.binary(max_size=100))
@MANY
def test_framing_is_sixteen_bytes_around_the_payload(payload: bytes) -> None:
    record = frame(payload)
    assert len(record) == len(payload) + FRAMING_BYTES
    assert struct.unpack_from("<Q", record) == (len(payload),)
    assert record[HEADER_BYTES:-4] == payload


def test_every_flipped_byte_is_noticed() -> None:
    good = b"".join(map(frame, [b"one", b"", b"three and more"]))
    starts = [0, 19, 35, len(good)]
    for at in range(len(good)):
        for flip in (0x01, 0x80, 0xFF):
            bad = bytearray(good)
            bad[at] ^= flip
            with pytest.raises(CorruptRecordError) as caught:
                read(bytes(bad))
            record = max(number for number, start in enumerate(starts) if start <= at)
            assert f"x.tfrecord: record {record} at byte {starts[record]}" in str(caught.value)


def test_truncation_at_every_byte_is_noticed() -> None:
    payloads = [b"one", b"", b"three and more"]
    good = b"".join(map(frame, payloads))
    whole = {0: 0, 19: 1, 35: 2, len(good): 3}
    for length in range(len(good) + 1):
        if length in whole:  # between two records a shorter file is as good as the longer: counts are verify's to check
            assert read(good[:length]) == payloads[: whole[length]]
        else:
            with pytest.raises(CorruptRecordError, match="the file ends inside the record"):
                read(good[:length])


def test_records_before_the_damage_are_read() -> None:
    found = []
    with pytest.raises(CorruptRecordError, match="record 1 at byte 19"):
        found.extend(_collecting(found, frame(b"one") + frame(b"two")[:-1]))
    assert found == [b"one"]


def _collecting(found: list[bytes], data: bytes) -> list[bytes]:
    for payload in read_records(io.BytesIO(data), "x"):
        found.append(payload)
    return []


def test_reads_from_the_position_on() -> None:
    file = io.BytesIO(frame(b"one") + frame(b"two"))
    file.seek(19)
    assert list(read_records(file, "x")) == [b"two"]
    file.truncate(30)
    file.seek(19)
    with pytest.raises(CorruptRecordError, match="record 0 at byte 19"):
        list(read_records(file, "x"))
