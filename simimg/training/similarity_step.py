"""A step of `--objective=similarity` on one replica: two views of each picture, and the gradients of their loss.

Every view is compared with those of all replicas. A replica knows the others' embeddings as numbers only, and computes
the loss of the whole batch from them and its own; its gradient is with respect to its own, and is exact: added up over
the replicas, as all gradients are, it is that of one replica with the whole batch. So nothing but embeddings travels,
once a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg import models
from simimg.augment import augment
from simimg.input import PADDING_ID, Batch, Order
from simimg.training.checkpoints import State
from simimg.training.contrastive_loss import pair_terms
from simimg.training.train_config import TrainConfig

__all__ = ["pair_gradients"]

_RAMP = 0.1  # of the steps: the weight of the entropy rises from 0, or views would be driven apart before they agree


def pair_gradients(
    config: TrainConfig, strategy: tf.distribute.Strategy, state: State, order: Order
) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], tuple[Any, tf.Tensor]]:
    """Returns the function of (batch, epoch, step, first row) of a replica that gives gradients and sums.

    The sums are float32 `[6]`: the loss, the pictures whose views are nearer to each other than to anything else, and
    their number; then the similarity of their views, that to the nearest other, and the length of the batch's mean
    embedding, each times the number of pictures.
    """
    model, optimizer, past = state.model, state.optimizer, state.past
    variables = model.trainable_variables
    num_replicas = strategy.num_replicas_in_sync
    num_rows = 2 * order.global_batch_size
    ramp = max(1.0, _RAMP * order.steps_per_epoch * order.num_epochs)

    def of_pixels(
        images: tf.Tensor, ids: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor, earlier: list[tf.Tensor]
    ) -> tuple[Any, ...]:
        weight = config.entropy_weight * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / ramp)
        scope = models.dropout_scope(seed=tf.stack([tf.constant(config.seed, tf.int64), step]), first_row=first_row)
        with tf.GradientTape() as tape, scope:
            mine = model(images, training=True)
            embeddings, all_ids = _gathered(mine, ids, first_row, num_rows, num_replicas)
            terms = pair_terms(embeddings, all_ids, *earlier, temperature=config.temperature)
            there = tf.cast(all_ids != PADDING_ID, tf.float32)
            losses = there * (terms.contrast + weight * terms.entropy)
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / num_rows)
        mean = tf.einsum("r,rd->d", there, embeddings) / tf.maximum(tf.reduce_sum(there), 1.0)
        found = tf.cast(terms.positive > terms.nearest, tf.float32)
        columns = [losses, there * found, there, there * terms.positive, there * terms.nearest, there * tf.norm(mean)]
        own = tf.range(tf.shape(ids)[0]) + tf.cast(first_row, tf.int32)
        sums = tf.reduce_sum(tf.gather(tf.stack(columns, axis=1), own), axis=0) / 2  # a picture has two rows
        return tape.gradient(loss, variables), sums, embeddings, all_ids

    if config.xla:
        of_pixels = tf.function(of_pixels, jit_compile=True)

    def gradients_of(batch: Batch, epoch: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor) -> tuple[Any, tf.Tensor]:
        ids, images = tf.repeat(batch.id, 2), tf.repeat(batch.image, 2, axis=0)
        views = tf.tile(tf.constant([0, 1], tf.int64), tf.shape(batch.id))
        pixels = augment(config.augment_config(), config.seed, epoch, ids, images, views)
        earlier = [tf.convert_to_tensor(variable) for variable in past.variables] if past else []
        gradients, sums, embeddings, all_ids = of_pixels(pixels, ids, step, 2 * first_row, earlier)
        if past:
            past.push(tf.stop_gradient(embeddings), all_ids)
        return gradients, sums

    return gradients_of


def _gathered(
    mine: tf.Tensor, ids: tf.Tensor, first_row: tf.Tensor, num_rows: int, num_replicas: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the embeddings and ids of all replicas, in the order of the batch; only a replica's own have a gradient.

    They are added up, each replica having zeros where the others' are: that is exact, has the same order whatever the
    devices, and works between them in all the ways in which gradients are added up.
    """
    if num_replicas == 1:
        return mine, ids
    places = (tf.range(tf.shape(ids)[0]) + tf.cast(first_row, tf.int32))[:, None]
    padded = [
        tf.scatter_nd(places, tf.stop_gradient(mine), [num_rows, mine.shape[1]]),
        tf.scatter_nd(places, ids, [num_rows]),
    ]
    context = tf.distribute.get_replica_context()
    embeddings, all_ids = context.all_reduce(tf.distribute.ReduceOp.SUM, padded)
    return tf.tensor_scatter_nd_update(tf.stop_gradient(embeddings), places, mine), all_ids
