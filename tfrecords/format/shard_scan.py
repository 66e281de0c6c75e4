"""Reads a shard once, from the first byte to the last, and reports its records and everything that is wrong with them.

The SHA-256 of the file takes most of the time. It is computed by another thread while this one checks the records.
Memory is a few chunks and 18 bytes per record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
from array import array
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tfrecords.base_errors import CorruptRecordError
from tfrecords.format.array_record_shard import ArrayRecordReader
from tfrecords.format.atomic_files import file_sha256
from tfrecords.format.example import decode_example, decode_lists
from tfrecords.format.naming import is_array_record
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, varint, varints
from tfrecords.format.record_layout import INT_BYTES, encode_record, encode_with_tail, match_record
from tfrecords.format.schema import PLAIN, Schema, check_value

_CHUNK_BYTES = 1 << 22
_MAX_FAULTS = 3  # reported per shard
_NO_NUMBER = b"\xff" * INT_BYTES


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardScan:
    """The records found in a shard, and what is wrong with them.

    `ids` and `labels` are int64 `[num_records]`, -1 if a record could not be read. The label is the first one of
    several, -1 if there is none, and 0 if labels are no classes. `lengths` are the lengths of the records in bytes,
    framing included: that of TFRecord, also in ArrayRecord files. `faults` are phrases such as "record 3 at byte 512:
    ...". If `whole` is False, the file has more records than could be found. `framed` says whether the records lie one
    after the other with TFRecord's framing, so that the lengths say where each begins.
    """

    num_bytes: int
    sha256: str
    ids: np.ndarray
    labels: np.ndarray
    lengths: array[int]
    faults: tuple[str, ...]
    whole: bool
    framed: bool = True


def scan_shard(
    path: Path, *, schema: Schema = PLAIN, progress: Callable[[int], None] = lambda num_records: None
) -> ShardScan:
    """Read a shard whose examples have this schema.

    `progress` is called with the number of records read since the last call.

    Raises:
        OSError: it cannot be read.
        UsageError: it is an ArrayRecord file, and the package that reads it is not installed.
    """
    if is_array_record(path.name):
        return _scan_array_record(path, schema, progress)
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        records = _Records(os.fstat(file.fileno()).st_size, schema)
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
        faults=records.reported(),
        whole=not records.lost,
    )


def _scan_array_record(path: Path, schema: Schema, progress: Callable[[int], None]) -> ShardScan:
    num_bytes = path.stat().st_size
    with ThreadPoolExecutor(1) as hasher:
        hashed = hasher.submit(file_sha256, path)
        records = _Records(num_bytes, schema, framed=False)
        try:
            reader = ArrayRecordReader(path)
            for found in reader:
                length = FRAMING_BYTES + len(found) if isinstance(found, bytes) else 0
                records.add(length, records.fault_of(found) if isinstance(found, bytes) else found)
                progress(1)
        except CorruptRecordError as error:
            records.unopened(str(error).removeprefix(f"{path}: ").removesuffix(". Convert the images again."))
        sha256 = hashed.result()
    return ShardScan(
        num_bytes=num_bytes,
        sha256=sha256,
        ids=_numbers(records.ids),
        labels=_numbers(records.labels),
        lengths=records.lengths,
        faults=records.reported(),
        whole=not records.lost,
        framed=False,
    )


class _Records:
    """The records of a file that is passed in piece by piece."""

    def __init__(self, file_bytes: int, schema: Schema, *, framed: bool = True) -> None:
        self.ids = bytearray()
        self.labels = bytearray()
        self.lengths = array("q")
        self.missing = 0  # bytes that are still needed to complete a record
        self.lost = False  # the start of the next record is unknown
        self._offset = 0
        self._file_bytes = file_bytes
        self._schema = schema
        self._framed = framed
        self._faults: list[str] = []
        self._num_faults = 0

    def take(self, data: bytes) -> bytes:
        """Read the records in `data` and return the rest: the beginning of a record, or nothing once lost."""
        at, self.missing = 0, 0
        while not self.lost and len(data) - at >= HEADER_BYTES:
            start = data[at : at + HEADER_BYTES]
            length = int.from_bytes(start[:8], "little")
            if header(length) != start:
                self.fail("the checksum of the length fails")
                break
            end = at + FRAMING_BYTES + length
            if end > len(data):
                if self._offset + FRAMING_BYTES + length > self._file_bytes:  # checked before any memory is allocated
                    self.fail("the file ends inside the record")
                else:
                    self.missing = end - len(data)
                break
            payload = data[at + HEADER_BYTES : end - FOOTER_BYTES]
            if footer(payload) != data[end - FOOTER_BYTES : end]:
                fault = "the checksum of the payload fails"
            else:
                fault = self.fault_of(payload)
            self.add(end - at, fault)
            at = end
        return b"" if self.lost else data[at:]

    def add(self, length: int, fault: str) -> None:
        """Count a record of `length` bytes, after `fault_of` noted its numbers, or with what is wrong with it."""
        if fault:
            self._note(fault)
            self.ids += _NO_NUMBER
            self.labels += _NO_NUMBER
        self.lengths.append(length)
        self._offset += length

    def fail(self, fault: str) -> None:
        """Note a fault after which no further record can be found."""
        self._note(fault)
        self.lost = True

    def unopened(self, fault: str) -> None:
        """Note that the file cannot be opened, so that it has no records."""
        self._faults.append(f"the file cannot be opened: {fault}")
        self._num_faults += 1
        self.lost = True

    def reported(self) -> tuple[str, ...]:
        """Return the first few faults; the last one ends with how many more there are."""
        more = self._num_faults - len(self._faults)
        if not more:
            return tuple(self._faults)
        return (*self._faults[:-1], f"{self._faults[-1]}, and {more:,} more of its records are damaged")

    def _note(self, fault: str) -> None:
        self._num_faults += 1
        if self._num_faults <= _MAX_FAULTS:
            where = f" at byte {self._offset}" if self._framed else ""
            self._faults.append(f"record {len(self.lengths)}{where}: {fault}")

    def fault_of(self, payload: bytes) -> str:
        """Note the id and label of an example, or return what is wrong with it."""
        if not self._schema.is_plain:
            return self._read_with_tail(payload)
        numbers = match_record(payload)
        if numbers is not None:
            self.ids += numbers[0]
            self.labels += numbers[1]
            return ""
        try:
            example = decode_example(payload)
        except ValueError as error:
            return f"not a tf.train.Example ({error})"
        if sorted(example) != ["id", "image", "label"]:
            return f"has the features {sorted(example)} instead of id, image, label"
        id, image, label = example["id"], example["image"], example["label"]
        if not isinstance(id, int) or not isinstance(image, bytes) or not isinstance(label, int):
            return "its id and label should be integers, its image a byte string"
        try:
            encode_record(image, label, id)
        except ValueError as error:
            return f"its id or label is invalid: {error}"
        return "its parts are not where this version writes them"

    def _read_with_tail(self, payload: bytes) -> str:
        """Do the same for a schema that is not the plain one."""
        schema = self._schema
        try:
            example = decode_lists(payload)
        except ValueError as error:
            return f"not a tf.train.Example ({error})"
        label_type = schema.label_type
        labels = {"none": [], "multi": ["label", "padding"]}.get(label_type, ["label"])
        keys = sorted(["id", "image", *labels, *(feature.name for feature in schema.features)])
        if sorted(example) != keys:
            return f"has the features {sorted(example)} instead of {', '.join(keys)}"
        for feature in schema.features:
            if fault := check_value(feature, example[feature.name]):
                return f"its feature {feature.name} {fault}"
        label = example.get("label", [])
        first = label[0] if label_type in ("single", "multi") and label else -1 if label_type == "multi" else 0
        try:
            values = [example[f.name] if f.length else example[f.name][0] for f in schema.features]
            tail = schema.tail(label[0] if label_type == "single" else label, values)
            (id,), (image,) = example["id"], example["image"]
            if encode_with_tail(image, id, tail) != payload:
                return "its parts are not where this version writes them"
        except (TypeError, ValueError, LookupError, struct.error, AttributeError) as error:
            return f"its id, label or a feature is invalid: {error}"
        self.ids += varint(id, INT_BYTES)
        self.labels += varint(first, INT_BYTES) if first >= 0 else _NO_NUMBER
        return ""


def _numbers(padded: bytearray) -> np.ndarray:
    """Return the values of padded varints, int64, -1 for `_NO_NUMBER`."""
    groups = np.frombuffer(padded, np.uint8).reshape(-1, INT_BYTES)
    return np.where(groups[:, -1] < 0x80, varints(groups), -1)
