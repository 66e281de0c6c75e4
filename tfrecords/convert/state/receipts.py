"""Receipts: what became of each file of a finished shard, kept until the dataset is complete.

A receipt is a JSON file with `form` (`FORM`), `inputs` (a digest of the files that the shard is made from), `info` (the
shard's name, length and checksum) and one column per fact, so that the receipts of a million files are read in seconds.
A receipt that is damaged, or has another form, counts as not there: its shard is written again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.convert.sources.read_errors import machine_errors
from tfrecords.convert.sources.source import printable
from tfrecords.format.atomic_files import atomic_file, parse_json
from tfrecords.format.layout import ShardInfo
from tfrecords.format.quarantine import Reason, Refusal, RefusedFile


class Receipt:
    """The results of `num_files` files, in columns.

    Attributes:
        positions: int64 `[n]`, the record that each file became; -1 for a rejected file.
        sha256: uint8 `[n, 32]`, of the file's bytes; zeros if it could not be read.
        pixels_sha256: uint8 `[n, 32]`, of the stored pixels before they are encoded.
        phash: uint64 `[n]`, the perceptual hash; 0 if it was not asked for.
        widths, heights: int32 `[n]`, px, of the upright image before it was resized.
        refused: why a file was rejected, by its index in the receipt.
        vanished: indices of the images that show nothing on the background, see `DecodedImage.vanishes`.
        narrow: indices of the images that use little of the range of their deep samples, see `DecodedImage.narrow`.
    """

    def __init__(self, num_files: int) -> None:
        self.positions = np.full(num_files, -1, np.int64)
        self.sha256 = np.zeros((num_files, 32), np.uint8)
        self.pixels_sha256 = np.zeros((num_files, 32), np.uint8)
        self.phash = np.zeros(num_files, np.uint64)
        self.widths = np.zeros(num_files, np.int32)
        self.heights = np.zeros(num_files, np.int32)
        self.refused: dict[int, Refusal] = {}
        self.vanished: set[int] = set()
        self.narrow: set[int] = set()

    def put(self, rows: np.ndarray, part: Receipt) -> None:
        """Copy the columns of `part` to the indices `rows` of this receipt."""
        for name in _COLUMNS:
            getattr(self, name)[rows] = getattr(part, name)
        self.refused.update((int(rows[number]), refusal) for number, refusal in part.refused.items())
        for name in _NOTED:
            getattr(self, name).update(int(rows[number]) for number in getattr(part, name))

    def is_about(self, num_files: int, num_examples: int) -> bool:
        """Return whether so many files became so many records, each of them one, and the others were rejected."""
        records = np.sort(self.positions[self.positions >= 0])
        refused = np.flatnonzero(self.positions < 0).tolist()
        return (
            len(self.positions) == num_files
            and np.array_equal(records, np.arange(num_examples))
            and sorted(self.refused) == refused
        )

    def refused_files(self, paths: Sequence[str]) -> list[RefusedFile]:
        """Return the entries of the quarantine list, given the path of each file."""
        return [
            RefusedFile(path=printable(paths[row]), reason=refusal.reason.value, detail=refusal.detail)
            for row, refusal in sorted(self.refused.items())
        ]


FORM = 1
"""The number of the form of a receipt, to be raised when it changes."""

_NOTED = ("vanished", "narrow")
_COLUMNS = ("positions", "sha256", "pixels_sha256", "phash", "widths", "heights")


def write_receipt(path: Path, inputs: str, info: ShardInfo, receipt: Receipt | None = None) -> None:
    """Write a receipt atomically, and durably if the shard is durable. Receipts of the final plan's shards have no
    columns.
    """
    values: dict[str, object] = {"form": FORM, "inputs": inputs, "info": dataclasses.asdict(info)}
    if receipt is not None:
        for name in _COLUMNS:
            column: np.ndarray = getattr(receipt, name)
            values[name] = column.tobytes().hex() if column.dtype == np.uint8 else column.tolist()
        values["refused"] = {number: [r.reason.value, r.detail] for number, r in receipt.refused.items()}
        values |= {name: sorted(getattr(receipt, name)) for name in _NOTED if getattr(receipt, name)}
    data = json.dumps(values).encode()  # in one call, which is all C code
    with atomic_file(path, sync=bool(info.sha256), sync_name=False) as file:
        file.write(data)


def read_info(path: Path, inputs: str, shard: Path) -> ShardInfo | None:
    """Return the content of a shard according to its receipt, or None if the shard has to be written (again)."""
    found = _read(path, inputs, shard)
    return found and found[0]


def read_receipt(path: Path, inputs: str, shard: Path) -> tuple[ShardInfo, Receipt] | None:
    """Return the content of a shard and what became of its files, or None, as `read_info` does."""
    found = _read(path, inputs, shard)
    if found is None:
        return None
    info, values = found
    try:
        receipt = Receipt(len(values["positions"]))
        for name in _COLUMNS:
            column: np.ndarray = getattr(receipt, name)
            if column.dtype == np.uint8:
                column[:] = np.frombuffer(bytes.fromhex(values[name]), np.uint8).reshape(column.shape)
            else:
                column[:] = np.array(values[name], column.dtype).reshape(column.shape)
        receipt.refused = {int(n): Refusal(Reason(why), str(detail)) for n, (why, detail) in values["refused"].items()}
        for name in _NOTED:
            setattr(receipt, name, {range(len(receipt.positions))[number] for number in values.get(name, ())})
    except _DAMAGED:
        return None
    return info, receipt


_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError)


def _read(path: Path, inputs: str, shard: Path) -> tuple[ShardInfo, dict[str, Any]] | None:
    values: Any = None
    try:
        with machine_errors(str(path)), suppress(FileNotFoundError, NotADirectoryError):
            values = parse_json(path.read_bytes())
        if values["form"] != FORM or values["inputs"] != inputs:
            return None
        info = ShardInfo(**values["info"])
        is_there = shard.is_file() and shard.stat().st_size == info.num_bytes
        return (info, values) if is_there and shard.name == info.file else None
    except _DAMAGED:  # missing, or lost in a power failure
        return None
