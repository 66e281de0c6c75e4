"""What an Apache Beam worker does: the plan's tasks; and how the workers of a local run are stopped.

A local run has a folder: its workers stop when `GO` is no longer there, and each has a file with the row of the source
that it is on, so that its parent can tell where it died. Workers of a cluster are the cluster's to stop.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from tfrecords.convert.workers.pool import Task
from tfrecords.convert.workers.shard_worker import Monitor, Stopped

__all__ = ["END_S", "GO", "ROW", "STOP_S", "pack", "run_task", "work_here"]

GO = "go"
ROW = ".row"  # after a worker's process id
# How long a worker may take to notice that it should stop: it asks before each picture.
STOP_S = 60.0
# How long Beam may take after that to end it in order.
END_S = 5.0

_POLL_S = 0.1
_IDLE = (-1).to_bytes(8, "little", signed=True)

_stopping = threading.Event()  # set in a local worker that should stop
_go: Path | None = None  # a local worker removes it when it fails, which stops the others
_row: Any = bytearray(_IDLE)  # the row that this process is on; a local worker shares it with its parent


def pack(task: Task) -> bytes:
    """Returns a task as an element: bytes, because Beam has its own ideas of how a dataclass travels."""
    return zlib.compress(pickle.dumps(task))


def run_task(element: bytes) -> None:
    """Does what an element says.

    Raises:
        ConversionError: the task failed.
    """
    if _stopping.is_set():
        return
    task: Task = pickle.loads(zlib.decompress(element))
    try:
        task.begin(_Noting())()
    except Stopped:  # no error, or it might be taken for the one that stopped all
        return
    except BaseException:
        if _go is not None:
            _go.unlink(missing_ok=True)
        raise
    finally:
        _note(-1)


def work_here(folder: str, parent: int) -> None:
    """Runs a local worker until its parent says so, or ends; the main function of its process."""
    global _go, _row
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _go = Path(folder, GO)
    with open(Path(folder, f"{os.getpid()}{ROW}"), "w+b") as file:
        file.write(_IDLE)
        file.flush()
        _row = mmap.mmap(file.fileno(), len(_IDLE))
    threading.Thread(target=_watch_parent, args=(_go, parent), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


class _Noting(Monitor):
    """Counts for Beam's own displays, and stops where a local run should."""

    def __init__(self) -> None:
        from apache_beam.metrics import Metrics

        self._done = Metrics.counter("simimg", "num_done")
        self._refused = Metrics.counter("simimg", "num_refused")

    def begin(self, row: int) -> None:
        if _stopping.is_set():
            raise Stopped
        _note(row)

    def end(self, *, refused: bool) -> None:
        self._done.inc()
        self._refused.inc(int(refused))


def _note(row: int) -> None:
    _row[:] = row.to_bytes(len(_IDLE), "little", signed=True)


def _watch_parent(go: Path, parent: int) -> None:
    while go.exists() and os.getppid() == parent:
        time.sleep(_POLL_S)
    _stopping.set()
    deadline = time.monotonic() + STOP_S
    while _row[:] != _IDLE and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    time.sleep(END_S)
    os._exit(1)
