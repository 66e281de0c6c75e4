"""The limit of all readers: the bytes of the shards from the page cache into one buffer, one thread, nothing else.

A module of its own because each tool of a comparison is a script that runs in its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]

BUFFER_BYTES = 1 << 20  # fits into the processor's second-level cache


def load(job: ReadJob) -> dict[str, Any]:
    """Imports nothing."""
    return {"versions": {}, "settings": f"readinto a buffer of {BUFFER_BYTES >> 20} MB, one thread"}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that reads all shards."""
    buffer = bytearray(BUFFER_BYTES)

    def run() -> int:
        read_all(job.shards, buffer)
        return job.num_images

    return run


def read_all(paths: Iterable[str | Path], buffer: bytearray) -> None:
    """Reads whole files into `buffer`, one part over the other."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
