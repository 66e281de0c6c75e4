"""Limits of a process: open files and shared memory."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

from simimg.doctor.check_result import CheckResult, gigabytes

# Shards, pipes of workers, event files and TensorFlow's own files add up to a few hundred.
_MIN_OPEN_FILES = 1_024
# NCCL's user guide recommends it for containers (docker run --shm-size=1g --ulimit memlock=-1). Docker's default is
# 64 MB. "If insufficient shared memory is available, NCCL will fail to initialize" (Runtime and MPI issues, Shared
# memory): it creates segments in /dev/shm between processes, and even between threads of one process.
_NCCL_SHM_BYTES = 1 << 30
# Semaphores and queues of worker processes need a few KB there.
_MIN_FREE_SHM_BYTES = 8 << 20


def check_limits(*, num_gpus: int, shm: Path = Path("/dev/shm")) -> CheckResult:
    """Check the limit of open files and /dev/shm, through which NCCL communicates between several GPUs."""
    problems = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # -1 for unlimited
    if 0 <= soft < _MIN_OPEN_FILES:
        command = f"ulimit -n {4 * _MIN_OPEN_FILES if not 0 <= hard < 4 * _MIN_OPEN_FILES else hard}"
        if 0 <= hard < _MIN_OPEN_FILES:
            command = f"docker run --ulimit nofile={4 * _MIN_OPEN_FILES}, or a higher nofile in limits.conf"
        problems.append(f"only {soft:,} files may be open at once, but {_MIN_OPEN_FILES:,} are needed. Run: {command}")
    rows = [("open files", "unlimited" if soft < 0 else f"{soft:,}")]
    facts: dict[str, Any] = {"open_files": soft, "open_files_hard": hard, "shm_bytes": None, "shm_free_bytes": None}
    try:
        total, _, free = shutil.disk_usage(shm)
    except OSError:
        rows.append((str(shm), "missing"))
        if num_gpus > 1:
            problems.append(
                f"{shm} is missing, but {num_gpus} GPUs communicate through it. Run: mount -t tmpfs tmpfs {shm}"
            )
    else:
        facts |= {"shm_bytes": total, "shm_free_bytes": free}
        rows.append((str(shm), f"{gigabytes(free)} free of {gigabytes(total)}"))
        if free < min(_MIN_FREE_SHM_BYTES, total / 2):
            problems.append(
                f"{shm} is full ({gigabytes(free)} free of {gigabytes(total)}), but worker processes need it. "
                f"Remove the files of ended processes; `ls -lS {shm}` lists all files."
            )
        elif num_gpus > 1 and total < _NCCL_SHM_BYTES:
            problems.append(
                f"{shm} has {gigabytes(total)}, with which NCCL may fail between {num_gpus} GPUs. Start the container "
                f"with --shm-size=1g, or run: mount -o remount,size=1G {shm}"
            )
    return CheckResult(title="limits", facts=facts, rows=tuple(rows), problems=tuple(problems))
