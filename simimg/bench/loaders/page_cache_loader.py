"""No reader: the bytes of the shards from the page cache into one buffer, one thread, and that is all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simimg.bench.page_cache import BUFFER_BYTES, read_all

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ReadJob

__all__ = ["load", "prepare"]


def load(job: ReadJob) -> dict[str, Any]:
    """Needs nothing."""
    return {"versions": {}, "settings": f"readinto a buffer of {BUFFER_BYTES >> 20} MB, one thread"}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns the reading."""
    buffer = bytearray(BUFFER_BYTES)

    def run() -> int:
        read_all(job.shards, buffer)
        return job.num_images

    return run
