"""Attempts at tasks on Ray: a task whose node died or fell silent is given again, until one attempt has finished it.

Ray itself never gives up a task on a machine that hangs.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrecords.base_errors import ConversionError, SimimgError
from tfrecords.convert.sources import printable
from tfrecords.convert.workers.ray_cluster import imported_ray, living_nodes
from tfrecords.convert.workers.ray_worker import Agreement, Sign
from tfrecords.convert.workers.receipt_watch import ReceiptWatch
from tfrecords.convert.workers.runner import death
from tfrecords.convert.workers.shard_worker import Task, not_there, pack

if TYPE_CHECKING:
    from tfrecords.convert.workers.ray_runner import RayRunner

POLL_S = 0.2
_READ_S = 1.0  # between two looks at the signs of life, each of which costs milliseconds in several processes
_SILENT_S = 60.0  # after which a task without a sign of life is given again
_MAX_DOUBLED = 3  # times that the next attempt at it may be silent for twice as long
_AVOIDED_S = 600.0  # for which a node that fell silent gets nothing, if there are others
_STOP_S = 20.0  # for tasks to remove their unfinished shards
_CRASHES = 3  # times that a task may end its worker before it is given up


@dataclasses.dataclass
class _Attempt:
    """A task that was given to Ray: to the node `node_id`, "" if that is not known. It was given, or last heard of, at
    `heard` by time.monotonic().
    """

    number: int
    task: Task
    node_id: str
    heard: float


class Attempts:
    """The tasks of one call, and the attempts at them by Ray's handles."""

    def __init__(
        self,
        runner: RayRunner,
        agreement: Agreement,
        on_done: Callable[[Task], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._runner, self._agreement = runner, agreement
        self._on_progress = on_progress
        self._finished = ReceiptWatch([], on_done)
        self._running: dict[Any, _Attempt] = {}
        self._chooses = False  # whether all tasks are for nodes that are chosen here, since one fell silent
        self._silent_at: dict[str, float] = {}  # nodes that did not answer, and when, by time.monotonic()
        self._silences = Counter[Path]()  # by shard, as a worker that takes long to start is never heard of either
        self._crashes = Counter[Path]()
        self._signs: dict[int, tuple[float, Sign]] = {}
        self._read_at = 0.0  # when the signs were read, by time.monotonic()

    def run(self, tasks: Iterator[Task]) -> None:
        """Run the tasks; after an error none goes on."""
        ray = imported_ray()
        following = next(tasks, None)
        try:
            while following is not None or self._running:
                room = self._runner.room()
                while following is not None and len(self._running) < room:
                    self._give(following)
                    following = next(tasks, None)
                if not self._running:
                    raise ConversionError(
                        "the Ray cluster has no node with a core. Start one, and give the same command again."
                    )
                if ray.wait(list(self._running), timeout=POLL_S)[0]:
                    ended, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
                    for handle in ended:
                        self._take(handle)
                if time.monotonic() - self._read_at > _READ_S:
                    self._signs = self._runner.signs()
                    self._read_at = time.monotonic()
                    self._give_again()
                    self._report()
            self._report()
        except BaseException:
            self._stop()
            raise

    def _give(self, task: Task, *, again: bool = False) -> None:
        """Give a task to Ray. Another attempt, and all tasks after a node fell silent, are for a node that is chosen
        here: Ray itself may wait for a machine that hangs, for as long as it hangs, with all that could run anywhere.
        """
        node_id = self._chosen_node() if again or self._chooses else ""
        handle, number = self._runner.submit(pack(task), self._agreement, node_id)
        self._running[handle] = _Attempt(number, task, node_id, time.monotonic())

    def _chosen_node(self) -> str:
        """Return the node with the fewest attempts per core of those that did not fall silent, or else the one that did
        so longest ago; "" if there is none.
        """
        nodes, since = living_nodes(), time.monotonic() - _AVOIDED_S
        if not (sound := [node_id for node_id in nodes if self._silent_at.get(node_id, since) <= since]):
            return min(nodes, key=self._silent_at.__getitem__, default="")
        given = Counter(attempt.node_id for attempt in self._running.values())
        return min(sound, key=lambda node_id: given[node_id] / nodes[node_id]["Resources"]["CPU"])

    def _take(self, handle: Any) -> None:
        """Take the result of an attempt that ended; give its task again if its node or its worker died."""
        ray = imported_ray()
        attempt = self._running.pop(handle)
        task = attempt.task
        try:
            ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            raise _explained(error) from error
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            self._crashes[task.shard] += 1
            if self._crashes[task.shard] == _CRASHES:
                self._signs = self._runner.signs()
                raise self._death(attempt) from None
            self._give(task, again=True)
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise ConversionError(f"Ray cannot start workers: {printable(str(error)).rstrip('.')}.") from None
        except ray.exceptions.RayError:  # its node died, or it was given up there
            self._give(task, again=True)
        else:
            self._silent_at.pop(attempt.node_id, None)
            self._finished.waiting.append(task)
            self._finished.settle()
            if self._finished.waiting:
                raise not_there(task.shard)
        self._runner.forget(attempt.number)

    def _give_again(self) -> None:
        """Give the tasks again of which nothing was heard for long, since their machine hangs or cannot be reached.

        One that was never heard of may only wait for a core.
        """
        now = time.monotonic()
        for handle, attempt in list(self._running.items()):
            is_known = attempt.number in self._signs
            if is_known:
                age, sign = self._signs[attempt.number]
                attempt.heard, attempt.node_id = now - age, sign.node_id  # the board may not answer the next time
            limit_s = _SILENT_S * 2 ** min(self._silences[attempt.task.shard], _MAX_DOUBLED)
            if now - attempt.heard > limit_s and (is_known or self._runner.has_free_core()):
                self._chooses = True
                self._silent_at[attempt.node_id] = now
                self._silences[attempt.task.shard] += 1
                imported_ray().cancel(handle, force=True)  # if it can be reached at all
                del self._running[handle]
                self._give(attempt.task, again=True)
                self._runner.forget(attempt.number)

    def _report(self) -> None:
        signs = [self._signs[one.number][1] for one in self._running.values() if one.number in self._signs]
        self._on_progress(
            self._finished.num_done + sum(sign.done for sign in signs),
            self._finished.num_refused + sum(sign.refused for sign in signs),
        )

    def _stop(self) -> None:
        """End all attempts; they remove what they have not finished."""
        ray = imported_ray()
        with suppress(ray.exceptions.RayError):
            for handle in self._running:
                ray.cancel(handle)
            _, left = ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOP_S)
            for handle in left:
                ray.cancel(handle, force=True)

    def _death(self, attempt: _Attempt) -> ConversionError:
        _, sign = self._signs.get(attempt.number, (0.0, Sign("")))
        where = f" {_CRASHES} times with {attempt.task.shard.name}"
        if sign.row >= 0:
            where += f", the last time while it converted {self._runner.name_of(sign.row)} on {sign.node}"
        return death("a Ray worker process", None, where)


def _explained(error: Any) -> SimimgError:
    """Return a task's error as one sentence, without Ray's traceback."""
    cause = error.cause
    if isinstance(cause, SimimgError):
        return cause
    last = str(error).strip().splitlines()[-1] if cause is None else f"{type(cause).__name__}: {cause}"
    return ConversionError(
        f"Ray could not finish: {printable(last).rstrip('.')}. Finished shards are kept; give the same command again."
    )
