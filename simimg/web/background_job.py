"""Runs one long computation at a time in its own thread, with progress; it is stopped when the server ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from simimg.errors import SimimgError

_Progress = Callable[[int], object]
_KNOWN = 0.03  # of the steps, from which on the time that is left can be told


class Stopped(Exception):
    """Raised by the progress callback of a job that has to stop."""


class BackgroundJob:
    """A computation in a thread. Its state is `idle`, `running`, `done` or `failed`. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.result: Any = None
        self._lock = threading.Lock()
        self._state, self._done, self._total, self._error = "idle", 0, 0, ""
        self._stop = threading.Event()  # for good
        self._cancelled = threading.Event()  # the work that is running
        self._started = 0.0

    def start(self, work: Callable[[_Progress], Any], total: int) -> bool:
        """Start `work(progress)`, which returns the result and reports progress in steps, unless a job is running.

        Return whether it was started.
        """
        with self._lock:
            if self._state == "running":
                return False
            self._state, self._done, self._total, self._error = "running", 0, total, ""
            self._started = time.monotonic()
            self._cancelled.clear()
            threading.Thread(target=self._run, args=(work,), name=self.name, daemon=True).start()
            return True

    def described(self) -> dict[str, Any]:
        """Return JSON values: `state`, `done` of `total` steps, and `error`, a message or empty."""
        with self._lock:
            return {"state": self._state, "done": self._done, "total": self._total, "error": self._error}

    def seconds_left(self) -> int | None:
        """Return the time that the work will still take, in s; None if nothing is running, or too little is done."""
        with self._lock:
            if self._state != "running" or not self._done >= _KNOWN * self._total > 0:
                return None
            seconds = time.monotonic() - self._started
            return round(seconds * max(0, self._total - self._done) / self._done)

    def cancel(self) -> None:
        """Stop the work that is running at its next step; another one can be started then."""
        self._cancelled.set()

    def stop(self) -> None:
        """Stop the work at its next step."""
        self._stop.set()

    def _run(self, work: Callable[[_Progress], Any]) -> None:
        state, error = "failed", ""
        try:
            self.result = work(self._progress)
            state = "done"
        except Stopped:
            state = "idle"
        except (SimimgError, OSError, MemoryError) as failure:
            error = str(failure) or type(failure).__name__
        except Exception as failure:  # reported by `described`, as no caller waits for this thread
            error = f"{type(failure).__name__}: {failure}"
        with self._lock:
            self._state, self._error = state, error

    def _progress(self, steps: int) -> None:
        if self._stop.is_set() or self._cancelled.is_set():
            raise Stopped
        with self._lock:
            self._done += steps
