"""The framing of a TFRecord file, and protobuf's variable-length integers.

On disk a record is

    uint64  payload length, little-endian
    uint32  masked CRC-32C of those 8 bytes
    bytes   payload
    uint32  masked CRC-32C of the payload

The layout and the mask are those of TensorFlow, tsl/lib/io/record_writer.h and tsl/lib/hash/crc32c.h.

A protobuf varint stores 7 bits per byte, lowest first, and sets the top bit of every byte but the last. It may be
padded with zero groups up to ten bytes, and every parser accepts that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import BinaryIO

import google_crc32c
import numpy as np

from tfrecords.base_errors import CorruptRecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAMING_BYTES = HEADER_BYTES + FOOTER_BYTES

# Called with an offset and a length; returns the bytes there, fewer at the end of the file.
ReadAt = Callable[[int, int], bytes]

# A CRC over bytes that hold CRCs is weak, so the stored one is rotated by 15 bits and shifted by this constant.
_MASK_DELTA = 0xA282EAD8
_MAX_VARINT_BYTES = 10


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`, masked as TFRecord files store it, in 0..2**32-1."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def unmasked(stored: np.ndarray) -> np.ndarray:
    """Return the CRC-32C values, int64, whose masked forms are `stored`, int64 in 0..2**32-1."""
    rotated = (stored - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@lru_cache(maxsize=1 << 14)  # images of one size have few different lengths
def header(length: int) -> bytes:
    """Return the bytes in front of a payload of `length` bytes."""
    packed = length.to_bytes(8, "little")
    return packed + masked_crc32c(packed).to_bytes(4, "little")


def footer(payload: bytes) -> bytes:
    """Return the bytes after a payload."""
    return masked_crc32c(payload).to_bytes(4, "little")


def read_records(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the payload of each record from the file's position on, after checking its checksums.

    Raises:
        CorruptRecordError: a checksum fails or the file ends inside a record. The message has `name`, the file's, the
            record's position and its offset in bytes.
    """
    offset = file.tell()
    position = 0
    while start := file.read(HEADER_BYTES):
        where = f"{name}: record {position} at byte {offset}"
        if len(start) < HEADER_BYTES:
            raise CorruptRecordError(f"{where}: the file ends inside the record's header. Convert it again.")
        length = int.from_bytes(start[:8], "little")
        if start != header(length):
            raise CorruptRecordError(f"{where}: the checksum of the length fails. Convert it again.")
        body = file.read(length + FOOTER_BYTES)
        if len(body) < length + FOOTER_BYTES:
            raise CorruptRecordError(f"{where}: the file ends inside the record. Convert it again.")
        payload = body[:length]
        if body[length:] != footer(payload):
            raise CorruptRecordError(f"{where}: the checksum of the payload fails. Convert it again.")
        yield payload
        offset += FRAMING_BYTES + length
        position += 1


def varint(value: int, num_bytes: int | None = None) -> bytes:
    """Return `value` as a protobuf varint.

    Args:
        value: an int64. A negative one takes ten bytes (two's complement), as in protobuf.
        num_bytes: pads the varint to this length; by default it is as short as possible.

    Raises:
        ValueError: `value` is not an int64, or does not fit into `num_bytes`.
    """
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"`value` should fit into an int64. Received: value={value}")
    rest = value & 0xFFFFFFFFFFFFFFFF
    groups = bytearray()
    while rest > 0x7F or len(groups) + 1 < (num_bytes or 1):
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    groups.append(rest)
    if num_bytes is not None and len(groups) > num_bytes:
        raise ValueError(f"`value` should fit into {num_bytes} varint bytes. Received: value={value}")
    return bytes(groups)


def read_varint(read_at: ReadAt, at: int) -> tuple[int, int]:
    """Return the varint at `at`, in 0..2**64-1, and the offset of the byte after it.

    Raises ValueError if the data ends inside it, or it is longer than ten bytes.
    """
    value = 0
    groups = read_at(at, _MAX_VARINT_BYTES)
    for place, byte in enumerate(groups):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    ends = len(groups) < _MAX_VARINT_BYTES
    raise ValueError("the message ends inside a varint" if ends else "a varint is longer than ten bytes")


def varints(groups: np.ndarray) -> np.ndarray:
    """Return the values, int64 `[...]`, of padded varints, uint8 `[..., num_bytes]` with at most 9 bytes each."""
    return ((groups.astype(np.int64) & 0x7F) << (7 * np.arange(groups.shape[-1]))).sum(axis=-1)
