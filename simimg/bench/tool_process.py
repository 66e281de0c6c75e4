"""A tool in a process of its own that runs when it is told to: this side of what `converters/tool_server.py` describes.

All tools of a comparison are alive at the same time, imported and warm, and wait without using the processor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from simimg.bench.converters import Tool, tool_server
from simimg.bench.measurements import Run, RunFailed

__all__ = ["ToolProcess"]

_LOAD_TIMEOUT_S = 600  # imports of a cold disk
_RUN_TIMEOUT_S = 3_600
_EXIT_TIMEOUT_S = 10


class ToolProcess:
    """Starts a tool's process; as a context manager, ends it and everything it started.

    Attributes:
        about: what its script says of itself: versions and settings.
    """

    def __init__(
        self,
        tool: Tool,
        python: Path,
        job: tool_server.ConvertJob | tool_server.ReadJob,
        variables: dict[str, str],
        *,
        timeout_s: float = _RUN_TIMEOUT_S,
    ) -> None:
        """Starts it and waits until it is ready. Raises RunFailed, with the reason, if it cannot get ready."""
        # -P: a script finds no other file of its own folder when it imports a module.
        command = [str(python), "-P", tool_server.__file__, str(tool.script)]
        self._name, self._num_images, self._timeout_s = tool.name, job.num_images, timeout_s
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            bufsize=0,
            cwd=job.work_dir,
            env=variables,
            start_new_session=True,  # Ctrl-C is for us, and its workers can be ended together with it
        )
        try:
            self.about = self._ask(dataclasses.asdict(job), _LOAD_TIMEOUT_S)
        except BaseException:
            self.close(patience_s=0)
            raise

    def __enter__(self) -> ToolProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self) -> Run:
        """Has the tool do the job. Raises RunFailed if it does not, or leaves out pictures; it is ended then."""
        try:
            run = Run(**self._ask({}, self._timeout_s))
            if not run.num_images or run.num_images % self._num_images:
                raise RunFailed(f"{self._name} did {run.num_images:,} of {self._num_images:,} pictures")
        except BaseException:
            self.close(patience_s=0)
            raise
        return run

    def close(self, *, patience_s: float = _EXIT_TIMEOUT_S) -> None:
        """Ends the process and what it started, at the latest after `patience_s`; a second call does nothing."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        if stdin.closed:
            return
        with contextlib.suppress(OSError):
            stdin.close()  # it reads the end and goes by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        stdout.close()
        self._messages.close()

    def _ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(OSError):  # it has ended, as the missing answer will show
            stdin.write(json.dumps(question).encode() + b"\n")
        line = b""
        deadline = time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RunFailed(f"{self._name} gave no answer for {timeout_s:,.0f} s")
            part = os.read(stdout.fileno(), 65_536)
            if not part:
                raise RunFailed(f"{self._name} ended with code {self._process.wait()}: {self._last_message()}")
            line += part
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunFailed(f"{self._name} failed: {answer['error']}")
        return answer

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
