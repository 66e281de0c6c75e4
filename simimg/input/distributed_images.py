"""Opens a split for `simimg.load`: as an ImageDataset, or as batches for the replicas of a strategy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.image_dataset import ImageDataset, SplitFacts, checked, checked_position
from simimg.input.mixture import Mixture
from simimg.input.sampler import Order, Position
from simimg.input.split import Reader
from simimg.input.step_batches import StepPlan


def open_images(
    reader: Reader,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int | None,
    mixture: Mixture | None = None,
    cuts_seed: int | None,
    start: Position | tuple[int, int],
    strategy: tf.distribute.Strategy | None,
    **elements: Any,
) -> Any:
    """Returns an ImageDataset, or DistributedImages if there is a strategy.

    `seed` is None for the order of the shards, `mixture` unless there are several datasets, and `cuts_seed` unless
    crops are random; `elements` are `one_hot`, `ids` and `features`. For all of them see `simimg.load`.
    """
    num_examples = reader.split.num_examples
    num_replicas = strategy.num_replicas_in_sync if strategy else 1
    if batch_size % num_replicas:
        raise UsageError(
            f"batch_size={batch_size} cannot be divided among the {num_replicas} replicas of the strategy. Choose a "
            f"multiple of {num_replicas}."
        )
    if seed is not None and batch_size > num_examples:
        raise UsageError(
            f"batch_size={batch_size} is more than the {num_examples} examples of split {reader.split.split!r}. Choose "
            "a smaller one, or shuffle=False."
        )
    if seed is None:
        batch_size, order = _without_empty_parts(min(batch_size, num_examples), num_examples, num_replicas), None
    else:
        order = Order(
            num_examples=num_examples,
            global_batch_size=batch_size,
            num_epochs=num_epochs,
            seed=seed,
            mixture=mixture,
        )
    plan = StepPlan(
        num_examples=num_examples, batch_size=batch_size, num_epochs=num_epochs, order=order, cuts_seed=cuts_seed
    )
    dataset = ImageDataset(reader, plan, start=checked_position(start, plan.steps_per_epoch), **elements)
    return dataset if strategy is None else distributed(dataset, strategy)


class DistributedImages(SplitFacts):
    """Batches of a split for the replicas of a strategy. Created by `simimg.load` with `strategy`.

    It is a dataset of `tf.distribute`, each replica of which reads its own part of every batch. `keras.Model.fit` takes
    it as it is; an own loop iterates over it and gives each element to `strategy.run`. The attributes are those of
    `ImageDataset`.
    """

    @property
    def cardinality(self) -> np.int64:
        """The number of batches of a whole iteration, each over all replicas."""
        return np.int64(len(self))

    def __len__(self) -> int:
        """Return the number of batches of a whole iteration, each over all replicas."""
        return self._plan.num_epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        """Return an iterator of TensorFlow's; each element has the batches of all replicas."""
        if not tf.executing_eagerly():
            return super().__iter__()  # type: ignore[misc]
        begin, steps = self._state.begin, self.steps_per_epoch
        if self._unfinished is not None and self._unfinished != begin:
            # Keras takes one batch to build the model, and a short epoch is then read to its end on the way to devices.
            begin = self._unfinished
            self._state.set(begin)
        self._unfinished = self._noted = None
        iterator = checked(super().__iter__(), self._reader.split)  # type: ignore[misc]
        first = number = begin.epoch * steps + begin.step

        def count() -> None:
            nonlocal number
            number += 1
            self.note_position(Position(*divmod(number, steps)))
            self._unfinished = begin if number < first + len(self) - begin.step else None

        iterator.count = count
        return iterator


def distributed(dataset: ImageDataset, strategy: tf.distribute.Strategy) -> Any:
    """Returns DistributedImages of `dataset`, or `dataset` itself if the strategy is TensorFlow's default."""
    if dataset.plan.order is None:
        made = strategy.experimental_distribute_dataset(dataset)
    else:
        options = tf.distribute.InputOptions(experimental_fetch_to_device=True)
        made = strategy.distribute_datasets_from_function(functools.partial(_of_worker, dataset), options)
    if isinstance(made, tf.data.Dataset):
        return dataset
    # Keras asks for TensorFlow's own type, which strategies alone can construct.
    theirs: Any = type(made)
    kind = _distributed_type(theirs)
    images = kind.__new__(kind)
    vars(images).update(vars(made))
    SplitFacts.__init__(images, dataset._reader, dataset.plan, dataset._state)
    return images


@functools.cache
def _distributed_type(kind: Any) -> Any:
    return type(DistributedImages.__name__, (DistributedImages, kind), {"__doc__": DistributedImages.__doc__})


def _without_empty_parts(batch_size: int, num_examples: int, num_replicas: int) -> int:
    """Returns the largest batch size of which each replica has a part, also of the last batch, or else `batch_size`.

    Keras 3.15 fails if a replica has an empty part, or if the parts of the first batch differ in size.
    """
    for size in range(batch_size - batch_size % num_replicas, 0, -num_replicas):
        if not num_examples % size or num_examples % size >= num_replicas:
            return size
    return batch_size


def _of_worker(dataset: ImageDataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Returns the batches of the replicas of one worker."""
    plan = dataset.plan
    assert plan.order is not None
    num_local = context.num_replicas_in_sync // context.num_input_pipelines
    order = dataclasses.replace(
        plan.order,
        num_replicas=context.num_replicas_in_sync,
        first_replica=context.input_pipeline_id * num_local,
        num_local_replicas=num_local,
    )
    return dataset.batches(dataclasses.replace(plan, order=order))
