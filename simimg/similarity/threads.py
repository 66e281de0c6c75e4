"""NumPy's products with one thread each, for whoever divides the work among threads of its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

__all__ = ["threads_of_one"]

_lock = threading.Lock()
_open: list[Any] = []  # what undoes the limit, while anybody needs it, once for each of them


@contextmanager
def threads_of_one() -> Iterator[None]:
    """While it is open, NumPy's products take one thread each; it may be open several times, in several threads.

    A product of a pair's descriptors is small. Shared among two threads that wait for each other on a busy machine it
    took 15 ms instead of 0.4. The limit is one for the whole process, so the last one to leave lifts it.
    """
    with _lock:
        _open.append(_open[0] if _open else _blas().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _open.pop()
            if not _open:
                limit.restore_original_limits()


@functools.cache
def _blas() -> Any:
    np.zeros((1, 1)) @ np.zeros((1, 1))  # so that its library is there to be found, once: looking takes 5 ms
    return threadpoolctl.ThreadpoolController()
