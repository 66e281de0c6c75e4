"""A pool of worker processes that write shards: progress as they go, a clean stop, no orphans.

Workers hold nothing of the parent: they are forked from a small server that has imported what they need, or spawned
where there is no such server. Ctrl-C is the parent's to handle: it is blocked in the workers from their first
instruction on. A worker that dies is noticed at once, with the file that it was on; workers exit by themselves when the
parent dies.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.workers.shard_worker import Monitor, Stopped

__all__ = ["Pool", "Task", "num_cores"]

_POLL_S = 0.1
# How long a worker may take to notice that it should stop: it asks before each picture.
_STOP_S = 60.0
_BEHIND = 4  # tasks of a worker that wait for the disk
_MAIN_MODULE = "tfrecords.convert.workers.shard_worker"

# A row of numbers that each worker has to itself in shared memory, so that none waits for another.
_DONE, _REFUSED, _ROW, _STOP = range(4)

# What a worker says: that it has done what the processor had to do, and that all is on the disk.
_READY, _FINISHED = "ready", "finished"


class Task(Protocol):
    """A piece of work, cheap to pickle: a shard that is to be made of some rows of the source."""

    @property
    def shard(self) -> Path:
        """The shard's name."""

    @property
    def receipt(self) -> Path:
        """Its receipt's name."""

    @property
    def inputs(self) -> str:
        """A digest of what it is made of."""

    @property
    def rows(self) -> np.ndarray:
        """Its rows, int64 `[num_files]`."""

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Does what the processor has to do, and returns the rest, which waits for the disk.

        Raises:
            Stopped: the monitor said so.
        """


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(AbstractContextManager["Pool"]):
    """Processes that run tasks; they end with the block.

    Args:
        num_workers: at most; with 1, tasks run in this process.
        name_of: tells the path of a row of the source, for the message about a worker that died.
    """

    def __init__(self, num_workers: int, name_of: Callable[[int], str]) -> None:
        self._num_workers = num_workers
        self._name_of = name_of
        self._starter = ThreadPoolExecutor(1)
        self._starting: list[Future[_Worker]] = []
        self._workers: list[_Worker] = []

    def start(self, num_workers: int) -> None:
        """Starts so many workers, or as many as there may be, while the caller does something else."""
        while 1 < self._num_workers > len(self._starting) < num_workers:
            self._starting.append(self._starter.submit(_Worker))

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Runs `tasks` and returns when all are done.

        After an error the pool is of no further use: the workers are told to stop.

        Args:
            tasks: the pieces of work; one is taken when the one before was given to a worker that was free.
            on_done: called in this process with each finished task.
            on_progress: called some ten times a second with the files of these tasks done and refused so far.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            ConversionError: a shard cannot be written, or a worker died.
        """
        if self._num_workers == 1:
            _run_here(tasks, on_done, on_progress)
            return
        done_before, refused_before = self._counts()
        busy: dict[Connection, _Worker] = {}
        for number, task in enumerate(itertools.islice(tasks, self._num_workers)):
            self.start(number + 1)
            if number == len(self._workers):
                self._workers.append(self._starting[number].result())
            worker = self._workers[number]
            worker.give(task)
            busy[worker.connection] = worker
        following = next(tasks, None) if busy else None  # made while the workers are busy
        while busy:
            ready = wait([*busy, *(worker.sentinel for worker in busy.values())], timeout=_POLL_S)
            finished = []
            for worker in [busy[item] for item in ready if item in busy]:
                done_task = worker.take(self._name_of)
                if done_task is not None:
                    finished.append(done_task)
                elif following is not None:
                    worker.give(following)
                    following = next(tasks, None)
                if not worker.tasks:
                    del busy[worker.connection]
            for task in finished:
                on_done(task)
            for worker in busy.values():
                if worker.sentinel in ready and not worker.connection.poll():  # dead, though something holds its pipe
                    raise worker.death(self._name_of)
            done, refused = self._counts()
            on_progress(done - done_before, refused - refused_before)

    def _counts(self) -> tuple[int, int]:
        return sum(w.slots[_DONE] for w in self._workers), sum(w.slots[_REFUSED] for w in self._workers)

    def dismiss(self) -> None:
        """Has the workers end, now that all tasks are done, while the caller does something else."""
        for worker in self._workers:
            worker.dismiss()

    def __exit__(self, *_: object) -> None:
        """Ends the workers; one in the middle of a shard leaves nothing of it."""
        self._starter.shutdown(cancel_futures=True)
        started = [future.result() for future in self._starting if not future.cancelled() and not future.exception()]
        for worker in started:
            worker.slots[_STOP] = 1
        for worker in started:
            worker.end()
        self._starting.clear()
        self._workers.clear()


class _Worker:
    """A worker process as its parent sees it; raises ConversionError where there is none to be had."""

    def __init__(self) -> None:
        context = _context()
        self.slots: Any = context.RawArray("q", 4)
        self.slots[_ROW] = -1
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.slots), daemon=True)  # type: ignore[attr-defined]
        self.tasks: deque[Task] = deque()  # begun; all but the last wait for the disk
        try:
            with _interrupts_blocked():
                _start_server()
                self._process.start()
        except (OSError, EOFError) as error:  # no process to be had, or the server died
            raise ConversionError(
                f"worker processes cannot be started: {error}. Give the same command again with --num_workers=1."
            ) from None
        theirs.close()

    @property
    def sentinel(self) -> int:
        """Ready when the process has ended."""
        sentinel: int = self._process.sentinel
        return sentinel

    def give(self, task: Task) -> None:
        """Sends the next task."""
        self.tasks.append(task)
        with suppress(OSError):  # it died, and the next look at its connection says so
            self.connection.send(task)

    def take(self, name_of: Callable[[int], str]) -> Task | None:
        """Returns the task that was finished, or None where the worker is ready for another.

        Raises what the worker raised, or that it died.
        """
        try:
            message: str | BaseException = self.connection.recv()
        except (EOFError, OSError):
            raise self.death(name_of) from None
        if isinstance(message, BaseException):
            if not isinstance(message, SimimgError):
                message.add_note(f"in a worker process {self._where(name_of)}")
            raise message
        return self.tasks.popleft() if message == _FINISHED else None

    def death(self, name_of: Callable[[int], str]) -> ConversionError:
        """Returns the error that says how the worker died, and on which file."""
        self._process.join(timeout=5)
        code = self._process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"{signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += ", which is also what the system sends when memory runs out"
        return ConversionError(
            f"worker process {self._process.pid} died ({how}) {self._where(name_of)}. What is finished stays; give the "
            "same command again, with fewer --num_workers if memory was short. If it dies on the same file, move that "
            "file away."
        )

    def _where(self, name_of: Callable[[int], str]) -> str:
        row = self.slots[_ROW]
        return f"while it converted {name_of(row)}" if row >= 0 else "between two shards"

    def dismiss(self) -> None:
        """Tells the process to end when it has done its tasks."""
        with suppress(OSError):
            self.connection.send(None)

    def end(self) -> None:
        """Waits until the process has ended; it was told to stop."""
        self.dismiss()
        self._process.join(timeout=_STOP_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self.connection.close()


class _Slots(Monitor):
    """Writes progress into shared memory, and reads there whether to stop."""

    def __init__(self, slots: Any) -> None:
        self._slots = slots

    def begin(self, row: int) -> None:
        if self._slots[_STOP]:
            raise Stopped
        self._slots[_ROW] = row

    def end(self, *, refused: bool) -> None:
        self._slots[_DONE] += 1
        self._slots[_REFUSED] += refused


class _Here(Monitor):
    """Reports progress after each file; Ctrl-C arrives by itself."""

    def __init__(self, on_progress: Callable[[int, int], None]) -> None:
        self._on_progress = on_progress
        self._done = self._refused = 0

    def end(self, *, refused: bool) -> None:
        self._done += 1
        self._refused += refused
        self._on_progress(self._done, self._refused)


def _run_here(tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]) -> None:
    monitor = _Here(on_progress)
    for task in tasks:
        task.begin(monitor)()
        on_done(task)


def _context() -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


def _start_server() -> None:
    """Starts the server that workers are forked from, if this machine has such and it does not run yet."""
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload([_MAIN_MODULE])
        forkserver.ensure_running()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Blocks Ctrl-C in this thread, which processes that are started inherit; others, as the main one, still get it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # first: it unblocks Ctrl-C when it has started
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(connection: Connection, slots: Any) -> None:
    """Runs tasks until there is none; the main function of a worker process.

    A thread waits for the disk while this one does the next tasks, but not with more than `_BEHIND` of them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    monitor = _Slots(slots)
    lock = threading.Lock()

    def tell(message: str | BaseException) -> None:
        with lock:
            connection.send(message)

    def attempt(what: Callable[[], Any]) -> Any:
        try:
            return what()
        except SimimgError as failure:
            tell(failure)
        except Stopped:
            tell(ConversionError("stopped"))
        except Exception as failure:
            tell(_portable(failure))

    def run(task: Task) -> None:
        finish = task.begin(monitor)
        slots[_ROW] = -1
        if len(finishing) == _BEHIND:
            finishing.popleft().result()
        tell(_READY)

        def end() -> None:
            finish()
            tell(_FINISHED)

        finishing.append(disk.submit(attempt, end))

    with suppress(EOFError, OSError), ThreadPoolExecutor(1) as disk:  # if the parent has gone, this process ends, too
        finishing: deque[Future[None]] = deque()
        while (task := connection.recv()) is not None:
            attempt(partial(run, task))


def _portable(error: Exception) -> Exception:
    """Returns an error that no task should raise, with its traceback, in a form that reaches the parent."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is pickled, or made again
        error = RuntimeError(text.strip().rpartition("\n")[2])
    error.add_note(text)
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
