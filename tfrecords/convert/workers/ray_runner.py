"""Runs tasks on Ray, a task per shard, on this machine or on a cluster whose nodes come and go. Ray is an extra.

Ray starts tasks where there is a free core. What it does not do is done beside this: nodes that differ are refused
(`ray_cluster`), and tasks whose node died or fell silent are given again (`ray_attempts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from tfrecords.convert.workers import ray_worker
from tfrecords.convert.workers.ray_attempts import POLL_S, Attempts
from tfrecords.convert.workers.ray_cluster import agreement_on, check_nodes, connect, imported_ray, on_node
from tfrecords.convert.workers.ray_worker import Agreement, Sign
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Task
from tfrecords.machine_limits import num_cores


class RayRunner(Runner):
    """Runs tasks on Ray, from the first start until the end of its block.

    `address` is that of a cluster, HOST:PORT, or `auto` for the one that this machine belongs to; "" starts Ray on this
    machine. At most `num_workers` tasks run at a time; 0 is one per core. `name_of` returns the path of a row of the
    source. Each task gets a core and `num_gpus`, which may be a fraction.
    """

    def __init__(self, address: str, num_workers: int, name_of: Callable[[int], str], *, num_gpus: float = 0.0) -> None:
        self._address, self._num_workers, self.name_of = address, num_workers, name_of
        self._num_gpus, self.gives_gpus = num_gpus, num_gpus > 0
        self.announcement = f"Ray: {f'connecting to {address}' if address else 'starting'}"
        self._is_ours = False
        self._board: Any = None
        self._task: Any = None  # as Ray calls it
        self._attempts = itertools.count()

    def start(self, num_workers: int) -> None:
        """Connect to the cluster, or start one on this machine, which takes seconds.

        Raises:
            UsageError: Ray is not installed, or no cluster of the same version answers at the address.
        """
        if self._board is not None:
            return
        ray = imported_ray()
        if not ray.is_initialized():
            self._is_ours = True
            connect(self._address, self._num_workers or num_cores())
        here = on_node(ray.get_runtime_context().get_node_id())
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(ray_worker.Board).options(**here).remote()
        remote = ray.remote(num_cpus=1, num_gpus=self._num_gpus, max_retries=0, scheduling_strategy="SPREAD")
        self._task = remote(ray_worker.run_task)

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks`, of which few more are prepared than can run at once."""
        first = next(tasks, None)
        if first is None:
            return
        self.start(1)
        with agreement_on(first) as agreement:
            check_nodes(agreement)
            Attempts(self, agreement, on_done, on_progress).run(itertools.chain([first], tasks))

    def room(self) -> int:
        """Return how many tasks are given to Ray at a time; more than run, so that no core waits."""
        if self._num_workers:
            return self._num_workers
        return 2 * int(imported_ray().cluster_resources().get("CPU", 0))

    def has_free_core(self) -> bool:
        """Return whether a core of the cluster waits for a task."""
        return bool(imported_ray().available_resources().get("CPU", 0) >= 1)

    def submit(self, element: bytes, agreement: Agreement, node_id: str = "") -> tuple[Any, int]:
        """Give a task to Ray, or to one of its nodes; return its handle and the number of this attempt."""
        attempt = next(self._attempts)
        task = self._task.options(**on_node(node_id)) if node_id else self._task
        return task.remote(element, attempt, self._board, agreement), attempt

    def signs(self) -> dict[int, tuple[float, Sign]]:
        """Return the last signs of attempts and how old they are, in seconds; none if the board does not answer."""
        ray = imported_ray()
        try:
            found: dict[int, tuple[float, Sign]] = ray.get(self._board.read.remote(), timeout=5 * POLL_S)
        except ray.exceptions.RayError:
            return {}
        return found

    def forget(self, attempt: int) -> None:
        """Drop what is known of an attempt."""
        self._board.forget.remote(attempt)

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            imported_ray().shutdown()
        self._board = None
