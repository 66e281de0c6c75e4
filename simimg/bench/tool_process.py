"""A tool in its own process: the client of the protocol that `converters/tool_server.py` describes.

The processes of all tools of a comparison exist at the same time. They have done their imports and one run, and wait
without using the processor.
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

_LOAD_TIMEOUT_S = 600  # imports from a cold disk
_RUN_TIMEOUT_S = 3_600
_EXIT_TIMEOUT_S = 10


class ToolProcess:
    """A tool's process; leaving the context ends it and every process that it started.

    Attributes:
        about: versions and settings, as its script reports them.
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
        """Starts it and waits until it is ready. Raises RunFailed, with the reason, if it fails to start."""
        # -P: a script must not import another file of its folder in place of an installed module.
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
            start_new_session=True,  # Ctrl-C must reach us only, and its workers end together with it
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
        """Runs the job once. Raises RunFailed if the tool fails or leaves out images, and ends its process."""
        try:
            run = Run(**self._ask({}, self._timeout_s))
            if not run.num_images or run.num_images % self._num_images:
                raise RunFailed(f"{self._name} processed {run.num_images:,} of {self._num_images:,} images")
        except BaseException:
            self.close(patience_s=0)
            raise
        return run

    def close(self, *, patience_s: float = _EXIT_TIMEOUT_S) -> None:
        """Ends the process and what it started, after `patience_s` at most; a second call does nothing."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        if stdin.closed:
            return
        with contextlib.suppress(OSError):
            stdin.close()  # it reads the end of the input and exits
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
        with contextlib.suppress(OSError):  # it has ended; reading the answer reports that
            stdin.write(json.dumps(question).encode() + b"\n")
        line = b""
        deadline = time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RunFailed(f"{self._name} did not answer within {timeout_s:,.0f} s")
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
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
