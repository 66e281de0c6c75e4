"""A network that TensorFlow computes: on all GPUs, or on the processor if LiteRT cannot run it. A module of its
own because it imports TensorFlow.

On the processor, the last bits of a row depend on its batch, its place in it and the number of threads.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simimg.inference.conversion import load_network
from simimg.models import device_copies
from simimg.models.gpu_memory import grow_gpu_memory


class KerasNetwork:
    """A network that TensorFlow computes."""

    def __init__(self, model: str, output: str, batch_size: int) -> None:
        """Load a network, whose arguments and errors are those of `simimg.inference.conversion.load_network`.

        At most `batch_size` images are computed at a time by each device.
        """
        grow_gpu_memory()
        network, _ = load_network(model, output)
        self._batch_size = batch_size
        self._copies = device_copies.DeviceCopies(network, device_copies.compute_devices())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the output, float32 `[n, dim]`, for images, 0..255, `[n, size, size, 3]`, of any type."""
        starts = range(0, max(1, len(images)), self._batch_size)
        parts = [images[start : start + self._batch_size] for start in starts]
        # TF32, GPUs' default, rounds to 10 bits: vectors would differ by 0.001 from those in an index.
        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            return np.concatenate(self._copies(parts))
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def num_gpus() -> int:
    """Return the number of GPUs that TensorFlow uses."""
    return len(tf.config.get_visible_devices("GPU"))
