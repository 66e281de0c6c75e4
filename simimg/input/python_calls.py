"""Operations of a pipeline that call Python, and the end of a program that has unfinished iterators over them.

A module of its own because readers and features call Python, and neither imports the other.
"""

from __future__ import annotations

import atexit
import functools
import gc
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def python_call(function: Callable[..., Any], inputs: Sequence[tf.Tensor], types: Any) -> Any:
    """Return what `tf.numpy_function` does, of a function without side effects, so that a program ends afterwards."""
    _release_at_exit()
    return tf.numpy_function(function, inputs, types, stateful=False)


@functools.cache
def _release_at_exit() -> None:
    atexit.register(release_iterators)


def release_iterators() -> None:
    """End the iterators of tf.data that the program still has.

    An iterator reads ahead, and when the interpreter is finalized it waits for its threads. One that calls Python at
    that moment never gets the interpreter's lock again, so the program would hang.
    """
    kinds = (tf.data.Iterator, tf.distribute.DistributedIterator)
    for one in gc.get_objects():
        if issubclass(type(one), kinds):
            vars(one).clear()
