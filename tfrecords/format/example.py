"""A tf.train.Example as bytes and back, without protobuf: a dictionary of integers and byte strings.

The message is `Example{features: Features{feature: map<string, Feature>}}`, where a Feature here is a BytesList or an
Int64List of one value (tensorflow/core/example/example.proto and feature.proto). Protobuf leaves the order of a map
open; here keys are sorted, so the same input always gives the same bytes.

Integers may be padded to a fixed number of bytes: a protobuf varint may carry leading zero groups (up to ten bytes in
all), and every parser accepts them. That makes all records of a raw data set equally long, with the image at one
offset, which is what lets a TFRecord file be used as an array (see `tfrecords.format.layout`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["decode_example", "encode_example", "varint"]

_BYTES_LIST = b"\x0a"  # field 1 of Feature, length-delimited
_INT64_LIST = b"\x1a"  # field 3 of Feature, length-delimited
_FIELD_1 = b"\x0a"
_FIELD_2 = b"\x12"


def varint(value: int, num_bytes: int | None = None) -> bytes:
    """Returns `value` as a protobuf varint: 7 bits a byte, lowest first, the top bit set on all but the last.

    Args:
        value: an int64; a negative one takes ten bytes (two's complement), as protobuf has it.
        num_bytes: pads the varint to this length; by default it is as short as it can be.

    Raises:
        ValueError: `value` is no int64, or does not fit into `num_bytes`.
    """
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"`value` should fit into an int64. Received: value={value}")
    rest = value & 0xFFFFFFFFFFFFFFFF
    groups = bytearray()
    while rest > 0x7F:
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    groups.append(rest)
    if num_bytes is not None:
        if len(groups) > num_bytes:
            raise ValueError(f"`value` should fit into {num_bytes} varint bytes. Received: value={value}")
        padding = num_bytes - len(groups)
        if padding:
            groups[-1] |= 0x80
            groups.extend(b"\x80" * (padding - 1) + b"\x00")
    return bytes(groups)


def encode_example(features: Mapping[str, int | bytes], *, int_bytes: int | None = None) -> bytes:
    """Returns the serialized tf.train.Example of `features`, keys in sorted order.

    Args:
        features: integers become an Int64List of one value, byte strings a BytesList of one value.
        int_bytes: pads each integer to this many varint bytes; by default each is as short as it can be.

    Raises:
        ValueError: an integer does not fit.
    """
    entries = []
    for key in sorted(features):
        value = features[key]
        if isinstance(value, bytes):
            feature = _field(_BYTES_LIST, _field(_FIELD_1, value))
        else:
            feature = _field(_INT64_LIST, _field(_FIELD_1, varint(value, int_bytes)))
        entries.append(_field(_FIELD_1, _field(_FIELD_1, key.encode()) + _field(_FIELD_2, feature)))
    return _field(_FIELD_1, b"".join(entries))


def decode_example(data: bytes) -> dict[str, int | bytes]:
    """Returns the features of a serialized tf.train.Example whose features are one integer or one byte string each.

    Raises:
        ValueError: `data` is no such message.
    """
    features: dict[str, int | bytes] = {}
    for _, example_field in _fields(data):
        for _, entry in _fields(_message(example_field)):
            key, feature = "", b""
            for number, part in _fields(_message(entry)):
                if number == 1:
                    key = _message(part).decode()
                else:
                    feature = _message(part)
            features[key] = _value(key, feature)
    return features


def _field(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, varint(len(content)), content))


def _value(key: str, feature: bytes) -> int | bytes:
    lists = list(_fields(feature))
    if len(lists) != 1 or lists[0][0] not in (1, 3):
        raise ValueError(f"feature {key!r} should be one integer or one byte string")
    kind, content = lists[0]
    values = [value for _, value in _fields(_message(content))]
    if len(values) == 1 and kind == 1:
        return _message(values[0])
    if len(values) == 1:
        number = values[0]
        if isinstance(number, bytes):  # packed, as proto3 and this module write it
            number, end = _read_varint(number, 0)
            if end != len(_message(values[0])):
                raise ValueError(f"feature {key!r} should hold one integer")
        return number - (1 << 64) if number >= 1 << 63 else number
    raise ValueError(f"feature {key!r} should hold one value. Received: {len(values)}")


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("should be a length-delimited field. Received: a varint")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _read_varint(data, at)
            yield number, value
        elif wire_type == 2:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise ValueError("the message ends inside a field")
            yield number, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type should be 0 or 2. Received: {wire_type}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the message ends inside a varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a varint is longer than ten bytes")
