"""One long piece of work at a time in a thread of its own, with its progress; stopped when the server ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from simimg.errors import SimimgError

__all__ = ["BackgroundJob", "Stopped"]

_Progress = Callable[[int], object]


class Stopped(Exception):
    """Raised by the progress of a job that is to end."""


class BackgroundJob:
    """Work that is started once and asked after from any thread: `idle`, `running`, `done` or `failed`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.result: Any = None
        self._lock = threading.Lock()
        self._state, self._done, self._total, self._error = "idle", 0, 0, ""
        self._stop = threading.Event()

    def start(self, work: Callable[[_Progress], Any], total: int) -> None:
        """Starts the work, unless it is running: `work(progress)` gives the result, and tells progress in steps."""
        with self._lock:
            if self._state == "running":
                return
            self._state, self._done, self._total, self._error = "running", 0, total, ""
            threading.Thread(target=self._run, args=(work,), name=self.name, daemon=True).start()

    def described(self) -> dict[str, Any]:
        """Returns the state as JSON has it: `state`, `done` of `total` steps, and `error`, a sentence or empty."""
        with self._lock:
            return {"state": self._state, "done": self._done, "total": self._total, "error": self._error}

    def stop(self) -> None:
        """Has the work end at its next step."""
        self._stop.set()

    def _run(self, work: Callable[[_Progress], Any]) -> None:
        try:
            result, state, error = work(self._progress), "done", ""
        except Stopped:
            result, state, error = None, "idle", ""
        except (SimimgError, OSError, MemoryError) as failure:
            result, state, error = None, "failed", str(failure) or type(failure).__name__
        except Exception as failure:  # told to whoever asks: nobody waits for this thread
            result, state, error = None, "failed", f"{type(failure).__name__}: {failure}"
        with self._lock:
            if state == "done":
                self.result = result
            self._state, self._error = state, error

    def _progress(self, steps: int) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self._done += steps
