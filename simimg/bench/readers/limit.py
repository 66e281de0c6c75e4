"""No reader: the bytes of the shards from the page cache into one buffer, one thread, and that is all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.rivals.serve import ReadJob

__all__ = ["load", "prepare"]

_BUFFER_BYTES = 1 << 20  # that the processor's second cache holds


def load(job: ReadJob) -> dict[str, Any]:
    """Needs nothing."""
    return {"versions": {}, "settings": f"readinto a buffer of {_BUFFER_BYTES >> 20} MB, one thread"}


def prepare(job: ReadJob, out_dir: Path) -> Callable[[], int]:
    """Returns the reading."""
    buffer = bytearray(_BUFFER_BYTES)

    def run() -> int:
        for shard in job.shards:
            with open(shard, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        return job.num_images

    return run
