"""Shards mapped into memory as one array of records, however many files there are.

Row r of shard s lies at `address + (first_rows[s] + r) * record_bytes`. Each file is mapped at the next address that is
both on a page boundary and a whole number of records from the first, so there are rows between two shards that do not
exist. Those rows cost address space but no memory, and reading one kills the process.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrecords.base_errors import DataError

_PROT_NONE = 0
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000  # Linux, on x86-64 and ARM64
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclasses.dataclass(frozen=True)
class MappedRecords:
    """Shards mapped into memory as one array."""

    rows: np.ndarray  # uint8 `[num_rows, record_bytes]`; the memory is read-only, although NumPy does not know it
    first_rows: tuple[int, ...]  # of each shard
    first_places: tuple[int, ...]  # of each shard's first record among all records, and the number of records

    def spans(self) -> list[tuple[slice, slice]]:
        """Returns the places and the rows of each shard."""
        return [
            (slice(place, end), slice(row, row + end - place))
            for row, (place, end) in zip(self.first_rows, itertools.pairwise(self.first_places), strict=True)
        ]


def map_records(shards: Sequence[tuple[Path, int]], record_bytes: int) -> MappedRecords:
    """Maps shards, each given as a file and its number of records; empty shards are left out.

    Raises:
        DataError: a file is missing, cannot be read, or is not `record_bytes` per record long.
    """
    shards = [(path, count) for path, count in shards if count]
    step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, record_bytes)  # rows from one page boundary to the next such row
    first_rows, end = [], 0
    for _, count in shards:
        first_rows.append(-(-end // step) * step)
        end = first_rows[-1] + count
    num_bytes = end * record_bytes
    if not shards:
        return MappedRecords(rows=np.empty((0, record_bytes), np.uint8), first_rows=(), first_places=(0,))
    address = _map(None, num_bytes, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, -1)
    memory = (ctypes.c_ubyte * num_bytes).from_address(address)
    # Not at the end of the process, when threads of TensorFlow may still be reading.
    weakref.finalize(memory, _C.munmap, address, num_bytes).atexit = False
    for row, (path, count) in zip(first_rows, shards, strict=True):
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Convert the images again.") from None
        try:
            length = os.fstat(file).st_size
            if length != count * record_bytes:
                raise DataError(
                    f"{path} is {length} bytes long instead of {count * record_bytes}. "
                    "Run `simimg verify`, and convert the images again."
                )
            _map(address + row * record_bytes, length, mmap.PROT_READ, mmap.MAP_PRIVATE | _MAP_FIXED, file)
        finally:
            os.close(file)
    return MappedRecords(
        rows=np.frombuffer(memoryview(memory), np.uint8).reshape(-1, record_bytes),
        first_rows=tuple(first_rows),
        first_places=tuple(itertools.accumulate((count for _, count in shards), initial=0)),
    )


def _map(address: int | None, num_bytes: int, protection: int, flags: int, file: int) -> int:
    mapped = _C.mmap(address, num_bytes, protection, flags, file, 0)
    if mapped == _MAP_FAILED:
        raise DataError(f"{num_bytes:,} bytes cannot be mapped: {os.strerror(ctypes.get_errno())}.")
    return int(mapped)


def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)  # the mmap of Python's standard library cannot choose an address
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library


_C = _c_library()
