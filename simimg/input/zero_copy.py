"""Arrays that NumPy and TensorFlow share, and the numbers that stand in records."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrecords.format.record_layout import INT_BYTES

__all__ = ["aligned", "shared_tensor", "tf_varints"]

_ALIGNMENT = 64  # of memory that TensorFlow takes over; other memory it copies, or ends the process over


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a uint8 array, its values undefined, in memory that TensorFlow can use without copying it."""
    num_bytes = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % _ALIGNMENT
    return memory[skipped : skipped + num_bytes].reshape(shape)


def shared_tensor(array: np.ndarray) -> tf.Tensor:
    """Returns `array` as a tensor on the CPU that lies in the same, aligned, memory and keeps it alive."""
    assert array.ctypes.data % _ALIGNMENT == 0
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def tf_varints(groups: tf.Tensor) -> tf.Tensor:
    """Returns the numbers, int64 `[...]`, of padded varints, uint8 `[..., INT_BYTES]`."""
    shifted = tf.bitwise.left_shift(tf.cast(groups, tf.int64) & 0x7F, 7 * tf.range(INT_BYTES, dtype=tf.int64))
    return tf.reduce_sum(shifted, axis=-1)
