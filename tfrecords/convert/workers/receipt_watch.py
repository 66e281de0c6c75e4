"""Finds finished tasks by their receipts, also those of other machines: in the folder that all workers share, or in the
store where they are handed over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from tfrecords.convert.sources.read_errors import machine_errors
from tfrecords.convert.state.receipts import read_info
from tfrecords.convert.workers.shard_worker import Task
from tfrecords.storage.handover import collect

_POLL_S = 0.5
# How long a file written by another machine may stay invisible here: network file systems cache missing names.
_SETTLE_S = 15.0


class ReceiptWatch:
    """Tasks whose receipts are waited for.

    Attributes:
        waiting: tasks without a receipt so far.
        num_done: files of the finished tasks.
        num_refused: those of them that were rejected.
    """

    def __init__(
        self,
        todo: Iterable[Task],
        on_done: Callable[[Task], None],
        on_progress: Callable[[int, int], None] = lambda num_done, num_refused: None,
    ) -> None:
        """Wait for the receipts of `todo`; the functions are those of `Runner.run`."""
        self.waiting = list(todo)
        self.num_done = self.num_refused = 0
        self._on_done = on_done
        self._on_progress = on_progress

    def look(self) -> None:
        """Report the tasks that have finished since the last call."""
        collect(task for task in self.waiting if task.handover)
        # One listing instead of a lookup per name: it is cheap, and it makes NFS drop its cache of missing names.
        there: set[str] = set()
        for folder in {task.receipt.parent for task in self.waiting}:
            with machine_errors(str(folder)):
                there.update(os.listdir(folder))
        self._take([task for task in self.waiting if task.receipt.name in there])

    def _take(self, finished: list[Task]) -> None:
        for task in finished:
            info = read_info(task.receipt, task.inputs, task.shard)
            if info is None:  # of an earlier call with other files
                continue
            self.waiting.remove(task)
            self.num_done += len(task.rows)
            self.num_refused += len(task.rows) - info.num_examples
            self._on_done(task)
        self._on_progress(self.num_done, self.num_refused)

    def settle(self) -> None:
        """Wait until everything that other machines have written is visible here, or the time for that is over."""
        deadline = time.monotonic() + _SETTLE_S
        collect(task for task in self.waiting if task.handover)
        self._take([task for task in self.waiting if task.receipt.exists()])  # a folder of many is not listed
        while self.waiting and time.monotonic() < deadline:
            self.look()
            time.sleep(_POLL_S if self.waiting else 0)
