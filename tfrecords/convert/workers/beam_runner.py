"""Runs the plan's tasks on Apache Beam: one element per shard, no pixels between workers, any runner.

Tasks are idempotent: a shard appears under its name only when it is complete, and writing it twice gives the same
bytes, so a runner may repeat tasks. All workers have to see the source and the data folder under the same paths. That
is also how this process learns that a task is finished: it looks for the receipts. Without a runner in its options,
Beam runs on this machine with one worker process per core. Beam is the extra `beam`.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.sources import printable
from tfrecords.convert.sources.read_errors import machine_errors
from tfrecords.convert.state.receipts import read_info
from tfrecords.convert.workers.beam_worker import END_S, GO, ROW, STOP_S, run_task
from tfrecords.convert.workers.pool import Runner, death
from tfrecords.convert.workers.shard_worker import ShardTask, Task, pack
from tfrecords.machine_limits import num_cores

_POLL_S = 0.5
# How long a file written by another machine may stay invisible here: network file systems cache missing names.
_SETTLE_S = 15.0
_LOG = ".log"  # ends the name of the file with what a local worker printed; the name begins with its process id


class BeamRunner(Runner):
    """Runs tasks on Apache Beam, which starts its workers when it runs a pipeline, and ends them.

    `beam_options` are as on Beam's own command lines, e.g. `--runner=FlinkRunner --flink_master=host:8081`. Without a
    runner, this machine's cores are used.
    """

    def __init__(self, beam_options: str) -> None:
        self._beam_options = beam_options

    def run(
        self, tasks: Iterator[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        """Run `tasks` as one pipeline. A task is done when its receipt has appeared; files are counted by shards.

        A task fails if all attempts of Beam's runner fail. Ctrl-C cancels the job of a cluster.

        Raises:
            UsageError: Beam is not installed, or cannot use the options.
        """
        todo = list(tasks)
        if not todo:
            return
        elements = [pack(task) for task in todo]
        watch = _Watch(todo, on_done, on_progress)
        with _quiet(), tempfile.TemporaryDirectory(prefix="simimg_beam_", ignore_cleanup_errors=True) as folder:
            pipeline, is_local = _begin(self._beam_options, folder)
            import apache_beam as beam

            _ = pipeline | "plan" >> beam.Create(elements) | beam.Reshuffle() | "write shards" >> beam.Map(run_task)
            if is_local:
                _run_here(pipeline, Path(folder), todo, watch)
            else:
                _run_there(pipeline, watch)
        watch.settle()


def _begin(text: str, folder: str) -> tuple[Any, bool]:
    """Return an empty pipeline with the options in `text`, and whether it runs on this machine."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
    except ImportError:
        raise UsageError("--engine=beam needs Apache Beam. Install it with: pip install 'simimg-tf[beam]'") from None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--beam_options={text}: {error}.") from None

    def refuse(reason: str) -> NoReturn:
        raise UsageError(f"--beam_options={text}: {reason.strip().rstrip('.')}. Options look like --name=value.")

    parsers: list[Any] = []  # with the options of all runners; by default Beam ignores unknown options
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parsers[0].error = refuse
    _, unknown = parsers[0].parse_known_args(words)
    if unknown:
        refuse(f"unknown option {unknown[0]!r}")
    options = PipelineOptions([f"--direct_num_workers={num_cores()}", *words])
    options.view_as(SetupOptions).save_main_session = False  # workers need nothing from a user's script
    is_local = options.view_as(StandardOptions).runner is None
    try:
        return beam.Pipeline(_local_runner(folder) if is_local else None, options), is_local
    except (ValueError, ImportError, AttributeError) as error:  # no such runner, or a required option is missing
        refuse(" ".join(str(error).split()))


def _local_runner(folder: str) -> Any:
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


def _run_here(pipeline: Any, folder: Path, todo: list[Task], watch: _Watch) -> None:
    """Run the pipeline in worker processes of this machine."""
    go = folder / GO
    go.touch()
    with _deaths() as deaths:
        job = _Job(lambda: pipeline.run().wait_until_finish())
        try:
            while job.is_alive() and not deaths:
                job.join(_POLL_S)
                watch.look()
        finally:
            go.unlink(missing_ok=True)
            job.join(END_S if deaths else STOP_S)
    if deaths and (job.is_alive() or job.error is not None):  # Beam itself would wait for that worker forever
        raise _death(deaths[0], folder, todo)
    if job.error is not None:
        raise _explained(job.error) from job.error


def _run_there(pipeline: Any, watch: _Watch) -> None:
    """Run the pipeline with the runner of its options, and cancel the job if this process is stopped."""
    try:
        result = pipeline.run()  # in the main thread, because runners set signal handlers
    except Exception as error:  # each runner has its own error types
        raise _explained(error) from error
    job = _Job(result.wait_until_finish)
    try:
        while job.is_alive():
            job.join(_POLL_S)
            watch.look()
    except BaseException:
        with suppress(Exception):
            result.cancel()
        raise
    if job.error is not None:
        raise _explained(job.error) from job.error
    if job.value in ("FAILED", "CANCELLED"):
        raise ConversionError(f"Apache Beam's job ended as {job.value}. {_ADVICE}")


class _Job(threading.Thread):
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


class _Watch:
    """Finds finished tasks by the receipts in the folder that all workers share."""

    def __init__(
        self, todo: list[Task], on_done: Callable[[Task], None], on_progress: Callable[[int, int], None]
    ) -> None:
        self._waiting = list(todo)
        self._on_done = on_done
        self._on_progress = on_progress
        self._done = self._refused = 0

    def look(self) -> None:
        """Report the tasks that have finished since the last call."""
        # One listing instead of a lookup per name: it is cheap, and it makes NFS drop its cache of missing names.
        there: set[str] = set()
        for folder in {task.receipt.parent for task in self._waiting}:
            with machine_errors(str(folder)):
                there.update(os.listdir(folder))
        for task in [task for task in self._waiting if task.receipt.name in there]:
            info = read_info(task.receipt, task.inputs, task.shard)
            if info is None:  # of an earlier call with other files
                continue
            self._waiting.remove(task)
            self._done += len(task.rows)
            self._refused += len(task.rows) - info.num_examples
            self._on_done(task)
        self._on_progress(self._done, self._refused)

    def settle(self) -> None:
        """Wait until everything that other machines have written is visible here, or the time for that is over."""
        deadline = time.monotonic() + _SETTLE_S
        self.look()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            self.look()


_ADVICE = "Finished shards are kept; give the same command again."


def _explained(error: BaseException) -> ConversionError:
    """Return a runner's error as one sentence: the worker's own message if the traceback in it contains one."""
    text = str(error)
    ours = re.search(r"\btfrecords\.base_errors\.\w+: (.+?)(?: \[while running .*)?$", text, re.MULTILINE)
    if ours:
        return ConversionError(ours[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = re.sub(r" \[while running .*", "", lines[-1]) if lines else type(error).__name__
    return ConversionError(f"Apache Beam could not finish: {last.rstrip('.')}. {_ADVICE}")


def _death(error: BaseException, folder: Path, todo: list[Task]) -> ConversionError:
    """Return the error about a local worker that died, with the file that it was converting."""
    code = int(found[0]) if (found := re.findall(r"-?\d+$", str(error))) else 0
    where = ""
    for path in sorted(folder.glob(f"*{_LOG}")):
        lines = path.read_text(errors="replace").strip().splitlines()
        if lines and not _is_alive(int(path.stem)):
            where = f": {lines[-1]}"
            break
    for path in folder.glob(f"*{ROW}"):
        row = int.from_bytes(path.read_bytes(), "little", signed=True)
        if row >= 0 and not _is_alive(int(path.stem)):
            where = f" while it converted {_name(row, todo)}"
            break
    return death("a Beam worker process", code, where, "--direct_num_workers")


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Beam's logging; errors are raised as one sentence instead."""
    root, logger = logging.getLogger(), logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    root.addFilter(_not_of_beam)  # some of its messages go to the root logger
    try:
        yield
    finally:
        logger.setLevel(level)
        root.removeFilter(_not_of_beam)


def _not_of_beam(record: logging.LogRecord) -> bool:
    return "apache_beam" not in record.pathname
