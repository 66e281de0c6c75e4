"""Apache Beam's workers on this machine: processes that stop when they should, and whose death is noticed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfrecords.base_errors import ConversionError
from tfrecords.convert.sources import printable
from tfrecords.convert.workers.beam_worker import END_S, ERROR, GO, ROW, STOP_S
from tfrecords.convert.workers.receipt_watch import ReceiptWatch
from tfrecords.convert.workers.runner import death
from tfrecords.convert.workers.shard_worker import ShardTask, Task

POLL_S = 0.5
_LOG = ".log"  # ends the name of the file with what a local worker printed; the name begins with its process id


def local_runner(folder: str) -> Any:
    """Return Beam's runner of worker processes on this machine. It is chosen explicitly because Beam's default
    downloads another one.
    """
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    code = (
        f"import sys; sys.path[:] = {sys.path}; "
        f"from tfrecords.convert.workers.beam_worker import work_here; work_here({folder!r}, {os.getpid()})"
    )
    words = (sys.executable, "-c", code)
    # No shell process in between: $$ is the worker's own id. One file each, because two that die at once would write
    # into each other's last line.
    command = f"exec {shlex.join(words)} >>{shlex.quote(folder)}/$${_LOG} 2>&1"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def run_here(pipeline: Any, folder: Path, todo: list[Task], watch: ReceiptWatch) -> BaseException | None:
    """Run the pipeline in worker processes of this machine; return the first failed task's error, or Beam's.

    Raises:
        ConversionError: a worker died.
    """
    go = folder / GO
    go.touch()
    with _deaths() as deaths:
        job = Job(lambda: pipeline.run().wait_until_finish())
        try:
            while job.is_alive() and not deaths:
                job.join(POLL_S)
                watch.look()
        finally:
            go.unlink(missing_ok=True)
            failed = sorted(folder.glob(f"*{ERROR}"), key=os.path.getmtime)
            job.join(END_S if deaths and not failed else STOP_S)
    if failed:  # a worker that ends after its task failed did not die
        return RuntimeError(failed[0].read_text(errors="replace"))
    if deaths and (job.is_alive() or job.error is not None):  # Beam itself would wait for that worker forever
        raise _death(deaths[0], folder, todo)
    return job.error


class Job(threading.Thread):
    """Waits for Beam in a thread that does not get Ctrl-C; neither do the threads and processes that it starts."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        super().__init__(name="beam", daemon=True)
        self._wait = wait
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Wait, and keep the result."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.value = self._wait()
        except BaseException as error:
            self.error = error


def _death(error: BaseException, folder: Path, todo: list[Task]) -> ConversionError:
    """Return the error about a local worker that died, with the file that it was converting."""
    code = int(found[0]) if (found := re.findall(r"-?\d+$", str(error))) else 0
    said = [path.read_text(errors="replace").strip() for path in _of_the_dead(folder, _LOG)]
    rows = [int.from_bytes(path.read_bytes(), "little", signed=True) for path in _of_the_dead(folder, ROW)]
    where = next((f": {text.splitlines()[-1]}" for text in said if text), "")
    where = next((f" while it converted {_name(row, todo)}" for row in rows if row >= 0), where)
    return death("a Beam worker process", code, where, "--direct_num_workers")


def _of_the_dead(folder: Path, suffix: str) -> list[Path]:
    """Return the files of workers that are no longer there; their names begin with the process id."""
    return [path for path in sorted(folder.glob(f"*{suffix}")) if not _is_alive(int(path.stem))]


def _is_alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _name(row: int, todo: list[Task]) -> str:
    for task in todo:
        if isinstance(task, ShardTask) and (found := (task.rows == row).nonzero()[0]).size:
            return printable(task.paths[int(found[0])])
    return f"row {row}"


@contextmanager
def _deaths() -> Iterator[list[BaseException]]:
    """Collect the errors of Beam's threads that wait for local workers, and drop its other threads' reports of the
    same.
    """
    deaths: list[BaseException] = []
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread is not None else ""
        if name == "run_worker" and arguments.exc_value is not None:
            deaths.append(arguments.exc_value)
        elif not name.startswith("beam"):
            before(arguments)

    threading.excepthook = hook
    try:
        yield deaths
    finally:
        threading.excepthook = before
