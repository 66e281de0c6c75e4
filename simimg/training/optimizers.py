"""Keras's optimizers for a replica that has the summed gradients already, with few operations per weight.

Keras's own `apply` sums the gradients over the replicas, also where they were summed before to be clipped. Then it
leaves the replicas' functions for a common one, and takes 25 operations per weight. These take one or two, on the
replica's own copy of the weight. They are TensorFlow's fused kernels for the same formulas, so only rounding differs.
State and its order are Keras's, so a checkpoint does not tell them apart.

`apply` must be called on every replica with the same gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class _OnEachReplica:
    """Lets the weights decay and updates them on the replica that calls."""

    def _apply_weight_decay(self: Any, variables: Any) -> None:
        """Does nothing, because `_backend_update_step` does it with the same learning rate."""

    def _backend_update_step(
        self: Any, grads: Sequence[tf.Tensor], trainable_variables: Any, learning_rate: Any
    ) -> None:
        rate = tf.convert_to_tensor(learning_rate)
        variables = [getattr(variable, "value", variable) for variable in trainable_variables]
        if self.weight_decay:
            share = rate * self.weight_decay
            for variable in filter(self._use_weight_decay, variables):
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=share, delta=variable)
        self._update(list(zip(grads, variables, strict=True)), rate)

    def _update(self: Any, pairs: list[tuple[tf.Tensor, Any]], rate: tf.Tensor) -> None:
        for gradient, variable in pairs:
            self.update_step(gradient, variable, rate)


class AdamW(_OnEachReplica, keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    def _update(self, pairs: list[tuple[tf.Tensor, Any]], rate: tf.Tensor) -> None:
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, tf.float32)
        common = {
            "lr": rate,
            "beta1_power": self.beta_1**step,
            "beta2_power": self.beta_2**step,
            "beta1": tf.constant(self.beta_1),
            "beta2": tf.constant(self.beta_2),
            "epsilon": tf.constant(self.epsilon),
        }
        for gradient, variable in pairs:
            index = self._get_variable_index(variable)
            m, v = self._momentums[index].handle, self._velocities[index].handle
            tf.raw_ops.ResourceApplyAdam(var=variable.handle, m=m, v=v, grad=gradient, **common)


class SGD(_OnEachReplica, keras.optimizers.SGD):
    """Gradient descent with Nesterov's momentum."""

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        """Updates a weight and its momentum."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class RMSprop(_OnEachReplica, keras.optimizers.RMSprop):
    """Gradients divided by the root of their moving mean square; with Keras's own operations."""


class LAMB(_OnEachReplica, keras.optimizers.Lamb):
    """Adam's updates scaled to the norm of each weight, for large batches (You et al., ICLR 2020), with Keras's own
    operations. As in Keras, the decay of the weights is not part of the scaled update.
    """
