"""Batch normalization over the examples of all replicas, with one sum between the devices in each direction."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simimg.errors import UsageError


@keras.saving.register_keras_serializable(package="simimg")
class SynchronizedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization whose statistics are those of the global batch, so a run on 8 replicas equals a run on 1.

    Keras's layer computes the same with `synchronized=True`. It sums three small tensors over the devices in the
    forward pass, one at a time, and two in the backward pass. Each sum is a launch that all devices wait for, and a
    network has dozens of these layers. Here the sum and the sum of squares of each channel are one tensor, the number
    n of values is not exchanged, because all replicas have batches of the same shape, and the gradient is written out
    (Ioffe and Szegedy, ICML 2015, algorithm 1 and section 3), with sums over the batch and its width and height:

        mean = sum(x) / n,  variance = sum(x ** 2) / n - mean ** 2,  x' = (x - mean) / sqrt(variance + epsilon)
        y = gamma * x' + beta,  dx = gamma / sqrt(variance + epsilon) * (dy - sum(dy) / n - x' * sum(dy * x') / n)

    The sums in dx are those of all replicas. Those for gamma and beta are the replica's own, because the gradients of
    all weights are summed together later. All of it is float32, under mixed precision, too.

    Input and output: [batch, ..., channels]. The arguments, weights and names are those of
    `keras.layers.BatchNormalization`. Masks are ignored in training.

    Raises:
        UsageError: the channels are not the last axis, or renormalization is asked for.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "synchronized": True})
        if self.axis == 1 or self.renorm:
            raise UsageError(
                "the channels should be the last axis, and renorm is not supported. "
                f"Received: axis={self.axis}, renorm={self.renorm}"
            )

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes by the statistics of the batch if `training`, otherwise by the moving ones."""
        if not training or not self.trainable:
            return super().call(inputs, training=False, mask=mask)
        x = tf.cast(inputs, tf.float32)
        axes = tf.constant(list(range(x.shape.rank - 1)))
        count = x.shape[:-1].num_elements() or tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        total = tf.convert_to_tensor(count * _num_replicas(), tf.float32)
        mean, mean_square = _means([tf.reduce_sum(x, axes), tf.reduce_sum(x * x, axes)], total)
        variance = tf.maximum(mean_square - mean * mean, 0.0)
        rate = tf.constant(1 - self.momentum)
        for moving, new in ((self.moving_mean.value, mean), (self.moving_variance.value, variance)):
            tf.raw_ops.ResourceApplyGradientDescent(var=moving.handle, alpha=rate, delta=moving - new)
        inverse = tf.math.rsqrt(variance + self.epsilon)
        gamma = self.gamma.value if self.scale else tf.ones_like(mean)
        beta = self.beta.value if self.center else tf.zeros_like(mean)

        @tf.custom_gradient
        def normalized(x: Any, gamma: Any, beta: Any) -> Any:
            unit = (x - mean) * inverse

            def gradient(dy: Any) -> Any:
                dbeta, dgamma = tf.reduce_sum(dy, axes), tf.reduce_sum(dy * unit, axes)
                dy_mean, slope = _means([dbeta, dgamma], total)
                return gamma * inverse * (dy - dy_mean - unit * slope), dgamma, dbeta

            return gamma * unit + beta, gradient

        return tf.cast(normalized(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)), self.compute_dtype)


def sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a tensor over all replicas, on each of them. No gradient passes through it.

    `ReplicaContext.all_reduce` is the same with a gradient, for which it adds operations to each sum. On one replica,
    and while a model is built in the scope of a strategy, this is the tensor itself.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tensor

    def merged(strategy: tf.distribute.Strategy, value: Any) -> Any:
        # Not `reduce_to`, which takes another way between CPU devices than between GPUs.
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(value, value)])[0]

    return replica.merge_call(merged, args=(tensor,))


def _means(sums: list[tf.Tensor], total: tf.Tensor) -> list[tf.Tensor]:
    """Returns a replica's `sums`, `[channels]` each, as means over the `total` values of all replicas."""
    return list(tf.unstack(sum_over_replicas(tf.stack(sums)) / total))


def _num_replicas() -> int:
    replica = tf.distribute.get_replica_context()
    return int(replica.num_replicas_in_sync) if replica is not None else 1
