"""The limit of all reading: the bytes of files from the page cache into one buffer, one thread, and that is all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["BUFFER_BYTES", "read_all"]

BUFFER_BYTES = 1 << 20  # that the processor's second cache holds


def read_all(paths: Iterable[str | Path], buffer: bytearray) -> None:
    """Reads files into `buffer`, again and again."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
