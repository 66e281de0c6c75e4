"""The compiled training steps: read, augment, forwards, backwards, and the weights move, on every replica.

Several steps are one call, because for a small network on a fast device coming from Python to the device takes longer
than the step itself. How many they are changes nothing about what is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg import models
from simimg.augment import augment
from simimg.input import PADDING_ID, Batch, Order, Reader
from simimg.training.checkpoints import State
from simimg.training.metrics import example_losses, num_correct
from simimg.training.similarity_step import pair_gradients
from simimg.training.train_config import TrainConfig

__all__ = ["several_steps", "training_step"]

# The average forgets its start faster than its decay says, as in tf.train.ExponentialMovingAverage(num_updates=...).
_EMA_START = 10.0


def training_step(
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    state: State,
    order: Order,
    reader: Reader,
    *,
    class_weights: tf.Tensor | None = None,
) -> Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the function of (distributed element, epoch, step), int64 scalars both, that trains on a global batch.

    It is to be called in a `tf.function`. It returns float32 `[3]`, or more of them where the objective has other sums:
    the sum of the losses, the number of examples that came out right, and the number of examples, over all replicas.

    Args:
        config: resolved.
        strategy: whose replicas train.
        state: of the run, made in the strategy's scope.
        order: of the batches.
        reader: of the elements.
        class_weights: float32 `[num_classes]`, what an example of a class counts.
    """
    model, optimizer, average = state.model, state.optimizer, state.average
    variables = model.trainable_variables
    num_replicas = strategy.num_replicas_in_sync
    part_size = order.per_replica_batch_size // config.accumulate
    if config.objective == "similarity":
        gradients_of = pair_gradients(config, strategy, state, order)
    else:
        gradients_of = _class_gradients(config, state, order, class_weights)

    def replica_step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        batch = reader.batch(element)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first_row = replica * order.per_replica_batch_size

        def part(number: tf.Tensor) -> tuple[Any, tf.Tensor]:
            rows = tf.range(number * part_size, (number + 1) * part_size)
            some = Batch(*(tf.gather(value, rows) for value in batch)) if config.accumulate > 1 else batch
            return gradients_of(some, epoch, step, first_row + number * part_size)

        gradients, sums = part(tf.constant(0))
        for number in tf.range(1, config.accumulate) if config.accumulate > 1 else ():
            more, more_sums = part(number)
            gradients = [a + b for a, b in zip(gradients, more, strict=True)]
            sums += more_sums
        if config.clip_norm or config.precision == "float16":
            gradients = _reduced(gradients, num_replicas)
        if config.clip_norm:
            scale = optimizer.scale_loss(tf.constant(1.0))
            gradients = _clipped(gradients, config.clip_norm * scale / num_replicas)
        optimizer.apply(gradients, variables)
        return sums

    def follow() -> None:
        assert average is not None
        steps = tf.cast(optimizer.iterations.value, tf.float32)
        decay = tf.minimum(config.ema, (1 + steps) / (_EMA_START + steps))
        for mine, theirs in zip(average.variables, model.variables, strict=True):
            if mine.dtype != "float32":
                continue

            def move(mine: tf.Variable, theirs: tf.Variable, decay: tf.Tensor = decay) -> None:
                mine.assign(decay * mine + (1 - decay) * theirs)

            strategy.extended.update(mine.value, move, args=(theirs.value,))

    def step(element: Any, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(replica_step, args=(element, epoch, step))
        total = strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)
        if average is not None:
            follow()
        return total

    return step


def several_steps(
    step: Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor], *, timed: bool = True, num_sums: int = 3
) -> Callable[[Any, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns the function of (iterator, epoch, first step, number of steps), int64 scalars, that trains so many steps.

    It returns what `step` does of each, float32 `[steps, num_sums]`, and the seconds it waited for the iterator, a
    float64 scalar. The wait is from the end of a step to the arrival of the next batch; where a device works on after
    its host has gone on, that is more than the device itself was idle. Without `timed` it is 0: TensorFlow's clock may
    not be asked where operations are to be deterministic.
    """

    def now() -> tf.Tensor:
        return tf.timestamp() if timed else tf.zeros([], tf.float64)

    @tf.function(reduce_retracing=True)
    def run(iterator: Any, epoch: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sums = tf.TensorArray(tf.float32, tf.cast(count, tf.int32), element_shape=[num_sums])
        last, waited = tf.zeros([num_sums]), tf.zeros([], tf.float64)
        for number in tf.range(count):
            with tf.control_dependencies([last]):
                start = now()
            with tf.control_dependencies([start]):
                element = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(element, expand_composites=True)):
                waited += now() - start
            last = step(element, epoch, first + number)
            sums = sums.write(tf.cast(number, tf.int32), last)
        return sums.stack(), waited

    return run


def _class_gradients(
    config: TrainConfig, state: State, order: Order, class_weights: tf.Tensor | None
) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], tuple[Any, tf.Tensor]]:
    """Returns the function of (batch, epoch, step, first row) of a replica that gives gradients and sums."""
    model, optimizer, variables = state.model, state.optimizer, state.model.trainable_variables

    def of_pixels(images: tf.Tensor, batch: Batch, step: tf.Tensor, first_row: tf.Tensor) -> tuple[Any, tf.Tensor]:
        there = tf.cast(batch.id != PADDING_ID, tf.float32)  # not a record that was skipped
        weights = there if class_weights is None else there * tf.gather(class_weights, batch.label)
        scope = models.dropout_scope(seed=tf.stack([tf.constant(config.seed, tf.int64), step]), first_row=first_row)
        with tf.GradientTape() as tape, scope:
            probabilities = model(images, training=True)
            losses = example_losses(config.loss, batch.label, probabilities, config.label_smoothing)
            # Divided by the global batch, the replicas' gradients add up to those of the mean loss.
            loss = optimizer.scale_loss(tf.reduce_sum(weights * losses) / order.global_batch_size)
        correct = tf.where(batch.id != PADDING_ID, batch.label, -1)
        sums = tf.stack([tf.reduce_sum(weights * losses), num_correct(correct, probabilities), tf.reduce_sum(there)])
        return tape.gradient(loss, variables), sums

    if config.xla:
        of_pixels = tf.function(of_pixels, jit_compile=True)

    def gradients_of(batch: Batch, epoch: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor) -> tuple[Any, tf.Tensor]:
        images = augment(config.augment_config(), config.seed, epoch, batch.id, batch.image)
        return of_pixels(images, batch, step, first_row)

    return gradients_of


def _reduced(gradients: list[tf.Tensor], num_replicas: int) -> list[tf.Tensor]:
    """Returns the replicas' gradients added up, on each replica its share of that, since the optimizer adds up again.

    Before that, a replica knows only its own: their length is not that of all together, and infinite ones that it
    does not have itself would pass Keras's LossScaleOptimizer by.
    """
    if num_replicas == 1:
        return gradients
    context = tf.distribute.get_replica_context()
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    return [gradient / num_replicas for gradient in summed]


def _clipped(gradients: list[tf.Tensor], most: tf.Tensor) -> list[tf.Tensor]:
    clipped, _ = tf.clip_by_global_norm(gradients, most)
    return list(clipped)
