"""A pool of worker processes that write shards: progress as they go, a clean stop, no orphans.

Workers are spawned, not forked, so they hold nothing of the parent and start in a fraction of a second; they ignore
Ctrl-C, which is the parent's to handle, and exit by themselves when the parent dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tfrecords.convert.worker import Receipt, ShardTask, Stopped, convert_shard
from tfrecords.errors import ConversionError

__all__ = ["num_cores", "run_pool"]

_POLL_S = 0.1

# Set in a worker by `_start_worker`: files done, files refused, stop (0 or 1).
_counters: Any = None


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pool(
    tasks: Sequence[ShardTask],
    num_workers: int,
    on_receipt: Callable[[Receipt], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Runs `tasks` in `num_workers` processes, or in this one if that is 1.

    Args:
        tasks: the shards to write.
        num_workers: at least 1.
        on_receipt: called in this process with each finished shard.
        on_progress: called some ten times a second with the files done and refused so far.

    Raises:
        KeyboardInterrupt: Ctrl-C; the workers have ended and left no unfinished shard.
        ConversionError: a shard cannot be written, or a worker died.
    """
    if num_workers == 1 or len(tasks) <= 1:
        _run_here(tasks, on_receipt, on_progress)
        return
    context = multiprocessing.get_context("spawn")
    counters = context.Array("q", 3)
    executor = ProcessPoolExecutor(
        min(num_workers, len(tasks)), mp_context=context, initializer=_start_worker, initargs=(counters,)
    )
    progress: Any = counters.get_obj()  # without its lock, which a worker that was killed may hold for ever
    try:
        running = _submit_all(executor, tasks)
        while running:
            done, running = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                on_receipt(future.result())
            on_progress(progress[0], progress[1])
    except BrokenProcessPool:
        raise ConversionError(
            "a worker process died (killed, or out of memory). What is finished stays; give the same command again, "
            "with fewer --num_workers if memory was short."
        ) from None
    finally:
        progress[2] = 1
        executor.shutdown(wait=True, cancel_futures=True)


def _submit_all(executor: ProcessPoolExecutor, tasks: Sequence[ShardTask]) -> set[Future[Receipt]]:
    try:
        with _interrupts_ignored():  # inherited by the workers, whose first moments Ctrl-C would otherwise hit
            return {executor.submit(_run_task, task) for task in tasks}
    except OSError as error:  # no process to be had, or it died at once: "handle is closed", a broken pipe
        raise ConversionError(
            f"worker processes cannot be started: {error}. Give the same command again with --num_workers=1."
        ) from None


def _run_here(
    tasks: Sequence[ShardTask], on_receipt: Callable[[Receipt], None], on_progress: Callable[[int, int], None]
) -> None:
    counts = [0, 0]

    def advance(refused: bool) -> None:
        counts[0] += 1
        counts[1] += refused
        on_progress(counts[0], counts[1])

    for task in tasks:
        on_receipt(convert_shard(task, advance, lambda: False))


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers, and only it gets Ctrl-C
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start_worker(counters: Any) -> None:
    global _counters
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_task(task: ShardTask) -> Receipt:
    def advance(refused: bool) -> None:
        with _counters.get_lock():
            _counters[0] += 1
            _counters[1] += refused

    try:
        return convert_shard(task, advance, lambda: bool(_counters[2]))
    except Stopped:
        raise ConversionError("stopped") from None
