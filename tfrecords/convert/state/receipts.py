"""Receipts: what became of each file of a finished shard, kept until the whole data set is there.

A receipt is a JSON file: `inputs` (a digest of what the shard is made of), `info` (the shard's name, length and
checksum) and a column a fact, so that the receipts of a million files are read in seconds.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, read_json
from tfrecords.format.layout import ShardInfo
from tfrecords.format.quarantine import Reason, Refusal

__all__ = ["Receipt", "read_info", "read_receipt", "write_receipt"]


class Receipt:
    """What became of `num_files` files, in columns.

    Attributes:
        positions: int64 `[n]`, the record that each became; -1 for a refused one.
        sha256: uint8 `[n, 32]`, of its bytes; zeros where it could not be read.
        pixels_sha256: uint8 `[n, 32]`, of its pixels as they are stored, before they are encoded.
        phash: uint64 `[n]`, its perceptual hash; 0 where none was asked for.
        widths, heights: int32 `[n]`, px, of the upright picture before it was resized.
        refused: why, by the file's place in the receipt.
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
        """Copies what `part` says of its files to the places `rows` of this receipt."""
        for name in _COLUMNS:
            getattr(self, name)[rows] = getattr(part, name)
        self.refused.update((int(rows[number]), refusal) for number, refusal in part.refused.items())


_COLUMNS = ("positions", "sha256", "pixels_sha256", "phash", "widths", "heights")


def write_receipt(path: Path, inputs: str, info: ShardInfo, receipt: Receipt | None = None) -> None:
    """Writes a receipt atomically, and durably if the shard is sealed; that of an assembled shard has no columns."""
    values: dict[str, object] = {"inputs": inputs, "info": dataclasses.asdict(info)}
    if receipt is not None:
        for name in _COLUMNS:
            column: np.ndarray = getattr(receipt, name)
            values[name] = column.tobytes().hex() if column.dtype == np.uint8 else column.tolist()
        values["refused"] = {number: [r.reason.value, r.detail] for number, r in receipt.refused.items()}
    data = json.dumps(values).encode()  # in one piece, and not by the record: C does it
    with atomic_file(path, sync=bool(info.sha256), sync_name=False) as file:
        file.write(data)


def read_info(path: Path, inputs: str, shard: Path) -> ShardInfo | None:
    """Returns what a receipt says of its shard, or None where the shard is to be written (again)."""
    found = _read(path, inputs, shard)
    return found and found[0]


def read_receipt(path: Path, inputs: str, shard: Path) -> tuple[ShardInfo, Receipt] | None:
    """Returns what a receipt says of its shard and of the files that it was made of, or None as `read_info` does."""
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
    except DataError:  # not there, or lost in a power failure
        return None
    info = ShardInfo(**values["info"])
    if values["inputs"] != inputs or not shard.is_file() or shard.stat().st_size != info.num_bytes:
        return None
    return info, values
