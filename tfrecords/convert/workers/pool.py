"""The engine of one machine: a pool of worker processes, with progress, a clean stop, and no orphans.

A worker that dies is noticed at once, with the file that it was converting.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait

from tfrecords.convert.workers.pool_worker import DONE, REFUSED, Slots, Worker
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Task

_POLL_S = 0.1
# Maximum time for a worker to notice that it should stop; it checks before each image.
_STOP_S = 60.0


class Pool(Runner):
    """Processes that run tasks; they end with the block.

    There are at most `num_workers`; with 1, tasks run in this process. `name_of` returns the path of a row of the
    source, for the error about a worker that died.
    """

    def __init__(self, num_workers: int, name_of: Callable[[int], str]) -> None:
        self._num_workers = num_workers
        self._name_of = name_of
        self._starter = ThreadPoolExecutor(1)
        self._starting: list[Future[Worker]] = []
        self._started: list[Worker] = []  # kept by the starting thread, which Ctrl-C cannot interrupt
        self._workers: list[Worker] = []

    def start(self, num_workers: int) -> None:
        """Start this many workers, limited by the pool's size."""
        while 1 < self._num_workers > len(self._starting) < num_workers:
            self._starting.append(self._starter.submit(self._start_one))

    def _start_one(self) -> Worker:
        worker = Worker()
        self._started.append(worker)
        return worker

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks`, each of which is taken after the one before was given to a free worker.

        After an error the pool cannot be used again: the workers are told to stop.
        """
        if self._num_workers == 1:
            monitor = Slots([0, 0, -1, 0], on_progress)
            for task in tasks:
                task.run(monitor)
                on_done(task)
            return
        done_before, refused_before = self._counts()
        busy: dict[Connection, Worker] = {}
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
        return sum(w.slots[DONE] for w in self._workers), sum(w.slots[REFUSED] for w in self._workers)

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


def _end(workers: Sequence[Worker], deadline: float) -> None:
    for worker in workers:
        worker.stop(deadline)
    for worker in workers:
        worker.end()
