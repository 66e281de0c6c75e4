"""Runs the plan's tasks on Ray: a task per shard, on this machine or on a cluster whose nodes come and go.

Ray starts tasks where there is a free core. What it does not do is done here. A task whose node died or fell silent is
given again, since its shard appears under its name only when it is complete, and both attempts write the same bytes. A
node that has other versions, or sees other folders, is refused before any work. Ray is the extra `ray`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError, SimimgError, UsageError
from tfrecords.convert.sources import printable
from tfrecords.convert.sources.read_errors import read_file
from tfrecords.convert.workers import ray_worker
from tfrecords.convert.workers.pool import Runner, death
from tfrecords.convert.workers.ray_worker import Agreement, Sign
from tfrecords.convert.workers.receipt_watch import ReceiptWatch
from tfrecords.convert.workers.shard_worker import Task, not_there, pack
from tfrecords.format.atomic_files import TEMPORARY
from tfrecords.format.quarantine import Refusal
from tfrecords.machine_limits import num_cores

_POLL_S = 0.2
_CONNECT_S = 10.0
_CHECK_S = 60.0  # for the nodes to say whether they can work
_SILENT_S = 60.0  # after which a task without a sign of life is given again
_STOP_S = 20.0  # for tasks to remove their unfinished shards
_CRASHES = 3  # times that a task may end its worker before it is given up
_STORE_BYTES = 100 << 20  # no pixels go through Ray's store


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
        ray = _ray()
        if not ray.is_initialized():
            self._is_ours = True
            _connect(self._address, self._num_workers or num_cores())
        here = _on_node(ray.get_runtime_context().get_node_id())
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
        with _agreement(first) as agreement:
            _check_nodes(agreement)
            _Run(self, agreement, on_done, on_progress).run(itertools.chain([first], tasks))

    def room(self) -> int:
        """Return how many tasks are given to Ray at a time; more than run, so that no core waits."""
        if self._num_workers:
            return self._num_workers
        return 2 * int(_ray().cluster_resources().get("CPU", 0))

    def has_free_core(self) -> bool:
        """Return whether a core of the cluster waits for a task."""
        return bool(_ray().available_resources().get("CPU", 0) >= 1)

    def submit(self, element: bytes, agreement: Agreement, node_id: str = "") -> tuple[Any, int]:
        """Give a task to Ray, or to one of its nodes; return its handle and the number of this attempt."""
        attempt = next(self._attempts)
        task = self._task.options(**_on_node(node_id)) if node_id else self._task
        return task.remote(element, attempt, self._board, agreement), attempt

    def signs(self) -> dict[int, tuple[float, Sign]]:
        """Return the last signs of attempts and how old they are, in seconds; none if the board does not answer."""
        ray = _ray()
        try:
            found: dict[int, tuple[float, Sign]] = ray.get(self._board.read.remote(), timeout=5 * _POLL_S)
        except ray.exceptions.RayError:
            return {}
        return found

    def forget(self, attempt: int) -> None:
        """Drop what is known of an attempt."""
        self._board.forget.remote(attempt)

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            _ray().shutdown()
        self._board = None


@dataclasses.dataclass
class _Attempt:
    """A task that was given to Ray: to the node `node_id`, "" if that is not known. It was given, or last heard of, at
    `heard` by time.monotonic().
    """

    number: int
    task: Task
    node_id: str
    heard: float


class _Run:
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
        self._silent: set[str] = set()  # nodes that did not answer
        self._turns = itertools.count()
        self._crashes = Counter[Path]()
        self._signs: dict[int, tuple[float, Sign]] = {}

    def run(self, tasks: Iterator[Task]) -> None:
        """Run the tasks; after an error none goes on."""
        ray = _ray()
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
                ended, _ = ray.wait(list(self._running), timeout=_POLL_S)
                self._signs = self._runner.signs()
                for handle in ended:
                    self._take(handle)
                self._give_again()
                self._report()
        except BaseException:
            self._stop()
            raise

    def _give(self, task: Task, *, again: bool = False) -> None:
        """Give a task to Ray. Another attempt is for a node that is chosen here: Ray itself may wait for a machine that
        hangs, for as long as it hangs, with all tasks that could run anywhere.
        """
        node_id = self._chosen_node() if again else ""
        handle, number = self._runner.submit(pack(task), self._agreement, node_id)
        self._running[handle] = _Attempt(number, task, node_id, time.monotonic())

    def _chosen_node(self) -> str:
        """Return the next of the nodes, without those that fell silent if there are others; "" if there is none."""
        nodes = list(_nodes())
        sound = [node_id for node_id in nodes if node_id not in self._silent] or nodes
        return sound[next(self._turns) % len(sound)] if sound else ""

    def _take(self, handle: Any) -> None:
        """Take the result of an attempt that ended; give its task again if its node or its worker died."""
        ray = _ray()
        attempt = self._running.pop(handle)
        task = attempt.task
        self._runner.forget(attempt.number)
        try:
            ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            raise _explained(error) from error
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            self._crashes[task.shard] += 1
            if self._crashes[task.shard] == _CRASHES:
                raise self._death(attempt) from None
            self._give(task, again=True)
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise ConversionError(f"Ray cannot start workers: {printable(str(error)).rstrip('.')}.") from None
        except ray.exceptions.RayError:  # its node died, or it was given up there
            self._give(task, again=True)
        else:
            self._finished.waiting.append(task)
            self._finished.settle()
            if self._finished.waiting:
                raise not_there(task.shard)

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
            if now - attempt.heard > _SILENT_S and (is_known or self._runner.has_free_core()):
                self._silent.add(attempt.node_id)
                _ray().cancel(handle, force=True)  # if it can be reached at all
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
        ray = _ray()
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


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--engine=ray needs Ray. Install it with: pip install 'simimg-tf[ray]'") from None
    return ray


def _connect(address: str, num_cores: int) -> None:
    ray = _ray()
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray_address={address}: Ray's client does not run tasks as the cluster does. Give the command on a "
            "machine of the cluster, with --ray_address=auto."
        )
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:  # workers import what this process does
        code = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        options |= {"num_cpus": num_cores, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        options |= {"runtime_env": {"env_vars": code}}
    wanted = f"--ray_address={address}" if address else "Ray cannot start on this machine"
    try:
        if address not in ("", "auto"):  # where nothing answers, Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal():
                raise UsageError(f"{wanted}: should be HOST:PORT, as in 10.0.0.1:6379, or auto.")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        ray.init(address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        advice = (
            " Start a cluster with: ray start --head; then join its other machines with: ray start --address=HOST:6379"
        )
        raise UsageError(f"{wanted}: {reason}.{advice if address else ''}") from None


@contextmanager
def _agreement(task: Task) -> Iterator[Agreement]:
    """Yield what each node has to agree to, with a file in the folder of the shards that they have to see."""
    folder = task.handover or str(task.shard.parent)
    name = f".{secrets.token_hex(8)}{TEMPORARY}probe"
    agreement = Agreement(ray_worker.versions(), folder, name, _sample(task))
    if task.handover:  # each node puts it, and all of it is removed at the end
        yield agreement
        return
    probe = Path(folder, name)
    probe.touch()
    try:
        yield agreement
    finally:
        probe.unlink(missing_ok=True)


def _sample(task: Task) -> tuple[Any, str, tuple[int, int, int] | None, bytes] | None:
    for files, path, place in task.files_read():
        with suppress(Refusal):
            return files, path, place, hashlib.sha256(read_file(files, path, place)).digest()
    return None


def _check_nodes(agreement: Agreement) -> None:
    """Raise ConversionError if a node cannot work for this process."""
    ray = _ray()
    check = ray.remote(num_cpus=0, max_retries=0)(ray_worker.check_node)
    nodes = _nodes()
    asked = {check.options(**_on_node(name)).remote(agreement): node for name, node in nodes.items()}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_S) if asked else ([], [])
    for handle in answered:
        try:
            name, reason = ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            reason = str(error.cause or error).strip().splitlines()[-1].rstrip(".")
            raise ConversionError(
                f"the Ray node {asked[handle]['NodeManagerAddress']} cannot run simimg: {reason}. Install the same "
                "version there as here."
            ) from None
        except ray.exceptions.RayError:  # it died meanwhile
            continue
        if reason:
            raise ConversionError(f"the Ray node {name} {reason}.")


def _nodes() -> dict[str, dict[str, Any]]:
    """Return what Ray knows of the nodes that are alive and have cores, by their ids."""
    return {node["NodeID"]: node for node in _ray().nodes() if node["Alive"] and node["Resources"].get("CPU")}


def _on_node(node_id: str) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _explained(error: Any) -> SimimgError:
    """Return a task's error as one sentence, without Ray's traceback."""
    cause = error.cause
    if isinstance(cause, SimimgError):
        return cause
    last = str(error).strip().splitlines()[-1] if cause is None else f"{type(cause).__name__}: {cause}"
    return ConversionError(
        f"Ray could not finish: {printable(last).rstrip('.')}. Finished shards are kept; give the same command again."
    )
