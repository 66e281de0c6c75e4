"""A worker process of the local pool, seen from its parent and from inside.

Workers hold nothing of the parent: they are forked from a small server that has imported what they need. Only the
parent handles Ctrl-C; workers block it from their first instruction on. Workers exit by themselves when the parent
dies.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.workers.runner import death
from tfrecords.convert.workers.shard_worker import Monitor, Stopped, Task

# Maximum time for the system to end a worker that did not stop, for each of them.
_KILL_S = 0.2
_MAIN_MODULE = "tfrecords.convert.workers.shard_worker"

# Each worker has its own numbers in shared memory, so no worker waits for another; these are their indices.
DONE, REFUSED, _ROW, _STOP = range(4)


class Worker:
    """A worker process, seen from its parent. Raises ConversionError if it cannot be started."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_MAIN_MODULE])
        self.slots: Any = context.RawArray("q", 4)
        self.slots[_ROW] = -1
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.slots), daemon=True)
        self._task: Task
        try:
            with _interrupts_blocked():
                forkserver.ensure_running()
                self._process.start()
        except (OSError, EOFError) as error:  # no process can be started, or the server died
            raise ConversionError(
                f"worker processes cannot be started: {error}. Give the same command again with --num_workers=1."
            ) from None
        theirs.close()

    @property
    def sentinel(self) -> int:
        """Becomes ready when the process has ended."""
        sentinel: int = self._process.sentinel
        return sentinel

    def give(self, task: Task) -> None:
        """Send the next task."""
        self._task = task
        with suppress(OSError):  # it died, which the next read from its connection reports
            self.connection.send(task)

    def take(self, name_of: Callable[[int], str]) -> Task:
        """Return the finished task; raises what the worker raised, or the error about its death."""
        try:
            error: Exception | None = self.connection.recv()
        except (EOFError, OSError):
            raise self.death(name_of) from None
        if error is None:
            return self._task
        if not isinstance(error, SimimgError):
            error.add_note(f"in a worker process {self._where(name_of)}")
        raise error

    def death(self, name_of: Callable[[int], str]) -> ConversionError:
        """Return the error that says how the worker died, and on which file."""
        self._process.join(timeout=5)
        return death(f"worker process {self._process.pid}", self._process.exitcode or 0, f" {self._where(name_of)}")

    def _where(self, name_of: Callable[[int], str]) -> str:
        row = self.slots[_ROW]
        return f"while it converted {name_of(row)}" if row >= 0 else "between two shards"

    def dismiss(self) -> None:
        """Tell the process to end after its current task."""
        with suppress(OSError):
            self.connection.send(None)

    def stop(self, deadline: float) -> None:
        """Tell the process to stop in the middle of its task, until `deadline` by time.monotonic()."""
        self.slots[_STOP] = 1
        self._deadline = deadline
        self.dismiss()

    def end(self) -> None:
        """Wait until the process has ended, after it was told to stop; kill it if it has not by the deadline.

        All workers have the same deadline, since all of them may wait for the same disk or server. While they do, the
        system cannot end them, and nobody waits for them any more, not even the interpreter at its own end.
        """
        self._process.join(timeout=max(0.0, self._deadline - time.monotonic()))
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(timeout=_KILL_S)
        if self._process.exitcode is None:
            multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
            resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]
        self.connection.close()


class Slots(Monitor):
    """Writes progress to a worker's numbers, and reads there whether to stop; calls `on_progress` after each file."""

    def __init__(self, slots: Any, on_progress: Callable[[int, int], None] = lambda *_: None) -> None:
        self._slots = slots
        self._on_progress = on_progress

    def begin(self, row: int) -> None:
        """Note the row; raise Stopped if the worker was told to stop."""
        if self._slots[_STOP]:
            raise Stopped
        self._slots[_ROW] = row

    def end(self, *, refused: bool) -> None:
        """Count a file."""
        self._slots[DONE] += 1
        self._slots[REFUSED] += refused
        self._on_progress(self._slots[DONE], self._slots[REFUSED])


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, which new processes inherit. Other threads, such as the main one, still get it."""
    resource_tracker.ensure_running()  # before blocking, because it unblocks Ctrl-C when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(connection: Connection, slots: Any) -> None:
    """Run tasks until there are no more, and answer each with None or an error; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    monitor = Slots(slots)
    with suppress(EOFError, OSError):  # if the parent is gone, this process ends, too
        while (task := connection.recv()) is not None:
            error = _attempt(task, monitor)
            if error is None:
                slots[_ROW] = -1
            connection.send(error)


def _attempt(task: Task, monitor: Monitor) -> Exception | None:
    try:
        task.run(monitor)
    except Stopped:
        return ConversionError("stopped")
    except SimimgError as error:
        return error
    except Exception as error:
        return _portable(error)
    return None


def _portable(error: Exception) -> Exception:
    """Return an unexpected error in a form that can be sent to the parent, with its traceback."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its class may raise anything when it is pickled or unpickled
        error = RuntimeError(text.strip().rpartition("\n")[2])
    error.add_note(text)
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
