"""The disk of a folder: its file system, free space and speed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from simimg.doctor.check_result import CheckResult, gigabytes

_MIN_FREE_BYTES = 2 << 30
_CHUNK_BYTES = 8 << 20
_MAX_CHUNKS = 8
_WRITING_S = 0.5
_NETWORK = "nfs nfs4 cifs smb3 smbfs ceph lustre gpfs beegfs glusterfs afs 9p davfs".split()
_MEMORY = ("tmpfs", "ramfs")


def check_disk(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> CheckResult:
    """Check the disk of `folder`; write an unnamed file of at most 64 MB and read it."""
    kind = file_system(folder, mounts)
    total, _, free = shutil.disk_usage(folder)
    problems, notes = [], []
    if free < _MIN_FREE_BYTES:
        problems.append(
            f"only {gigabytes(free)} are free on the disk of {folder}; {gigabytes(_MIN_FREE_BYTES)} are needed. "
            f"`du -xh --max-depth=1 {folder}` shows what is large."
        )
    write = read = None
    if free > 2 * _CHUNK_BYTES * _MAX_CHUNKS:
        try:
            write, read = disk_speed(folder)
        except OSError as error:
            problems.append(
                f"{folder} cannot be written to ({error.strerror or error}). "
                "Work in another folder, or pass --data_dir, --model_dir and --out_dir elsewhere."
            )
    if network_kind(kind):
        notes.append(
            f"{folder} is on a network file system ({kind}), where memory-mapping and locking are slow or missing. "
            "Copy a dataset to a local disk before training on it."
        )
    elif kind == "overlay":
        notes.append(
            f"{folder} is in the container's own layer (overlay), which is slow to write to and is deleted with the "
            "container. Mount a volume: docker run --volume."
        )
    rows = [
        ("folder", str(folder)),
        ("file system", kind or "unknown"),
        ("free", f"{gigabytes(free)} of {gigabytes(total)}"),
    ]
    if write and read:
        source = " from memory" if kind in _MEMORY else ""
        rows.append(("speed", f"writes {write:,.0f} MB/s, reads {read:,.0f} MB/s{source}"))
    facts = {
        "folder": str(folder),
        "file_system": kind,
        "free_bytes": free,
        "total_bytes": total,
        "write_mb_per_s": round(write, 1) if write else None,
        "read_mb_per_s": round(read, 1) if read else None,
    }
    return CheckResult(title="disk", facts=facts, rows=tuple(rows), problems=tuple(problems), notes=tuple(notes))


def network_kind(kind: str | None) -> bool:
    """Tell whether a file system of this kind sends each read to another machine or to another program."""
    return kind is not None and (kind in _NETWORK or kind.startswith("fuse."))


def disk_speed(folder: Path) -> tuple[float, float]:
    """Write up to 64 MB to `folder` for about half a second, and read them; return MB/s written and read.

    Each 8 MB are synchronized to the disk before the next, and dropped from the page cache before they are read. The
    file has no name (O_TMPFILE, or unlinked at once), so nothing remains of it even after a crash.

    Raises:
        OSError: the folder cannot be written to.
    """
    chunk = memoryview(os.urandom(_CHUNK_BYTES))  # some file systems compress
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        begun = time.perf_counter()
        num_chunks = 0
        while num_chunks < _MAX_CHUNKS and (time.perf_counter() - begun < _WRITING_S or not num_chunks):
            written = 0
            while written < _CHUNK_BYTES:
                written += os.write(file.fileno(), chunk[written:])
            os.fdatasync(file.fileno())
            num_chunks += 1
        write_s = time.perf_counter() - begun
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        begun = time.perf_counter()
        num_read = 0
        while time.perf_counter() - begun < _WRITING_S and (data := os.read(file.fileno(), 1 << 20)):
            num_read += len(data)
        read_s = time.perf_counter() - begun
    return num_chunks * _CHUNK_BYTES / write_s / 1e6, num_read / read_s / 1e6


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of a folder's file system, as `mount` names it; None if it is unknown."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    where = folder.resolve()
    best, kind = Path(), None
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        # Of several file systems mounted over each other, the last one counts.
        if (where == point or point in where.parents) and len(point.parts) >= len(best.parts):
            best, kind = point, right.split()[0]
    return kind
