"""Base class of readers that find any example by its place: training and evaluation batches as gathers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from simimg.input.sampler import Order
from simimg.input.split import PADDING_ID, Batch, Reader, Split

# One gather already uses all cores. Several at the same time hide the gaps between two of them. Large batches take long
# enough for two calls to suffice, and each call in flight holds a batch in memory.
_CALLS = 4
_CALLS_OF_LARGE_BATCHES = 2
_SMALL_BATCH_BYTES = 1 << 26
_MIN_PLACES_PER_CALL = 16  # below that, a call costs more than its images


class GatherReader(Reader):
    """A reader whose batches are gathered from anywhere in its split.

    A subclass has `kind` and `gather`. If `places_per_call` is set, `gather` runs in one thread, and a larger batch is
    split into parallel calls of at most that many places.
    """

    places_per_call: int | None = None

    def __init__(self, split: Split, num_threads: int) -> None:
        super().__init__(split)
        self._num_threads = num_threads

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        raise NotImplementedError

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of Batches of `order.per_replica_batch_size`, replica after replica, step after step."""
        return self.gathered(order.indices(), order.per_replica_batch_size).with_options(self.as_written())

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
        return self._in_order(batch_size, lambda places: places)

    def _in_order(self, batch_size: int, element_of: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
        """Returns these batches, gathered from the elements that a function gives for places, int64 `[batch_size]`."""
        last = self.split.num_examples - 1
        steps = tf.data.Dataset.range(-(-self.split.num_examples // batch_size))
        places = steps.map(lambda step: step * batch_size + tf.range(batch_size, dtype=tf.int64))

        def clipped(batch: Batch, places: tf.Tensor) -> Batch:
            return batch._replace(id=tf.where(places <= last, batch.id, PADDING_ID))

        gathered = self.gathered(places.map(lambda places: element_of(tf.minimum(places, last))), batch_size)
        return tf.data.Dataset.zip(gathered, places).map(clipped).with_options(self.as_written())

    def gathered(self, places: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of the Batches at `places`, a dataset of what `gather` takes.

        If the elements of `places` are pairs of places and a tensor, so are those of the result.
        """

        def gather(places: tf.Tensor, *tag: tf.Tensor) -> Any:
            return (self.gather(places), *tag) if tag else self.gather(places)

        if self.places_per_call is None:
            num_bytes = batch_size * math.prod(self.split.image_shape)
            calls = _CALLS if num_bytes <= _SMALL_BATCH_BYTES else _CALLS_OF_LARGE_BATCHES
            return places.map(gather, num_parallel_calls=calls, deterministic=True)
        part = _part(batch_size, self.places_per_call)
        if part == batch_size:
            return places.map(gather, num_parallel_calls=self._num_threads, deterministic=True)
        num_parts = batch_size // part

        def split(places: tf.Tensor, *tag: tf.Tensor) -> Any:
            parts = tf.reshape(places, [-1, part, *places.shape[1:]])
            return (parts, *(tf.stack([one] * num_parts) for one in tag)) if tag else parts

        def joined(batch: Any, *tag: tf.Tensor) -> Any:
            return (_joined(batch), *(one[0] for one in tag)) if tag else _joined(batch)

        parts = places.map(split).unbatch().map(gather, num_parallel_calls=self._num_threads, deterministic=True)
        return parts.batch(num_parts, drop_remainder=True).map(joined)

    @staticmethod
    def as_written() -> tf.data.Options:
        """Returns options that stop TensorFlow from rewriting a dataset, for which it would copy all pixels."""
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False
        return options


def _part(batch_size: int, most: int) -> int:
    """Returns the largest divisor of `batch_size` up to `most`, or `batch_size` if that divisor is very small."""
    largest = next(part for part in range(min(batch_size, most), 0, -1) if batch_size % part == 0)
    return largest if largest >= _MIN_PLACES_PER_CALL else batch_size


def _joined(batch: Batch) -> Batch:
    return Batch(*(tf.reshape(part, [-1, *part.shape[2:]]) for part in batch))
