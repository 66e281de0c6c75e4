"""Handles Ctrl-C, SIGTERM and the end of a terminal: as an event that a loop checks between two steps, or so that
temporary files are removed.

A module of its own because training, the search page, the data service and temporary indexes share it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM or SIGHUP sets; a second signal raises KeyboardInterrupt at once.

    SIGHUP, the end of the terminal, stays ignored under `nohup`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set signal handlers
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, *_ends())}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, as Ctrl-C raises KeyboardInterrupt, so that temporary files are removed.

    Without effect outside the main thread, and for signals that the program handles in its own way or ignores.
    """
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in _ends() if is_main and signal.getsignal(number) is signal.SIG_DFL]

    def handle(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _ends() -> list[signal.Signals]:
    """Return the signals, beside Ctrl-C, that ask a process to end; under `nohup`, the end of the terminal does not."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hangup]
