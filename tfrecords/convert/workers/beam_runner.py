"""Runs the plan's tasks on Apache Beam: one element per shard, no pixels between workers, any runner.

Tasks are idempotent: a shard appears under its name only when it is complete, and writing it twice gives the same
bytes, so a runner may repeat tasks. All workers have to see the source and the data folder under the same paths. That
is also how this process learns that a task is finished: it looks for the receipts. Without a runner in its options,
Beam runs on this machine with one worker process per core. Beam is the extra `beam`.
"""

from __future__ import annotations

import importlib
import logging
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.base_errors import ConversionError, UsageError
from tfrecords.convert.workers.beam_local import POLL_S, Job, local_runner, run_here
from tfrecords.convert.workers.beam_worker import run_task
from tfrecords.convert.workers.receipt_watch import ReceiptWatch
from tfrecords.convert.workers.runner import Runner
from tfrecords.convert.workers.shard_worker import Task, pack
from tfrecords.machine_limits import num_cores


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
        watch = ReceiptWatch(todo, on_done, on_progress)
        with _quiet(), tempfile.TemporaryDirectory(prefix="simimg_beam_", ignore_cleanup_errors=True) as folder:
            pipeline, is_local = _begin(self._beam_options, folder)
            import apache_beam as beam

            _ = pipeline | "plan" >> beam.Create(elements) | beam.Reshuffle() | "write shards" >> beam.Map(run_task)
            if not is_local:
                _run_there(pipeline, watch)
            elif error := run_here(pipeline, Path(folder), todo, watch):
                raise _explained(error) from error
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

    with suppress(ImportError):  # a class, whose module has options; what is wrong with it, Beam says
        importlib.import_module("".join(re.findall(r"--runner=([\w.]+)\.\w+", text)) or "apache_beam")
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
        return beam.Pipeline(local_runner(folder) if is_local else None, options), is_local
    except (ValueError, ImportError, AttributeError) as error:  # no such runner, or a required option is missing
        refuse(" ".join(str(error).split()))


def _run_there(pipeline: Any, watch: ReceiptWatch) -> None:
    """Run the pipeline with the runner of its options, and cancel the job if this process is stopped."""
    try:
        result = pipeline.run()  # in the main thread, because runners set signal handlers
    except Exception as error:  # each runner has its own error types
        raise _explained(error) from error
    job = Job(result.wait_until_finish)
    try:
        while job.is_alive():
            job.join(POLL_S)
            watch.look()
    except BaseException:
        with suppress(Exception):
            result.cancel()
        raise
    if job.error is not None:
        raise _explained(job.error) from job.error
    if job.value in ("FAILED", "CANCELLED"):
        raise ConversionError(f"Apache Beam's job ended as {job.value}. {_ADVICE}")


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
