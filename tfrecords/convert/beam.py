"""The plan's tasks on Apache Beam: one element a shard, no pixel between workers, any runner.

A task is idempotent: a shard appears under its name when it is whole, and one that is written twice has the same bytes
both times, so a runner may repeat tasks as it likes. All workers have to see the source and the data folder under the
same paths (NFS, a mounted bucket). Beam is the extra `beam`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

from tfrecords.convert.pool import Task, num_cores
from tfrecords.convert.worker import Monitor
from tfrecords.errors import ConversionError, SimimgError, UsageError

__all__ = ["run_beam"]

# Named in full, because Beam's own default first tries to download another runner.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


def run_beam(
    tasks: Iterator[Task],
    beam_options: str,
    on_done: Callable[[Task], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Runs `tasks` as one pipeline and waits until it has finished.

    Args:
        tasks: the pieces of work.
        beam_options: as for Beam's own command lines, e.g. `--runner=FlinkRunner --flink_master=host:8081`; without a
            runner, this machine's cores are used.
        on_done: called with each task when all are done.
        on_progress: not called: runners differ in what they tell before the end.

    Raises:
        UsageError: Beam is not installed, or does not know an option.
        ConversionError: a task failed, after as many attempts as the runner makes.
    """
    del on_progress
    todo = list(tasks)
    if not todo:
        return
    try:
        import apache_beam as beam
    except ImportError:
        raise UsageError(
            "--engine=beam needs Apache Beam. Install it with: pip install 'simimg-tf[beam]'"
        ) from None
    options = _pipeline_options(beam_options)
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | "plan" >> beam.Create(todo) | beam.Reshuffle() | "write shards" >> beam.Map(_run_task)
    except SimimgError:
        raise
    except Exception as error:  # each runner has its own; the worker's message is in its text
        raise ConversionError(
            f"Apache Beam could not finish: {_message(error)} What is finished stays; give the same command again."
        ) from error
    for task in todo:
        on_done(task)


def _run_task(task: Task) -> None:
    task.run(Monitor())


def _pipeline_options(text: str) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--beam_options={text}: {error}.") from None
    if not any(word.split("=")[0] == "--runner" for word in words):
        words = [
            f"--runner={_LOCAL_RUNNER}",
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={num_cores()}",
            *words,
        ]
    options = PipelineOptions(words)
    known = options.get_all_options()
    for word in words:
        name = word.removeprefix("--").split("=")[0]
        if not word.startswith("--") or name not in known and name.removeprefix("no_") not in known:
            raise UsageError(f"--beam_options: Apache Beam does not know {word!r}. Options look like --name=value.")
    return options


def _message(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [line for line in lines if "Error: " in line]
    line = (ours or lines or [type(error).__name__])[-1]
    return line.split("Error: ", 1)[-1].rstrip(".") + "."
