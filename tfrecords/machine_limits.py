"""What this process may use of its machine: cores, memory (affinity, the control groups of a container), a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Without a limit, cgroup v1 reports the largest multiple of the page size below 2**63.
_NO_LIMIT = 1 << 60

# Parameters of glibc's mallopt(3), and the largest size of a block that it lets a program take from its heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_FROM_HEAP = 32 << 20

_most_cores: int | None = None


def limit_cores(most: int) -> None:
    """Let this process use so many cores at most, because other processes were given the others."""
    global _most_cores
    _most_cores = most


def num_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use, at least 1; `root` is the folder of /proc and /sys.

    A container with the time of 2.5 cores may use 2, because a third thread would only make the others wait.
    """
    cores, quota = visible_cores(), cpu_quota(root)
    if quota is not None:
        cores = max(1, min(cores, int(quota)))
    return cores if _most_cores is None else min(cores, _most_cores)


def visible_cores() -> int:
    """Return the number of cores that this process may run on, whatever share of their time it gets."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def user_cache() -> Path | None:
    """Return the folder in which programs keep what they can make again: `$XDG_CACHE_HOME/simimg`, or in `~/.cache`.

    None if that is no absolute path: that of the environment, or HOME for a user that the system does not know.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~"), ".cache"), "simimg")
    return folder if folder.is_absolute() else None


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return how many bytes the control group of this process may use, or None without a limit."""
    found = [*_numbers(root, "memory", "memory.max"), *_numbers(root, "memory", "memory.limit_in_bytes")]
    return min((int(value) for (value, *_) in found if value < _NO_LIMIT), default=None)


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system; only glibc can do so.

    It is for commands whose threads decode large images one after the other, and that end soon. Otherwise the memory of
    each image goes back to the system, which clears it for the next one: a twentieth of the time for an index of
    wallpapers. Threads that were started before may keep heaps of their own, from which memory goes back.
    """
    import ctypes  # only for this, and every command imports this module

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST_FROM_HEAP), (_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


@functools.cache  # 0.2 ms, which a search of few vectors would wait for
def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the control group of this process may use, or None without a limit; read once."""
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
