"""No converter: every byte of the files is read and hashed with SHA-256, by one process a core, and that is all."""

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


def load(job: ConvertJob) -> dict[str, Any]:
    """Starts the processes."""
    _POOLS.append(multiprocessing.get_context("fork").Pool(job.num_workers))
    return {"versions": {}, "settings": f"read and sha256, {job.num_workers} processes"}


def prepare(job: ConvertJob, out_dir: Path) -> Callable[[], int]:
    """Returns the reading."""
    paths = job.paths()
    parts = [paths[start :: 4 * job.num_workers] for start in range(4 * job.num_workers)]
    return lambda: sum(_POOLS[0].map(_read, parts, chunksize=1))


def _read(paths: list[str]) -> int:
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            hashlib.sha256(file.read()).digest()
    return len(paths)
