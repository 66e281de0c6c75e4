"""A pool of worker processes that write shards: with progress, a clean stop, and no orphans.

Workers hold nothing of the parent: they are forked from a small server that has imported what they need. Only the
parent handles Ctrl-C; workers block it from their first instruction on. A worker that dies is noticed at once, with the
file that it was converting. Workers exit by themselves when the parent dies.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.workers.shard_worker import Monitor, Stopped, Task

_POLL_S = 0.1
# Maximum time for a worker to notice that it should stop; it checks before each image.
_STOP_S = 60.0
# Maximum time for the system to end a worker that did not, for each of them.
_KILL_S = 0.2
_MAIN_MODULE = "tfrecords.convert.workers.shard_worker"

# Each worker has its own numbers in shared memory, so no worker waits for another; these are their indices.
_DONE, _REFUSED, _ROW, _STOP = range(4)


def death(worker: str, exit_code: int | None, where: str, flag: str = "--num_workers") -> ConversionError:
    """Return the error about a worker process that died.

    `exit_code` is negative if a signal ended it, as in `multiprocessing`, and None if it is not known; `where` is the
    rest of the sentence, what it was doing or what it printed last; `flag` is the option that sets the number of
    workers.
    """
    how = ""
    if exit_code is not None:
        how = f" ({signal.Signals(-exit_code).name if exit_code < 0 else f'exit code {exit_code}'})"
    if exit_code == -signal.SIGKILL:
        how = " (SIGKILL, which is also what the system sends when memory runs out)"
    return ConversionError(
        f"{worker} died{how}{where}. Finished shards are kept. Give the same command again, with fewer {flag} if "
        "memory ran out. If a worker dies on the same file again, move that file away."
    )


class Runner(AbstractContextManager["Runner"]):
    """Runs tasks until the end of its block. This base class has no workers to start or to end.

    Attributes:
        gives_gpus: whether each task has a GPU, or a share of one.
    """

    gives_gpus = False

    def start(self, num_workers: int) -> None:
        """Start up to this many workers in the background, if they are not started elsewhere."""

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks` and return when all of them are done.

        Args:
            tasks: the pieces of work.
            on_done: called in this process with each finished task.
            on_progress: called several times per second with the numbers of files done and rejected so far, in these
                tasks.

        Raises:
            KeyboardInterrupt: Ctrl-C. Local workers have ended, or will with the block, without an unfinished shard.
            ConversionError: a task failed, or a worker died.
        """
        raise NotImplementedError

    def dismiss(self) -> None:
        """Tell the workers to end, now that all tasks are done, without waiting for them."""

    def __exit__(self, *_: object) -> None:
        """End the workers; a shard that one of them is writing is removed."""


class Pool(Runner):
    """Processes that run tasks; they end with the block.

    There are at most `num_workers`; with 1, tasks run in this process. `name_of` returns the path of a row of the
    source, for the error about a worker that died.
    """

    def __init__(self, num_workers: int, name_of: Callable[[int], str]) -> None:
        self._num_workers = num_workers
        self._name_of = name_of
        self._starter = ThreadPoolExecutor(1)
        self._starting: list[Future[_Worker]] = []
        self._started: list[_Worker] = []  # kept by the starting thread, which Ctrl-C cannot interrupt
        self._workers: list[_Worker] = []

    def start(self, num_workers: int) -> None:
        """Start this many workers, limited by the pool's size."""
        while 1 < self._num_workers > len(self._starting) < num_workers:
            self._starting.append(self._starter.submit(self._start_one))

    def _start_one(self) -> _Worker:
        worker = _Worker()
        self._started.append(worker)
        return worker

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks`, each of which is taken after the one before was given to a free worker.

        After an error the pool cannot be used again: the workers are told to stop.
        """
        if self._num_workers == 1:
            monitor = _Slots([0, 0, -1, 0], on_progress)
            for task in tasks:
                task.run(monitor)
                on_done(task)
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
                finished.append(worker.take(self._name_of))
                if following is not None:
                    worker.give(following)
                    following = next(tasks, None)
                else:
                    del busy[worker.connection]
            for task in finished:
                on_done(task)
            for worker in busy.values():
                # It is dead, although something else keeps its pipe open.
                if worker.sentinel in ready and not worker.connection.poll():
                    raise worker.death(self._name_of)
            done, refused = self._counts()
            on_progress(done - done_before, refused - refused_before)

    def _counts(self) -> tuple[int, int]:
        return sum(w.slots[_DONE] for w in self._workers), sum(w.slots[_REFUSED] for w in self._workers)

    def dismiss(self) -> None:
        """Tell the workers to end after their current tasks."""
        for worker in self._workers:
            worker.dismiss()

    def __exit__(self, *_: object) -> None:
        self._starter.shutdown(cancel_futures=True)
        try:
            _end(self._started, time.monotonic() + _STOP_S)
        except KeyboardInterrupt:  # the second one
            _end(self._started, time.monotonic())
            raise
        self._starting.clear()
        self._started.clear()
        self._workers.clear()


class _Worker:
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


def _end(workers: Sequence[_Worker], deadline: float) -> None:
    for worker in workers:
        worker.stop(deadline)
    for worker in workers:
        worker.end()


class _Slots(Monitor):
    """Writes progress to a worker's numbers, and reads there whether to stop; calls `on_progress` after each file."""

    def __init__(self, slots: Any, on_progress: Callable[[int, int], None] = lambda *_: None) -> None:
        self._slots = slots
        self._on_progress = on_progress

    def begin(self, row: int) -> None:
        if self._slots[_STOP]:
            raise Stopped
        self._slots[_ROW] = row

    def end(self, *, refused: bool) -> None:
        self._slots[_DONE] += 1
        self._slots[_REFUSED] += refused
        self._on_progress(self._slots[_DONE], self._slots[_REFUSED])


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
    monitor = _Slots(slots)
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
