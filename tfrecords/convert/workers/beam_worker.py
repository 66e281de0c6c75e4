"""The part that runs in an Apache Beam worker: the tasks, and how the workers of a local run are stopped.

A local run has a folder. Its workers stop when the file `GO` disappears, and each has a file with the row of the source
that it is converting, so that the parent can say where a worker died. A worker whose task fails leaves the error there:
Beam itself hears of it only when the bundles before it have ended. A cluster stops its own workers.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tfrecords.convert.workers.shard_worker import Monitor, Stopped, unpack

GO = "go"
ROW = ".row"  # suffix; the stem is the worker's process id
ERROR = ".error"  # suffix, as ROW: the traceback of the task that failed
# Maximum time for a worker to notice that it should stop; it checks before each image.
STOP_S = 60.0
# Maximum time for Beam to end the worker after that.
END_S = 5.0

_POLL_S = 0.1
_IDLE = (-1).to_bytes(8, "little", signed=True)

_stopping = threading.Event()  # set if this local worker should stop
_go: Path | None = None  # a local worker that fails removes it, which stops the others
_row: Any = bytearray(_IDLE)  # the row that this process is converting; a local worker shares it with its parent


def run_task(element: bytes) -> None:
    """Run the task in an element; raise ConversionError if it failed."""
    if _stopping.is_set():
        return
    task = unpack(element)
    try:
        task.run_elsewhere(_Noting())
    except Stopped:  # not an error, which could be mistaken for the one that stopped all workers
        return
    except BaseException:
        if _go is not None:
            _go.with_name(f"{os.getpid()}{ERROR}").write_text(traceback.format_exc())
            _go.unlink(missing_ok=True)
        raise
    finally:
        _note(-1)


def work_here(folder: str, parent: int) -> None:
    """Run a local worker until its parent stops it or ends; the main function of its process."""
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
    """Counts files for Beam's own displays, and stops a local run."""

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
