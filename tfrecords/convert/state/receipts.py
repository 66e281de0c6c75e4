"""Receipts: what became of each file of a finished shard, kept until the dataset is complete.

A receipt is a JSON file with `inputs` (a digest of the files that the shard is made from), `info` (the shard's name,
length and checksum) and one column per fact, so that the receipts of a million files are read in seconds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.convert.sources.source import printable
from tfrecords.format.atomic_files import atomic_file, read_json
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
    """

    def __init__(self, num_files: int) -> None:
        self.positions = np.full(num_files, -1, np.int64)
        self.sha256 = np.zeros((num_files, 32), np.uint8)
        self.pixels_sha256 = np.zeros((num_files, 32), np.uint8)
        self.phash = np.zeros(num_files, np.uint64)
        self.widths = np.zeros(num_files, np.int32)
        self.heights = np.zeros(num_files, np.int32)
        self.refused: dict[int, Refusal] = {}

    def put(self, rows: np.ndarray, part: Receipt) -> None:
        """Copy the columns of `part` to the indices `rows` of this receipt."""
        for name in _COLUMNS:
            getattr(self, name)[rows] = getattr(part, name)
        self.refused.update((int(rows[number]), refusal) for number, refusal in part.refused.items())

    def refused_files(self, paths: Sequence[str]) -> list[RefusedFile]:
        """Return the entries of the quarantine list, given the path of each file."""
        return [
            RefusedFile(path=printable(paths[row]), reason=refusal.reason.value, detail=refusal.detail)
            for row, refusal in sorted(self.refused.items())
        ]


_COLUMNS = ("positions", "sha256", "pixels_sha256", "phash", "widths", "heights")


def write_receipt(path: Path, inputs: str, info: ShardInfo, receipt: Receipt | None = None) -> None:
    """Write a receipt atomically, and durably if the shard is durable. Receipts of the final plan's shards have no
    columns.
    """
    values: dict[str, object] = {"inputs": inputs, "info": dataclasses.asdict(info)}
    if receipt is not None:
        for name in _COLUMNS:
            column: np.ndarray = getattr(receipt, name)
            values[name] = column.tobytes().hex() if column.dtype == np.uint8 else column.tolist()
        values["refused"] = {number: [r.reason.value, r.detail] for number, r in receipt.refused.items()}
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
    receipt = Receipt(len(values["positions"]))
    for name in _COLUMNS:
        column: np.ndarray = getattr(receipt, name)
        if column.dtype == np.uint8:
            column[:] = np.frombuffer(bytes.fromhex(values[name]), np.uint8).reshape(column.shape)
        else:
            column[:] = np.array(values[name], column.dtype)
    receipt.refused = {int(n): Refusal(Reason(reason), detail) for n, (reason, detail) in values["refused"].items()}
    return info, receipt


def _read(path: Path, inputs: str, shard: Path) -> tuple[ShardInfo, dict[str, Any]] | None:
    try:
        values = read_json(path, "a receipt")
    except DataError:  # missing, or lost in a power failure
        return None
    info = ShardInfo(**values["info"])
    if values["inputs"] != inputs or not shard.is_file() or shard.stat().st_size != info.num_bytes:
        return None
    return info, values
