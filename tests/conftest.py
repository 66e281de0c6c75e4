"""What all tests share: Ctrl-C works, also for the processes that tests start and interrupt.

A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def num_open() -> Callable[[Path], int]:
    """Counts the files at or below a path that this process has open; those of other tests do not disturb it."""

    def count(path: Path) -> int:
        opened = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since, by another thread
                opened += Path(os.readlink(descriptor)).is_relative_to(path.resolve())
        return opened

    return count
