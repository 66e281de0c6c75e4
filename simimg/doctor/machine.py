"""Processor and memory: what exists, the limits of a container, and the speed of memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import time
from pathlib import Path

import numpy as np
import psutil

from simimg.doctor.check_result import CheckResult, gigabytes
from tfrecords.machine_limits import cpu_quota, memory_limit, visible_cores

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "pillow")

_MIN_FREE_BYTES = 1 << 30  # TensorFlow alone takes 0.5 GB, a worker process up to 0.25 GB
# More than the caches of most processors; on processors with larger caches, the speed of the cache is measured.
_COPIED_BYTES = 64 << 20
_COPYING_S = 0.2


def machine_facts() -> dict[str, str]:
    """Return the processor, the cores that this process may use, memory, system and versions, as text by name.

    Reports and benchmark results print them beside their figures.
    """
    memory = psutil.virtual_memory()
    return {
        "processor": _processor(),
        "cores": str(visible_cores()),
        "memory": f"{memory.total / 2**30:.1f} GB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
    }


def check_machine(root: Path = Path("/")) -> CheckResult:
    """Check cores and memory; `root` is the folder of /proc and /sys."""
    there = psutil.virtual_memory()
    limit = memory_limit(root)
    total = min(there.total, limit) if limit else there.total
    free = min(there.available, total)
    may_use = visible_cores()
    quota = cpu_quota(root)
    speed = memory_bandwidth() if free > 4 * _COPIED_BYTES else None
    problems, notes = [], []
    if free < _MIN_FREE_BYTES:
        problems.append(
            f"only {gigabytes(free)} of {gigabytes(total)} memory are free. End other programs (`ps aux --sort=-rss` "
            "lists them), or give the container more with --memory."
        )
    if limit and limit < there.total:
        notes.append(f"the container may use {gigabytes(limit)} of the {gigabytes(there.total)} memory of the machine.")
    if quota and quota < may_use:
        notes.append(
            f"the container may use the time of {quota:g} cores, but sees {may_use}. simimg starts as many processes "
            "and threads as it has the time of whole cores; other programs and TensorFlow may start more."
        )
    named = machine_facts()
    rows = [
        ("processor", named["processor"]),
        ("cores", f"{may_use}" + (f", time of {quota:g}" if quota and quota < may_use else "")),
        ("memory", f"{gigabytes(free)} free of {gigabytes(total)}"),
        ("system", named["system"]),
    ]
    if speed:
        rows.insert(3, ("memory speed", f"{speed:.1f} GB/s, copied by one thread, reads and writes counted"))
    numbers = {
        "num_cores": may_use,
        "cpu_quota": quota,
        "memory_bytes": there.total,
        "memory_limit_bytes": limit,
        "memory_free_bytes": free,
        "memory_gb_per_s": round(speed, 1) if speed else None,
    }
    return CheckResult(
        title="machine", facts={**named, **numbers}, rows=tuple(rows), problems=tuple(problems), notes=tuple(notes)
    )


def memory_bandwidth() -> float:
    """Copy 64 MB for 0.2 s with one thread; return the GB/s of the fastest copy, reads and writes counted."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    target = np.ones_like(source)  # written once, so that its pages are allocated
    best = float("inf")
    until = time.perf_counter() + _COPYING_S
    while (begun := time.perf_counter()) < until:
        np.copyto(target, source)
        best = min(best, time.perf_counter() - begun)
    return 2 * _COPIED_BYTES / best / 1e9


def _processor() -> str:
    with contextlib.suppress(OSError):
        if named := re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    return platform.processor() or platform.machine()
