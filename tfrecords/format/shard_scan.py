"""Reads a shard once, from its first byte to its last, and says all that there is to say of it.

The SHA-256 of the file, which takes most of the time, is computed by another thread while this one checks the records;
memory is a few chunks and 18 bytes a record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from array import array
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from tfrecords.format.example import decode_example, varint
from tfrecords.format.layout import INT_BYTES, encode_record, record_offsets
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header

__all__ = ["ShardScan", "scan_shard"]

_CHUNK_BYTES = 1 << 22
_MAX_FAULTS = 3  # that are told of one shard
_NO_NUMBER = b"\xff" * INT_BYTES
_PADDED = re.compile(rb"[\x80-\xff]{%d}[\x00-\x7f]" % (INT_BYTES - 1))  # a varint of this length
_MIN_IMAGE_BYTES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardScan:
    """What was found in a shard: its records, and what is wrong with them.

    `ids` and `labels` are int64 `[num_records]`, -1 where a record could not be read; `lengths` are those of the
    records in bytes, framing included. `faults` are phrases such as "record 3 at byte 512: ...". Where `whole` is
    False, there is more in the file than the records that were found.
    """

    num_bytes: int
    sha256: str
    ids: np.ndarray
    labels: np.ndarray
    lengths: array[int]
    faults: tuple[str, ...]
    whole: bool


def scan_shard(path: Path, *, progress: Callable[[int], None] = lambda num_records: None) -> ShardScan:
    """Reads a shard.

    Args:
        path: the shard.
        progress: called with the number of records read since the last call.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        records = _Records(os.fstat(file.fileno()).st_size)
        hashed: Future[None] | None = None
        rest, num_bytes = b"", 0
        while chunk := file.read(max(_CHUNK_BYTES, records.missing)):
            num_bytes += len(chunk)
            if hashed is not None:
                hashed.result()
            hashed = hasher.submit(digest.update, chunk)
            before = len(records.lengths)
            rest = records.take(rest + chunk if rest else chunk)
            progress(len(records.lengths) - before)
        if rest:
            records.fail("the file ends inside the record")
    return ShardScan(
        num_bytes=num_bytes,
        sha256=digest.hexdigest(),
        ids=_numbers(records.ids),
        labels=_numbers(records.labels),
        lengths=records.lengths,
        faults=records.told(),
        whole=not records.lost,
    )


class _Records:
    """The records of a file that is handed in piece by piece."""

    def __init__(self, file_bytes: int) -> None:
        self.ids = bytearray()
        self.labels = bytearray()
        self.lengths = array("q")
        self.missing = 0  # bytes that the record needs of which only the beginning is there
        self.lost = False  # where the next record begins is not known
        self._offset = 0
        self._file_bytes = file_bytes
        self._faults: list[str] = []
        self._num_faults = 0
        self._known: dict[bytes, int] = {}  # headers, and the lengths that they stand for

    def take(self, data: bytes) -> bytes:
        """Reads the records in `data` and returns what is left: the beginning of one, or nothing once lost."""
        at, self.missing = 0, 0
        while not self.lost and len(data) - at >= HEADER_BYTES:
            start = data[at : at + HEADER_BYTES]
            length = self._known.get(start, -1)
            if length < 0:
                length = int.from_bytes(start[:8], "little")
                if header(length) != start:
                    self.fail("the checksum of the length fails")
                    break
                self._known[start] = length
            end = at + FRAMING_BYTES + length
            if end > len(data):
                if self._offset + FRAMING_BYTES + length > self._file_bytes:  # nor will memory be asked for it
                    self.fail("the file ends inside the record")
                else:
                    self.missing = end - len(data)
                break
            payload = data[at + HEADER_BYTES : end - FOOTER_BYTES]
            fault = ""
            if footer(payload) != data[end - FOOTER_BYTES : end]:
                fault = "the checksum of the payload fails"
            else:
                fault = self._read(payload)
            if fault:
                self._tell(fault)
                self.ids += _NO_NUMBER
                self.labels += _NO_NUMBER
            self.lengths.append(end - at)
            self._offset += end - at
            at = end
        return b"" if self.lost else data[at:]

    def fail(self, fault: str) -> None:
        """Notes a fault after which no further record can be found."""
        self._tell(fault)
        self.lost = True

    def told(self) -> tuple[str, ...]:
        """Returns the first few faults, the last with how many more there are."""
        more = self._num_faults - len(self._faults)
        if not more:
            return tuple(self._faults)
        return (*self._faults[:-1], f"{self._faults[-1]}, and {more:,} more of its records are damaged")

    def _tell(self, fault: str) -> None:
        self._num_faults += 1
        if self._num_faults <= _MAX_FAULTS:
            self._faults.append(f"record {len(self.lengths)} at byte {self._offset}: {fault}")

    def _read(self, payload: bytes) -> str:
        """Notes the id and label of an example, or returns what is wrong with it."""
        form = _form(len(payload))
        if form is not None:
            start, middle, middle_at, end, end_at = form
            id_bytes, label_bytes = payload[len(start) : middle_at], payload[end_at + len(end) :]
            if (
                payload.startswith(start)
                and payload[middle_at : middle_at + len(middle)] == middle
                and payload[end_at : end_at + len(end)] == end
                and _PADDED.fullmatch(id_bytes)
                and _PADDED.fullmatch(label_bytes)
            ):
                self.ids += id_bytes
                self.labels += label_bytes
                return ""
        try:
            example = decode_example(payload)
        except ValueError as error:
            return f"no tf.train.Example ({error})"
        if sorted(example) != ["id", "image", "label"]:
            return f"has the features {sorted(example)} instead of id, image, label"
        id, image, label = example["id"], example["image"], example["label"]
        if not isinstance(id, int) or not isinstance(image, bytes) or not isinstance(label, int):
            return "its id and label should be integers, its image bytes"
        try:
            if encode_record(image, label, id) != payload:
                return "its parts are not where this version writes them"
        except ValueError as error:
            return f"its id or label cannot be: {error}"
        self.ids += varint(id, INT_BYTES)  # an image so small that `_form` leaves it out
        self.labels += varint(label, INT_BYTES)
        return ""


@lru_cache(maxsize=1 << 14)
def _form(length: int) -> tuple[bytes, bytes, int, bytes, int] | None:
    """Returns the bytes that every payload of `length` bytes has, and where: before, between and after its three parts.

    That is what `encode_record` writes around id, image and label. None if it writes no payload of this length.
    """
    image_bytes = length
    for _ in range(4):  # the lengths that stand in a payload are longer for a longer image
        image_bytes = length - (len(encode_record(bytes(max(image_bytes, 0)), 0, 0)) - max(image_bytes, 0))
    if image_bytes < _MIN_IMAGE_BYTES or len(encode_record(bytes(image_bytes), 0, 0)) != length:
        return None
    payload = encode_record(bytes(image_bytes), 0, 0)
    offsets = record_offsets(image_bytes)
    id_at, image_at, label_at = (
        offset - HEADER_BYTES for offset in (offsets.id_offset, offsets.image_offset, offsets.label_offset)
    )
    middle_at, end_at = id_at + INT_BYTES, image_at + image_bytes
    return payload[:id_at], payload[middle_at:image_at], middle_at, payload[end_at:label_at], end_at


def _numbers(padded: bytearray) -> np.ndarray:
    """Returns the numbers of padded varints, int64, -1 for `_NO_NUMBER`."""
    groups = np.frombuffer(padded, np.uint8).reshape(-1, INT_BYTES)
    numbers = np.zeros(len(groups), np.int64)
    for place in range(INT_BYTES):
        numbers |= (groups[:, place] & np.uint8(0x7F)).astype(np.int64) << 7 * place
    return np.where(groups[:, -1] < 0x80, numbers, -1)
