"""Iterators over pipelines that call Python end before the interpreter does."""

import atexit
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from simimg.input import python_calls
from simimg.input.python_calls import python_call


def test_iterators_end_before_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their threads would wait for its lock for ever."""
    at_exit, calls = list[object](), list[int]()

    def note(value: np.ndarray) -> np.ndarray:
        calls.append(int(value))
        time.sleep(0.001)
        return value

    monkeypatch.setattr(atexit, "register", at_exit.append)
    python_calls._release_at_exit.cache_clear()
    numbers = tf.data.Dataset.range(100_000).map(lambda value: python_call(note, [value], tf.int64))
    assert at_exit.count(python_calls.release_iterators) == 1
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    plain = iter(numbers.prefetch(100_000))
    spread = iter(strategy.experimental_distribute_dataset(numbers.batch(2).prefetch(100_000)))
    next(plain), next(spread)
    ending = threading.Thread(target=python_calls.release_iterators)
    ending.start()
    ending.join(timeout=60)
    assert not ending.is_alive()
    num_calls = len(calls)
    time.sleep(0.2)
    assert len(calls) <= num_calls + 1
    for iterator in (plain, spread):
        with pytest.raises(AttributeError):
            next(iterator)
