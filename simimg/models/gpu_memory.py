"""GPU memory that TensorFlow takes as it needs it; by default, it takes all memory of all GPUs at its first operation.

A module of its own because training, evaluation, export and inference all call it, before that operation.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import tensorflow as tf


def grow_gpu_memory() -> list[Any]:
    """Has TensorFlow take memory on the visible GPUs as it needs it, and returns these GPUs, physical devices.

    Call it before TensorFlow's first operation. Later, it changes nothing: TensorFlow has started then with the
    settings of the program that uses simimg.
    """
    gpus: list[Any] = tf.config.get_visible_devices("GPU")
    for gpu in gpus:
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus
