"""What the system allows a process: open files, and shared memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simimg.doctor.check_result import CheckResult, gigabytes

__all__ = ["check_limits"]

# Shards, workers' pipes, event files and TensorFlow's own come to a few hundred.
_MIN_OPEN_FILES = 1_024
# NCCL's manual asks for it in containers (docker run --shm-size=1g); Docker gives 64 MB, on which NCCL dies with
# "unhandled system error" when GPUs cannot reach each other directly.
_NCCL_SHM_BYTES = 1 << 30
# Semaphores and queues of worker processes need some KB there.
_MIN_FREE_SHM_BYTES = 8 << 20


def check_limits(
    *,
    num_gpus: int,
    open_files: Callable[[], tuple[int, int]] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    usage: Callable[[Path], Any] = shutil.disk_usage,
    shm: Path = Path("/dev/shm"),
) -> CheckResult:
    """Looks at the limit of open files and at /dev/shm.

    Args:
        num_gpus: that are trained on; more than one talk through NCCL.
        open_files: the soft and the hard limit, -1 for none.
        usage: total, used and free bytes of a folder's file system.
        shm: where shared memory lives.
    """
    problems = []
    soft, hard = open_files()
    if 0 <= soft < _MIN_OPEN_FILES:
        command = f"ulimit -n {4 * _MIN_OPEN_FILES if not 0 <= hard < 4 * _MIN_OPEN_FILES else hard}"
        if 0 <= hard < _MIN_OPEN_FILES:
            command = f"docker run --ulimit nofile={4 * _MIN_OPEN_FILES}, or a higher nofile in limits.conf"
        problems.append(f"only {soft:,} files may be open at once, {_MIN_OPEN_FILES:,} should be: {command}")
    rows = [("open files", "any number" if soft < 0 else f"{soft:,}")]
    facts: dict[str, Any] = {"open_files": soft, "open_files_hard": hard, "shm_bytes": None, "shm_free_bytes": None}
    try:
        total, _, free = usage(shm)
    except OSError:
        rows.append((str(shm), "not there"))
        if num_gpus > 1:
            problems.append(f"{shm} is not there, and {num_gpus} GPUs talk through it: mount -t tmpfs tmpfs {shm}")
    else:
        facts |= {"shm_bytes": total, "shm_free_bytes": free}
        rows.append((str(shm), f"{gigabytes(free)} free of {gigabytes(total)}"))
        if free < min(_MIN_FREE_SHM_BYTES, total / 2):
            problems.append(
                f"{shm} is full ({gigabytes(free)} free of {gigabytes(total)}), and worker processes need it: "
                f"see what `ls -lS {shm}` shows, and remove what belongs to no process any more."
            )
        elif num_gpus > 1 and total < _NCCL_SHM_BYTES:
            problems.append(
                f"{shm} has {gigabytes(total)}, with which NCCL may fail between {num_gpus} GPUs: start the container "
                f"with --shm-size=1g, or: mount -o remount,size=1G {shm}"
            )
    return CheckResult(title="limits", facts=facts, rows=tuple(rows), problems=tuple(problems))
