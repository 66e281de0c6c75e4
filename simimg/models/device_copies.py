"""A network on all devices of this machine at once, for evaluation and embeddings, which have no strategy.

Each device has a copy of the weights and computes whole batches, of the same size as a single device would. So the
number of devices does not change the result, not even in the last bit on devices of one kind. The network is traced
once, with its weights as arguments, and not once per device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def compute_devices() -> list[str]:
    """Returns the names of the devices to compute on: all visible GPUs, or the CPU if there is none.

    It starts TensorFlow, so call `simimg.models.gpu_memory.grow_gpu_memory` before.
    """
    return [f"GPU:{number}" for number in range(len(tf.config.list_logical_devices("GPU")))] or ["CPU:0"]


class DeviceCopies:
    """A network in inference mode, with a copy of its weights on each of several devices.

    A call takes batches, `[n, size, size, 3]`, arrays or tensors of uint8 or float32, which may be of different
    lengths. It returns the outputs as float32 arrays, in the same order. The batch at place i is computed by device
    i modulo the number of devices, and all devices work at the same time.
    """

    def __init__(self, network: keras.Model, devices: Sequence[str]) -> None:
        """Copies the weights of `network`; later changes of them are not seen. `devices` has one name or more."""
        self._devices = tuple(devices)
        self._input_shape = network.input_shape[1:]
        variables = (network.trainable_variables, network.non_trainable_variables)
        self._weights = [[[_copy(one, device) for one in some] for some in variables] for device in self._devices]

        def forward(trainable: Any, others: Any, pixels: tf.Tensor) -> tf.Tensor:
            outputs, _ = network.stateless_call(trainable, others, tf.cast(pixels, tf.float32), training=False)
            return outputs

        self._function = tf.function(forward, autograph=False)
        self.trace: Callable[[tf.DType], Any] = functools.cache(self._trace)

    def __call__(self, batches: Sequence[Any]) -> list[np.ndarray]:
        """Returns the outputs of batches."""
        if len(self._devices) == 1 or len(batches) == 1:
            return self._computed(0, batches)
        found: list[Any] = [None] * len(batches)

        def compute(number: int) -> None:
            mine = slice(number, None, len(self._devices))
            found[mine] = self._computed(number, batches[mine])

        num_used = min(len(self._devices), len(batches))
        with ThreadPoolExecutor(num_used) as pool:  # on CPU devices, a call does not return before it is done
            list(pool.map(compute, range(num_used)))
        return found

    def _computed(self, number: int, batches: Sequence[Any]) -> list[np.ndarray]:
        with tf.device(self._devices[number]):
            pixels = [tf.convert_to_tensor(batch) for batch in batches]
            kept = [one if one.dtype == tf.uint8 else tf.cast(one, tf.float32) for one in pixels]
            return [self.trace(one.dtype)(*self._weights[number], one).numpy() for one in kept]

    def _trace(self, dtype: tf.DType) -> Any:
        """Returns the network as a function of weights and pixels of this type, for batches of any length."""
        specs = [[tf.TensorSpec(one.shape, one.dtype) for one in some] for some in self._weights[0]]
        with tf.device(None):
            return self._function.get_concrete_function(*specs, tf.TensorSpec([None, *self._input_shape], dtype))


def _copy(variable: keras.Variable, device: str) -> tf.Tensor:
    with tf.device(device):
        return tf.identity(tf.convert_to_tensor(variable))
