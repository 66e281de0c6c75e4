"""Processor and memory: what exists, the limits of a container, and the speed of memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import psutil

from simimg.doctor.check_result import CheckResult, gigabytes
from tfrecords.convert.workers.pool import num_cores

_PACKAGES = ("tensorflow", "keras", "numpy", "pillow")

_MIN_FREE_BYTES = 1 << 30  # TensorFlow alone takes 0.5 GB, a worker process up to 0.25 GB
# More than the caches of most processors; on processors with larger caches, the speed of the cache is measured.
_COPIED_BYTES = 64 << 20
_COPYING_S = 0.2
# Without a limit, cgroup v1 reports the largest multiple of the page size below 2**63.
_NO_LIMIT = 1 << 60


def machine_facts() -> dict[str, str]:
    """Return the processor, the cores that this process may use, memory, system and versions, as text by name.

    Reports and benchmark results print them beside their figures.
    """
    memory = psutil.virtual_memory()
    return {
        "processor": _processor(),
        "cores": str(num_cores()),
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
    may_use = num_cores()
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
            f"the container may use the time of {quota:g} cores, but sees {may_use}. "
            f"Use simimg convert --num_workers={max(1, round(quota))} to start as many processes."
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


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return how many bytes the control group of this process may use, or None without a limit."""
    found = [*_numbers(root, "memory", "memory.max"), *_numbers(root, "memory", "memory.limit_in_bytes")]
    return min((int(value) for (value, *_) in found if value < _NO_LIMIT), default=None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the control group of this process may use, or None without a limit."""
    shares = [value / period for value, period in _numbers(root, "cpu", "cpu.max")]
    of_v1 = (_numbers(root, "cpu", file) for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    pairs = zip(*of_v1, strict=False)  # both files exist, or neither
    shares += [quota / period for (quota, *_), (period, *_) in pairs if quota > 0]
    return min(shares, default=None)


def _numbers(root: Path, controller: str, file: str) -> Iterator[list[float]]:
    """Yield the numbers in a file of each control group of this process, from the innermost one to the root."""
    for base, group in _groups(root, controller):
        for folder in (group, *group.parents):
            try:
                words = (base / str(folder).lstrip("/") / file).read_text().split()
                yield [float(word) for word in words]
            except (OSError, ValueError):  # missing, or "max"
                continue


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, PurePosixPath]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield root / "sys/fs/cgroup", PurePosixPath(path)
        elif controller in controllers.split(","):
            yield root / "sys/fs/cgroup" / controller, PurePosixPath(path)


def _processor() -> str:
    with contextlib.suppress(OSError):
        if named := re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    return platform.processor() or platform.machine()
