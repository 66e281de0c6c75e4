"""Finding things in TFRecord files of tf.train.Examples without reading what lies between: a label, and where a picture
is and how long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.container_files import ReadAt
from tfrecords.format.example import decode_example, varint
from tfrecords.format.record import FRAMING_BYTES, HEADER_BYTES, masked_crc32c

__all__ = ["Values", "bytes_feature", "walk_examples"]

# How much of a record is read to find the label: names and small features, but of a picture only its beginning.
_PEEK_BYTES = 512


class Values(NamedTuple):
    """Of an example: its label, or None; the length of its picture in bytes, or -1."""

    label: int | None
    num_bytes: int


class _Entry(NamedTuple):
    """Where an entry of an Example's map lies, and the Feature in it; in bytes."""

    start: int
    value: int
    end: int


def walk_examples(
    read_at: ReadAt, num_bytes: int, path: str, image: str, label: str
) -> Iterator[tuple[tuple[int, int], Values]]:
    """Yields (offset, length) of each record, framing included, and what is in it; payloads are not read."""
    offset = 0
    while offset < num_bytes:
        window = _Window(read_at)
        header = window(offset, HEADER_BYTES)
        where = f"{path}: record at byte {offset}"
        if len(header) < HEADER_BYTES:
            raise UsageError(f"{where}: the file was cut off. Prepare the data set again.")
        length, crc = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != crc:
            raise UsageError(f"{where}: the checksum of its length fails. Prepare the data set again.")
        if offset + FRAMING_BYTES + length > num_bytes:
            raise UsageError(f"{where}: the file was cut off. Prepare the data set again.")
        start = offset + HEADER_BYTES
        try:
            entries = _entries(window, start, start + length)
            values = Values(_label(window, entries.get(label)), _num_bytes(window, entries.get(image)))
        except ValueError as error:
            raise UsageError(f"{where} is no tf.train.Example: {error}. Prepare the data set again.") from None
        yield (offset, length + FRAMING_BYTES), values
        offset += length + FRAMING_BYTES


def bytes_feature(payload: bytes, feature: str) -> bytes:
    """Returns the byte string in a feature of a serialized Example, whatever its other features are.

    Raises:
        ValueError: `payload` is no Example, or has no such byte string.
    """
    entry = _entries(lambda offset, length: payload[offset : offset + length], 0, len(payload)).get(feature)
    value = _value(payload[entry.start : entry.end]) if entry is not None else None
    if not isinstance(value, bytes):
        raise ValueError(f"feature {feature!r} should be a byte string")
    return value


class _Window:
    """Reads a file by short stretches from a somewhat longer one."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._start = 0
        self._data = b""

    def __call__(self, offset: int, length: int) -> bytes:
        at = offset - self._start
        if at < 0 or at + length > len(self._data):
            self._start, at = offset, 0
            self._data = self._read_at(offset, max(length, _PEEK_BYTES))
        return self._data[at : at + length]


def _entries(read_at: ReadAt, start: int, end: int) -> dict[str, _Entry]:
    """Returns where each feature of the Example lies that is stored at `start`:`end`; values are skipped."""
    found = {}
    for number, features, features_end in _fields(read_at, start, end):
        if number != 1:
            continue
        for _, entry, entry_end in _fields(read_at, features, features_end):
            key, value = "", entry
            for part, inner, inner_end in _fields(read_at, entry, entry_end):
                if part == 1:
                    key = read_at(inner, inner_end - inner).decode()
                else:
                    value = inner
            found[key] = _Entry(entry, value, entry_end)
    return found


def _fields(read_at: ReadAt, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (number, start, end) of the fields of a message, all of which have a length."""
    while at < end:
        tag, at = _varint(read_at, at)
        if tag & 7 != 2:
            raise ValueError(f"wire type should be 2. Received: {tag & 7}")
        length, at = _varint(read_at, at)
        if at + length > end:
            raise ValueError("the message ends inside a field")
        yield tag >> 3, at, at + length
        at += length


def _varint(read_at: ReadAt, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(read_at(at, 10)):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a varint does not end")


def _label(read_at: ReadAt, entry: _Entry | None) -> int | None:
    if entry is None:
        return None
    value = _value(read_at(entry.start, entry.end - entry.start))
    return value if isinstance(value, int) else None


def _num_bytes(read_at: ReadAt, entry: _Entry | None) -> int:
    """Returns the length of the byte string in a feature: Feature { BytesList { bytes } }."""
    if entry is None:
        return -1
    for _, start, end in _fields(read_at, entry.value, entry.end):
        for _, value, value_end in _fields(read_at, start, end):
            return value_end - value
    return 0


def _value(entry: bytes) -> int | bytes:
    """Returns the value of one entry of an Example's map."""
    features = b"\x0a" + varint(len(entry)) + entry
    (value,) = decode_example(b"\x0a" + varint(len(features)) + features).values()
    return value
