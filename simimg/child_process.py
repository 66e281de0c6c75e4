"""Runs a module of simimg in a process of its own, with the packages that this process has.

The process keeps its memory, its settings and its crashes to itself: the conversion of a network needs TensorFlow, a
measurement on one core must not be one of this process, and an error in a GPU's library can end a process at once.

`run_module` runs a module once, and `run_logged` one that takes long. `run_tasks` runs a list of tasks in one process.
If a task ends or blocks the process, the tasks after it run in a new one. The module calls `serve_tasks`, and this is
the protocol:

    in  [task, task, ...]        one line of JSON on standard input
    out {"value": ...}           for each task in its order, one line: what the function returned
    out {"error": "..."}         or the error that it raised
    in  end of the file          the process ends at once: whoever started it has ended, or has all answers
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_MESSAGE_BYTES = 20_000  # at the end of standard error, where an error is
_POLL_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task.

    Attributes:
        how: `returned`; `raised` an error; `crashed`, which ended the process; `hung` until its time was up; `not run`,
            because no time was left.
        value: what it returned.
        error: the error, or how the process ended; empty if it returned.
        messages: the end of what the process wrote to standard error, if the task did not return.
        seconds: its time. The first task of a process has the start of the process and its imports in it.
    """

    how: str
    value: Any = None
    error: str = ""
    messages: str = ""
    seconds: float = 0.0


def run_module(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a module with arguments until it ends; return its exit code and what it wrote to both outputs.

    `environment` has further variables. Modules are not taken from the current folder, whose files may have the names
    of modules, unless this process takes them from there.
    """
    command, variables = _command(module, arguments, environment)
    return subprocess.run(command, capture_output=True, env=variables, cwd=folder, check=False)


def run_logged(module: str, *arguments: str, log: Path, stop: threading.Event) -> int:
    """Run a module with arguments until it ends; return its exit code, or the negative number of a signal.

    Both outputs go to the file `log`. When `stop` is set, the process gets SIGTERM, and may take its time to end. The
    module calls `end_with_stdin`, so that the process does not survive this one.
    """
    command, variables = _command(module, arguments, None)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=variables,
            start_new_session=True,  # Ctrl-C in the terminal reaches this process alone
        )
    try:
        asked = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=_POLL_S)
            if stop.is_set() and not asked:
                process.terminate()
                asked = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def end_with_stdin() -> None:
    """From now on, let this process end at once when its standard input ends, whatever its main thread does."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def last_message(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line that a process wrote to standard error; empty if there is none."""
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2]


def run_tasks(
    module: str,
    tasks: Sequence[dict[str, Any]],
    *,
    until: float,
    task_s: float = float("inf"),
    environment: Mapping[str, str] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """Run tasks one after the other, in as few processes as possible; return what became of each.

    Args:
        module: it runs `serve_tasks` when it is run.
        tasks: JSON objects.
        until: the time by `time.monotonic()` at which the running task is ended and no other is started.
        task_s: a task that takes longer is ended as hung.
        environment: further variables of the process.
        progress: called after each task.
    """
    found: list[Outcome] = []
    while len(found) < len(tasks) and time.monotonic() < until:
        for outcome in _in_one_process(module, tasks[len(found) :], until, task_s, environment):
            found.append(outcome)
            progress()
    left = len(tasks) - len(found)
    for _ in range(left):
        progress()
    return found + [Outcome(how="not run", error="no time was left")] * left


def serve_tasks(function: Callable[[dict[str, Any]], Any]) -> None:
    """Answer the tasks on standard input, in the process that `run_tasks` started.

    Whatever else is written to standard output, by native libraries too, goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tasks = json.loads(sys.stdin.readline())
    end_with_stdin()
    for task in tasks:
        try:
            answer = {"value": function(task)}
        except Exception as error:  # whatever it is, the next task can run
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _in_one_process(
    module: str, tasks: Sequence[dict[str, Any]], until: float, task_s: float, environment: Mapping[str, str] | None
) -> Iterator[Outcome]:
    """Yield the outcomes of tasks up to one that ends the process, or all of them."""
    command, variables = _command(module, (), environment)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            env=variables,
            start_new_session=True,  # what it starts ends together with it
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(list(tasks)).encode() + b"\n")
                process.stdin.flush()
            lines = _Lines(process.stdout)
            for _ in tasks:
                start = time.monotonic()
                answer = lines.next(min(until, start + task_s))
                seconds = time.monotonic() - start
                if answer is None:
                    if time.monotonic() < until:
                        yield Outcome(how="hung", error=f"no answer for {task_s:,.0f} s", seconds=seconds)
                    else:
                        yield Outcome(how="not run", error="its time was up", seconds=seconds)
                    return
                if not answer:
                    error = _ending(process.wait())
                    yield Outcome(how="crashed", error=error, messages=_end_of(messages), seconds=seconds)
                    return
                said = json.loads(answer)
                if "error" in said:
                    yield Outcome(how="raised", error=said["error"], messages=_end_of(messages), seconds=seconds)
                else:
                    yield Outcome(how="returned", value=said["value"], seconds=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _command(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None
) -> tuple[list[str], dict[str, str]]:
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
    variables = {**os.environ, "PYTHONPATH": modules, **(environment or {})}
    return [sys.executable, "-P", "-m", module, *arguments], variables


class _Lines:
    """The lines of a pipe, each waited for until a time."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._read = stream, b""

    def next(self, until: float) -> bytes | None:
        """Return the next line, b"" at the end of the stream, or None if the line does not arrive in time."""
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._stream], [], [], max(0.0, min(until - time.monotonic(), 1e6)))
            if not ready:
                return None
            part = os.read(self._stream.fileno(), 65_536)
            if not part:
                return b""
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process was ended by signal {-code}"


def _end_of(messages: IO[bytes]) -> str:
    size = messages.seek(0, os.SEEK_END)
    messages.seek(max(0, size - _MESSAGE_BYTES))
    return messages.read().decode(errors="replace")
