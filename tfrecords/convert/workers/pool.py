"""A pool of worker processes that write shards: with progress, a clean stop, and no orphans.

Workers hold nothing of the parent: they are forked from a small server that has imported what they need, or spawned if
the system has no such server. Only the parent handles Ctrl-C; workers block it from their first instruction on. A
worker that dies is noticed at once, with the file that it was converting. Workers exit by themselves when the parent
dies.
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

__all__ = ["Pool", "Task", "death", "num_cores"]

_POLL_S = 0.1
# Maximum time for a worker to notice that it should stop; it checks before each image.
_STOP_S = 60.0
_BEHIND = 4  # tasks per worker that may wait for the disk
_MAIN_MODULE = "tfrecords.convert.workers.shard_worker"

# Each worker has its own numbers in shared memory, so no worker waits for another; these are their indices.
_DONE, _REFUSED, _ROW, _STOP = range(4)

# Messages of a worker: the processor's part of a task is done, and everything is on the disk.
_READY, _FINISHED = "ready", "finished"


class Task(Protocol):
    """A piece of work that is cheap to pickle: a shard to be made of some rows of the source."""

    @property
    def shard(self) -> Path:
        """Path of the shard."""

    @property
    def receipt(self) -> Path:
        """Path of its receipt."""

    @property
    def inputs(self) -> str:
        """Digest of the files that it is made from."""

    @property
    def rows(self) -> np.ndarray:
        """Its rows of the source, int64 `[num_files]`."""

    def begin(self, monitor: Monitor) -> Callable[[], None]:
        """Do the processor's part of the work, and return a function for the rest, which waits for the disk.

        Raises:
            Stopped: the monitor asked to stop.
        """


def death(worker: str, exit_code: int, where: str, flag: str = "--num_workers") -> ConversionError:
    """Return the error about a worker process that died.

    Args:
        worker: its name.
        exit_code: negative if a signal ended it, as in `multiprocessing`.
        where: the rest of the sentence: what it was doing, or what it printed last.
        flag: the option that sets the number of workers.
    """
    how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    if exit_code == -signal.SIGKILL:
        how += ", which is also what the system sends when memory runs out"
    return ConversionError(
        f"{worker} died ({how}){where}. Finished shards are kept. Give the same command again, with fewer {flag} if "
        "memory ran out. If a worker dies on the same file again, move that file away."
    )


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(AbstractContextManager["Pool"]):
    """Processes that run tasks; they end with the block.

    Args:
        num_workers: the maximum; with 1, tasks run in this process.
        name_of: returns the path of a row of the source, for the error about a worker that died.
    """

    def __init__(self, num_workers: int, name_of: Callable[[int], str]) -> None:
        self._num_workers = num_workers
        self._name_of = name_of
        self._starter = ThreadPoolExecutor(1)
        self._starting: list[Future[_Worker]] = []
        self._workers: list[_Worker] = []

    def start(self, num_workers: int) -> None:
        """Start this many workers, limited by the pool's size, in the background."""
        while 1 < self._num_workers > len(self._starting) < num_workers:
            self._starting.append(self._starter.submit(_Worker))

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks` and return when all of them are done.

        After an error the pool cannot be used again: the workers are told to stop.

        Args:
            tasks: the pieces of work; the next one is taken after the one before was given to a free worker.
            on_done: called in this process with each finished task.
            on_progress: called about ten times per second with the numbers of files done and refused so far, in these
                tasks.

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
        following = next(tasks, None) if busy else None  # prepared while the workers are busy
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
                if (
                    worker.sentinel in ready and not worker.connection.poll()
                ):  # dead, although something else keeps its pipe open
                    raise worker.death(self._name_of)
            done, refused = self._counts()
            on_progress(done - done_before, refused - refused_before)

    def _counts(self) -> tuple[int, int]:
        return sum(w.slots[_DONE] for w in self._workers), sum(w.slots[_REFUSED] for w in self._workers)

    def dismiss(self) -> None:
        """Tell the workers to end, now that all tasks are done, without waiting for them."""
        for worker in self._workers:
            worker.dismiss()

    def __exit__(self, *_: object) -> None:
        """End the workers; a shard that one of them is writing is removed."""
        self._starter.shutdown(cancel_futures=True)
        started = [future.result() for future in self._starting if not future.cancelled() and not future.exception()]
        for worker in started:
            worker.slots[_STOP] = 1
        for worker in started:
            worker.end()
        self._starting.clear()
        self._workers.clear()


class _Worker:
    """A worker process, seen from its parent. Raises ConversionError if it cannot be started."""

    def __init__(self) -> None:
        context = _context()
        self.slots: Any = context.RawArray("q", 4)
        self.slots[_ROW] = -1
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.slots), daemon=True)  # type: ignore[attr-defined]
        self.tasks: deque[Task] = deque()  # begun; all except the last wait for the disk
        try:
            with _interrupts_blocked():
                _start_server()
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
        self.tasks.append(task)
        with suppress(OSError):  # it died, which the next read from its connection reports
            self.connection.send(task)

    def take(self, name_of: Callable[[int], str]) -> Task | None:
        """Return the finished task, or None if the worker is ready for another one.

        Raises what the worker raised, or the error about its death.
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
        """Return the error that says how the worker died, and on which file."""
        self._process.join(timeout=5)
        return death(f"worker process {self._process.pid}", self._process.exitcode or 0, f" {self._where(name_of)}")

    def _where(self, name_of: Callable[[int], str]) -> str:
        row = self.slots[_ROW]
        return f"while it converted {name_of(row)}" if row >= 0 else "between two shards"

    def dismiss(self) -> None:
        """Tell the process to end after its current tasks."""
        with suppress(OSError):
            self.connection.send(None)

    def end(self) -> None:
        """Wait until the process has ended, after it was told to stop."""
        self.dismiss()
        self._process.join(timeout=_STOP_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self.connection.close()


class _Slots(Monitor):
    """Writes progress to shared memory, and reads there whether to stop."""

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
    """Reports progress after each file in this process; Ctrl-C arrives by itself."""

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
    """Start the server that workers are forked from, if the system supports it and it is not running yet."""
    context = _context()
    if context.get_start_method() == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload([_MAIN_MODULE])
        forkserver.ensure_running()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, which new processes inherit. Other threads, such as the main one, still get it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # before blocking, because it unblocks Ctrl-C when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(connection: Connection, slots: Any) -> None:
    """Run tasks until there are no more; the main function of a worker process.

    A second thread waits for the disk while this one runs the next tasks, with at most `_BEHIND` tasks behind.
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

    with suppress(EOFError, OSError), ThreadPoolExecutor(1) as disk:  # if the parent is gone, this process ends, too
        finishing: deque[Future[None]] = deque()
        while (task := connection.recv()) is not None:
            attempt(partial(run, task))


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
