"""The batches of an iteration as a tf.data pipeline that starts wherever the `IterationState` says.

The pipeline is built once and iterated over many times, also by Keras and by `tf.distribute`, which do not tell how
often or how far. So it reads where to start with its first batch, and notes each batch that leaves it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg.input.iteration_state import IterationState, StepTag
from simimg.input.readers.random_access import GatherReader
from simimg.input.sampler import Order, Position
from simimg.input.split import Batch, Reader

_PLACES_PER_CALL = 1 << 14  # computed by one call, which costs as much as a thousand places
_CALLS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The steps of an iteration. `order` is None if the examples come in the order of the shards.

    In the order of the shards, the last batch of an epoch may be smaller, and there is one replica.
    """

    num_examples: int
    batch_size: int  # over all replicas of all processes
    num_epochs: int
    order: Order | None
    cuts_seed: int | None = None  # seed of random crops, of a reader that cuts

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, over all replicas."""
        return self.order.steps_per_epoch if self.order else -(-self.num_examples // self.batch_size)

    @property
    def local_replicas(self) -> int:
        """Replicas of this process."""
        return self.order.local_replicas if self.order else 1

    @property
    def per_replica_batch_size(self) -> int:
        """Examples per replica and step."""
        return self.order.per_replica_batch_size if self.order else self.batch_size

    @property
    def is_padded(self) -> bool:
        """Whether the last batch of an epoch is filled up."""
        return self.order is None and self.num_examples % self.batch_size > 0


def step_batches(
    reader: Reader, plan: StepPlan, state: IterationState, convert: Callable[[Batch], Any], calls: int = _CALLS
) -> tf.data.Dataset:
    """Returns a dataset of `convert(batch)` for each replica's part of each step, replica after replica.

    `convert` runs in `calls` threads. Elements have a static shape unless the last batch is smaller. The number of
    elements of a whole iteration is the dataset's cardinality if the reader can read any example by its place.
    """
    if isinstance(reader, GatherReader):
        tagged = reader.gathered(_places(plan, state), plan.per_replica_batch_size)
    else:
        tagged = tf.data.Dataset.range(1).flat_map(lambda _: _streamed(reader, plan, state))

    def converted(batch: Batch, tag: tf.Tensor) -> tuple[Any, tf.Tensor]:
        if plan.is_padded:
            count = StepTag(*tf.unstack(tag)).num_examples
            batch = Batch(*(part[:count] for part in batch))
        return convert(batch), tag

    def committed(element: Any, tag: tf.Tensor) -> Any:
        state.commit(StepTag(*tf.unstack(tag)))
        return element

    # Nothing may read ahead after the last step, or `commit` would count batches that nobody has seen.
    tagged = tagged.map(converted, num_parallel_calls=calls, deterministic=True).prefetch(2)
    options = GatherReader.as_written()
    options.deterministic = True
    # Keras makes iterators that it never uses. They must not read, nor may what is appended to the pipeline.
    options.experimental_warm_start = False
    options.experimental_optimization.inject_prefetch = False
    # The dataset is already divided among the workers, so TensorFlow must not divide it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return tagged.map(committed).with_options(options)


def _places(plan: StepPlan, state: IterationState) -> tf.data.Dataset:
    """Returns a dataset of the places of each element, int64 `[per_replica_batch_size]`, and its tag, int64 `[6]`.

    With random crops, places are int64 `[per_replica_batch_size, 3]`, with seed and epoch.
    """
    steps, local, size = plan.steps_per_epoch, plan.local_replicas, plan.per_replica_batch_size
    steps_per_call = min(steps, max(1, _PLACES_PER_CALL // (size * local)))
    calls = -(-steps // steps_per_call)  # per epoch
    rows = steps_per_call * local

    def started(start: tf.Tensor, call: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        start = tf.cond(call == 0, state.start, lambda: start)
        return start, (start, call)

    def places(start: tf.Tensor, call: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, first = start[0] + call // calls, call % calls * steps_per_call
        first += tf.where(call < calls, start[1], 0)
        end = tf.maximum(first, tf.minimum(first + steps_per_call, steps))
        elements = tf.range(first * local, end * local)
        found, counts = _places_of(plan, elements, epoch)
        if plan.cuts_seed is not None:
            seeds = tf.fill(tf.shape(found), tf.constant(plan.cuts_seed, tf.int64))
            found = tf.stack([found, seeds, tf.fill(tf.shape(found), epoch)], axis=-1)
        tags = _tags(plan, start, tf.fill(tf.shape(elements), epoch), elements, counts)
        # An iteration that starts within an epoch is shorter. The shapes say otherwise, because `unbatch` makes the
        # cardinality of them, which Keras takes for the number of batches of every epoch.
        return _claimed(found, [rows, size, *found.shape[2:]]), _claimed(tags, [rows, len(StepTag._fields)])

    numbers = tf.data.Dataset.range(calls * plan.num_epochs).scan(tf.zeros([3], tf.int64), started)
    return numbers.map(places).prefetch(1).unbatch().take(steps * local * plan.num_epochs)


def _places_of(plan: StepPlan, elements: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the places of elements of an epoch, int64 `[n, size]`, and how many are no padding, int64 `[n]`."""
    size = plan.per_replica_batch_size
    if plan.order is not None:
        return plan.order.places_in_epoch(elements, epoch), _counts(plan, elements)
    places = elements[:, None] * size + tf.range(size, dtype=tf.int64)
    return tf.minimum(places, plan.num_examples - 1), _counts(plan, elements)


def _streamed(reader: Reader, plan: StepPlan, state: IterationState) -> tf.data.Dataset:
    """Returns the dataset of Batches and tags of an iteration that starts now."""
    start = state.start()
    end = start[0] + plan.num_epochs
    per_epoch = plan.steps_per_epoch * plan.local_replicas
    if plan.order is not None:
        position = Position(start[0], start[1])
        order = dataclasses.replace(plan.order, start=position, num_epochs=end)
        batches = reader.train_batches(order)
    else:

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            # Padded to full batches, however few examples there are.
            return reader.eval_batches(plan.batch_size).skip(tf.where(epoch == start[0], start[1], 0))

        batches = tf.data.Dataset.range(start[0], end).flat_map(of_epoch)
    numbers = tf.data.Dataset.range(start[0] * per_epoch + start[1] * plan.local_replicas, end * per_epoch)

    def tagged(batch: Batch, number: tf.Tensor) -> tuple[Batch, tf.Tensor]:
        element = number % per_epoch
        return batch, _tags(plan, start, number // per_epoch, element, _counts(plan, element))

    return tf.data.Dataset.zip(batches, numbers).map(tagged)


def _tags(plan: StepPlan, start: tf.Tensor, epoch: tf.Tensor, elements: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    local = plan.local_replicas
    same = tf.zeros_like(elements)
    tag = StepTag(
        epoch=epoch,
        step=elements // local,
        last_epoch=same + start[0] + plan.num_epochs - 1,
        generation=same + start[2],
        is_last_replica=tf.cast(elements % local == local - 1, tf.int64),
        num_examples=counts,
    )
    return tf.stack(tag, axis=-1)


def _counts(plan: StepPlan, elements: tf.Tensor) -> tf.Tensor:
    if plan.order is not None:
        return tf.zeros_like(elements) + plan.per_replica_batch_size
    return tf.minimum(plan.num_examples - elements * plan.batch_size, plan.batch_size)


def _claimed(tensor: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """Returns `tensor`, of which TensorFlow takes for granted that it has this shape."""
    unknown = tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=[None, *shape[1:]])
    unknown.set_shape(shape)
    return unknown
