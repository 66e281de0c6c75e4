"""Encodes and decodes tf.train.Example without protobuf, as a dictionary of integers and byte strings.

The message is `Example{features: Features{feature: map<string, Feature>}}`, where a Feature is a BytesList or an
Int64List with one value (tensorflow/core/example/example.proto and feature.proto); `decode_lists` also reads FloatLists
and any number of values. Protobuf leaves the order of a map open. Here keys are sorted, so the same input always gives
the same bytes.

Integers may be padded to a fixed number of bytes (see `tfrecords.format.record.varint`). All records of a raw dataset
then have the same length with the image at the same offset, so a TFRecord file can be used as an array (see
`tfrecords.format.record_layout`).

The reader takes a function that reads a range of bytes instead of the bytes themselves, so that a label can be found
without reading the image in front of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tfrecords.format.record import ReadAt, read_varint, varint

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # field numbers in Feature
_VARINT, _LENGTH_DELIMITED = 0, 2  # wire types


class Feature(NamedTuple):
    """A feature's key and the range of bytes that holds its Feature message."""

    key: str
    start: int
    end: int

    def value(self, read_at: ReadAt) -> int | bytes:
        """Return the one integer or byte string of the feature; raise ValueError if it has another type or number of
        values.
        """
        lists = list(_fields(read_at, self.start, self.end))
        if len(lists) != 1 or lists[0].number not in (_BYTES_LIST, _INT64_LIST):
            raise ValueError(f"feature {self.key!r} should be one integer or one byte string")
        values = list(lists[0].inner(read_at))
        if len(values) != 1:
            raise ValueError(f"feature {self.key!r} should hold one value. Received: {len(values)}")
        number = values[0].value
        if number is None and lists[0].number == _BYTES_LIST:
            return values[0].content(read_at)
        if number is None:  # packed, as proto3 and this module write it
            number, end = read_varint(read_at, values[0].start)
            if end != values[0].end:
                raise ValueError(f"feature {self.key!r} should hold one integer")
        elif lists[0].number == _BYTES_LIST:
            raise ValueError("a field should be length-delimited. Received: a varint")
        return number - (1 << 64) if number >= 1 << 63 else number

    def values(self, read_at: ReadAt) -> list[Any]:
        """Return all values of the feature, integers, numbers or byte strings; raise ValueError if it is damaged."""
        found: list[Any] = []
        for values in _fields(read_at, self.start, self.end):
            for value in values.inner(read_at):
                if values.number == _BYTES_LIST and value.value is None:
                    found.append(value.content(read_at))
                elif values.number == _FLOAT_LIST and value.value is None:
                    found += (one for (one,) in struct.iter_unpack("<f", value.content(read_at)))
                elif values.number == _INT64_LIST:
                    at = value.start
                    while at < value.end:
                        number, at = read_varint(read_at, at)
                        found.append(number - (1 << 64) if number >= 1 << 63 else number)
                else:
                    raise ValueError(f"feature {self.key!r} should be a list")
        return found

    def num_bytes(self, read_at: ReadAt) -> int:
        """Return the length in bytes of the feature's first byte string, without reading it; 0 if it has none."""
        for values in _fields(read_at, self.start, self.end):
            for value in values.inner(read_at):
                return value.end - value.start
        return 0


class _Field(NamedTuple):
    """A field of a protobuf message: its number, the range of its content, and its value if it is a varint."""

    number: int
    start: int
    end: int
    value: int | None

    def content(self, read_at: ReadAt) -> bytes:
        return read_at(self.start, self.end - self.start)

    def inner(self, read_at: ReadAt) -> Iterator[_Field]:
        if self.value is not None:
            raise ValueError("a field should be length-delimited. Received: a varint")
        return _fields(read_at, self.start, self.end)


def encode_example(features: Mapping[str, int | bytes], *, int_bytes: int | None = None) -> bytes:
    """Return the serialized tf.train.Example of `features`, keys in sorted order.

    Args:
        features: integers become an Int64List with one value, byte strings a BytesList with one value.
        int_bytes: pads each integer to this many varint bytes; by default each is as short as possible.

    Raises:
        ValueError: an integer does not fit.
    """
    entries = []
    for key in sorted(features):
        value = features[key]
        is_bytes = isinstance(value, bytes)
        content = value if isinstance(value, bytes) else varint(value, int_bytes)
        feature = _encoded(_BYTES_LIST if is_bytes else _INT64_LIST, _encoded(1, content))
        entries.append(_encoded(1, _encoded(1, key.encode()) + _encoded(2, feature)))
    return _encoded(1, b"".join(entries))


def decode_example(data: bytes) -> dict[str, int | bytes]:
    """Return the features of a serialized tf.train.Example in which each feature is one integer or one byte string.

    Raises ValueError if `data` is not such a message.
    """
    read_at = _reader(data)
    return {key: feature.value(read_at) for key, feature in find_features(read_at, 0, len(data)).items()}


def decode_lists(data: bytes) -> dict[str, list[Any]]:
    """Return all values of each feature of a serialized tf.train.Example: integers, numbers or byte strings.

    Raises ValueError if `data` is not such a message.
    """
    read_at = _reader(data)
    try:
        return {key: feature.values(read_at) for key, feature in find_features(read_at, 0, len(data)).items()}
    except struct.error as error:
        raise ValueError(f"a list of numbers is cut off ({error})") from None


def bytes_feature(payload: bytes, key: str) -> bytes:
    """Return the byte string in feature `key` of a serialized Example, whatever its other features are.

    Raises ValueError if `payload` is not an Example, or has no such byte string.
    """
    read_at = _reader(payload)
    feature = find_features(read_at, 0, len(payload)).get(key)
    value = feature.value(read_at) if feature is not None else None
    if not isinstance(value, bytes):
        raise ValueError(f"feature {key!r} should be a byte string")
    return value


def find_features(read_at: ReadAt, start: int, end: int) -> dict[str, Feature]:
    """Return the features of the serialized Example at `start`..`end` by key, without reading their values.

    Raises ValueError if the bytes are not an Example.
    """
    features = {}
    for example_field in _fields(read_at, start, end):
        if example_field.number != 1:
            continue
        for entry in example_field.inner(read_at):
            key, message = "", (entry.start, entry.start)
            for part in entry.inner(read_at):
                if part.value is not None:
                    raise ValueError("a field should be length-delimited. Received: a varint")
                if part.number == 1:
                    key = part.content(read_at).decode()
                else:
                    message = part.start, part.end
            features[key] = Feature(key, *message)
    return features


def _encoded(number: int, content: bytes) -> bytes:
    return b"".join((varint(number << 3 | _LENGTH_DELIMITED), varint(len(content)), content))


def _reader(data: bytes) -> ReadAt:
    return lambda offset, length: data[offset : offset + length]


def _fields(read_at: ReadAt, at: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message at `at`..`end`."""
    while at < end:
        tag, at = read_varint(read_at, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            start = at
            value, at = read_varint(read_at, at)
            if at > end:
                raise ValueError("the message ends inside a varint")
            yield _Field(number, start, at, value)
        elif wire_type == _LENGTH_DELIMITED:
            length, at = read_varint(read_at, at)
            if at + length > end:
                raise ValueError("the message ends inside a field")
            yield _Field(number, at, at + length, None)
            at += length
        else:
            raise ValueError(f"wire type should be 0 or 2. Received: {wire_type}")
