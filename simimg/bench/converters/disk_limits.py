"""The two limits of all converters: reading and hashing the files, and writing as many bytes as the results have.

`read`: every byte of the files is read and hashed with SHA-256, by one process per core. `write`: the bytes go to the
page cache from one process per core, and nothing waits for the disk.
"""

from __future__ import annotations

import hashlib
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
    what = "read and sha256" if job.variant == "read" else "write to the page cache"
    return {"versions": {}, "settings": f"{what}, {job.num_workers} processes"}


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns a function that reads, or writes."""
    if job.variant == "read":
        paths = job.paths()
        parts = [paths[start :: 4 * job.num_workers] for start in range(4 * job.num_workers)]
        return lambda: sum(_POOLS[0].map(_read, parts, chunksize=1))
    num_bytes = job.image_size * job.image_size * 3
    counts = [len(range(part, len(job.files), job.num_workers)) for part in range(job.num_workers)]
    tasks = [(str(out_dir / f"{part}.bin"), count, num_bytes) for part, count in enumerate(counts)]
    return lambda: sum(_POOLS[0].map(_write, tasks, chunksize=1))


def _read(paths: list[str]) -> int:
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            hashlib.sha256(file.read()).digest()
    return len(paths)


def _write(task: tuple[str, int, int]) -> int:
    path, count, num_bytes = task
    chunk = memoryview(bytes(range(256)) * (_CHUNK_IMAGES * num_bytes // 256 + 1))
    with open(path, "wb", buffering=0) as file:
        for start in range(0, count, _CHUNK_IMAGES):
            file.write(chunk[: min(_CHUNK_IMAGES, count - start) * num_bytes])
    return count
