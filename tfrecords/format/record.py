"""One record of a TFRecord file: its framing and its masked CRC-32C.

On disk a record is

    uint64  payload length, little-endian
    uint32  masked CRC-32C of those 8 bytes
    bytes   payload
    uint32  masked CRC-32C of the payload

The layout and the mask are those of TensorFlow, tsl/lib/io/record_writer.h and tsl/lib/hash/crc32c.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

import google_crc32c
import numpy as np

from tfrecords.base_errors import CorruptRecordError

__all__ = [
    "FOOTER_BYTES",
    "FRAMING_BYTES",
    "HEADER_BYTES",
    "footer",
    "frame",
    "header",
    "masked_crc32c",
    "read_records",
    "unmasked",
]

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAMING_BYTES = HEADER_BYTES + FOOTER_BYTES

# A CRC over bytes that hold CRCs is weak, so the stored one is rotated by 15 bits and shifted by this constant.
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C of `data`, masked as TFRecord files store it, in 0..2**32-1."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def unmasked(stored: np.ndarray) -> np.ndarray:
    """Returns the CRC-32C of data, int64, whose masked ones are `stored`, int64 in 0..2**32-1."""
    rotated = (stored - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


@lru_cache(maxsize=1 << 14)  # pictures of one size have few lengths
def header(length: int) -> bytes:
    """Returns what stands before a payload of `length` bytes."""
    packed = length.to_bytes(8, "little")
    return packed + masked_crc32c(packed).to_bytes(4, "little")


def footer(payload: bytes) -> bytes:
    """Returns what stands after a payload."""
    return masked_crc32c(payload).to_bytes(4, "little")


def frame(payload: bytes) -> bytes:
    """Returns the bytes of one record: `payload` with its length and checksums, `FRAMING_BYTES` longer."""
    return b"".join((header(len(payload)), payload, footer(payload)))


def read_records(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields `(offset, payload)` for each record from the file's position on, its checksums checked.

    Args:
        file: a binary file.
        name: what errors call the file.

    Raises:
        CorruptRecordError: a checksum fails or the file ends inside a record; names the file, the offset in
            bytes and the record's position.
    """
    offset = file.tell()
    position = 0
    while start := file.read(HEADER_BYTES):
        where = f"{name}: record {position} at byte {offset}"
        if len(start) < HEADER_BYTES:
            raise CorruptRecordError(f"{where}: the file ends inside the record's header. Convert it again.")
        length, length_crc = struct.unpack("<QI", start)
        if masked_crc32c(start[:8]) != length_crc:
            raise CorruptRecordError(f"{where}: the checksum of the length fails. Convert it again.")
        body = file.read(length + FOOTER_BYTES)
        if len(body) < length + FOOTER_BYTES:
            raise CorruptRecordError(f"{where}: the file ends inside the record. Convert it again.")
        payload = body[:length]
        if masked_crc32c(payload) != int.from_bytes(body[length:], "little"):
            raise CorruptRecordError(f"{where}: the checksum of the payload fails. Convert it again.")
        yield offset, payload
        offset += FRAMING_BYTES + length
        position += 1
