"""The compiled training step: gather, augment, forwards, backwards, and the weights move, on every replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from simimg import models
from simimg.augment import augment
from simimg.input import PADDING_ID, Order, Reader
from simimg.training.config import TrainConfig
from simimg.training.metrics import example_losses, num_correct

__all__ = ["training_step"]


def training_step(
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    order: Order,
    reader: Reader,
) -> Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the function of (distributed element, epoch, step), int64 scalars both, that trains on a global batch.

    It returns float32 `[3]`: the sum of the losses, the number of examples that were classified correctly, and the
    number of examples, over all replicas.
    """
    augmentation = config.augment_config()

    def replica_step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        batch = reader.batch(element)
        there = tf.cast(batch.id != PADDING_ID, tf.float32)  # not a record that was skipped
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        images = augment(augmentation, config.seed, epoch, batch.id, batch.image)
        scope = models.dropout_scope(
            seed=tf.stack([tf.constant(config.seed, tf.int64), step]),
            first_row=replica * order.per_replica_batch_size,
        )
        with tf.GradientTape() as tape, scope:
            probabilities = model(images, training=True)
            losses = there * example_losses(config.loss, batch.label, probabilities, config.label_smoothing)
            # Divided by the global batch, the replicas' gradients add up to those of the mean loss.
            loss = tf.reduce_sum(losses) / order.global_batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        correct = tf.where(batch.id != PADDING_ID, batch.label, -1)
        return tf.stack([tf.reduce_sum(losses), num_correct(correct, probabilities), tf.reduce_sum(there)])

    @tf.function
    def step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(replica_step, args=(element, epoch, step))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return step
