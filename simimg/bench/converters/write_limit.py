"""No converter: as many bytes as the squares have go to disk, from one process a core, and that is all.

They reach the page cache; nothing waits for the disk.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simimg.bench.converters.tool_server import ConvertJob

__all__ = ["load", "prepare"]

_POOLS: list[Any] = []  # the pool that `load` starts, so that no run has to
_CHUNK_IMAGES = 64


def load(job: ConvertJob) -> dict[str, Any]:
    """Starts the processes."""
    _POOLS.append(multiprocessing.get_context("fork").Pool(job.num_workers))
    return {"versions": {}, "settings": f"write to the page cache, {job.num_workers} processes"}


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns the writing."""
    num_bytes = job.image_size * job.image_size * 3
    counts = [len(range(part, len(job.files), job.num_workers)) for part in range(job.num_workers)]
    tasks = [(str(out_dir / f"{part}.bin"), count, num_bytes) for part, count in enumerate(counts)]
    return lambda: sum(_POOLS[0].map(_write, tasks, chunksize=1))


def _write(task: tuple[str, int, int]) -> int:
    path, count, num_bytes = task
    chunk = memoryview(bytes(range(256)) * (_CHUNK_IMAGES * num_bytes // 256 + 1))
    with open(path, "wb", buffering=0) as file:
        for start in range(0, count, _CHUNK_IMAGES):
            file.write(chunk[: min(_CHUNK_IMAGES, count - start) * num_bytes])
    return count
