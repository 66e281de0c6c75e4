"""Timing of what runs in this process, a turn of a second at a time; a device is waited for at the end of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg.bench.converters.tool_server import cpu_seconds
from simimg.bench.measurements import Run

__all__ = ["repeating", "timed", "wait_for"]

_MIN_TURN_S = 1.0
_MIN_CALLS = 3


def repeating(call: Callable[[], Any], num_images: int) -> Callable[[], Run]:
    """Returns what takes a turn of `call`, which returns tensors, or a structure of them, for so many pictures."""
    last: list[Any] = []

    def once() -> int:
        last[:] = [call()]
        return num_images

    return lambda: timed(once, lambda: wait_for(last))


def timed(once: Callable[[], int], wait: Callable[[], None] = lambda: None) -> Run:
    """Calls `once`, which returns its number of pictures, for a second at least; `wait` is for what is under way."""
    cpu_start, start = cpu_seconds(), time.perf_counter()
    num_images = num_calls = 0
    while num_calls < _MIN_CALLS or time.perf_counter() - start < _MIN_TURN_S:
        num_images += once()
        num_calls += 1
    wait()
    return Run(time.perf_counter() - start, num_images, 0, cpu_seconds() - cpu_start)


def wait_for(result: Any) -> None:
    """Returns when devices have computed the tensors in a structure, the parts of replicas included."""
    for part in tf.nest.flatten(result):
        for tensor in getattr(part, "values", (part,)):
            tensor.numpy()
