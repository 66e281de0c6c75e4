"""On which devices a run trains: MirroredStrategy over every GPU, or over the processor where there is none."""

from __future__ import annotations

import tensorflow as tf

from simimg.errors import UsageError

__all__ = ["make_strategy"]


def make_strategy(num_devices: int = 0) -> tf.distribute.MirroredStrategy:
    """Returns a strategy with one replica a device.

    Without a GPU, `num_devices` logical devices are made of the processor, which is no faster than one but behaves like
    as many GPUs.

    Args:
        num_devices: 0 for every GPU, or one CPU device where there is no GPU.

    Raises:
        UsageError: there are fewer GPUs, or TensorFlow has started with fewer CPU devices in this process.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if num_devices > len(gpus) > 0:
        raise UsageError(f"--num_devices={num_devices}: this machine has {len(gpus)} GPUs. Ask for at most so many.")
    if gpus:
        for gpu in gpus:
            _grow_memory(gpu)
        return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(num_devices or len(gpus))])
    count = num_devices or 1
    if count > 1:
        _split_processor(count)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(count)],
        # There is no NCCL between CPU devices; asking for it only gives a warning and then this.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _grow_memory(gpu: tf.config.PhysicalDevice) -> None:
    try:
        tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        return  # TensorFlow has started: the process was set up otherwise, by its owner


def _split_processor(count: int) -> None:
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise UsageError(
                f"--num_devices={count}: TensorFlow has started in this process with {there} CPU device(s). "
                "Ask for them before anything else is computed."
            ) from None
