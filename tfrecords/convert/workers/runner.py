"""What an engine is: it runs tasks and reports on them. The local pool, Ray and Beam are three; `open_runner` has them.

A task is a pure function of the plan and its number. It reads what all machines see, and writes its shard and then its
receipt, each of which has its name only when it is complete. So an engine may run a task several times, even at once.
simimg/docs/cluster.md says what another engine takes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tfrecords.base_errors import ConversionError
from tfrecords.convert.workers.shard_worker import Task
from tfrecords.machine_limits import num_cores


class Runner(AbstractContextManager["Runner"]):
    """Runs tasks until the end of its block. This base class has no workers to start or to end.

    Attributes:
        gives_gpus: whether each task has a GPU, or a share of one.
        announcement: what to tell the user before `start`, if that takes seconds.
    """

    gives_gpus = False
    announcement = ""

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


def open_runner(
    engine: str,
    name_of: Callable[[int], str],
    *,
    num_workers: int = 0,
    ray_address: str = "",
    num_gpus: float = 0.0,
    beam_options: str = "",
) -> Runner:
    """Return the runner of an engine: `local`, `ray` or `beam`, whose own modules are imported only here.

    `name_of` returns the path of a row of the source, for errors; `num_workers` is 0 for one per core. The others are
    for one engine each.
    """
    if engine == "beam":
        from tfrecords.convert.workers.beam_runner import BeamRunner

        return BeamRunner(beam_options)
    if engine == "ray":
        from tfrecords.convert.workers.ray_runner import RayRunner

        return RayRunner(ray_address, num_workers, name_of, num_gpus=num_gpus)
    from tfrecords.convert.workers.pool import Pool

    return Pool(num_workers or num_cores(), name_of)
