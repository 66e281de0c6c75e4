"""The stream reader: any shards that TensorFlow can open, read from front to back.

What it cannot promise: a uniform shuffle of the whole split. It reads the shards in an order that depends on
(seed, epoch), several at a time, and shuffles within a buffer of `SHUFFLE_BUFFER` examples; the converter has mixed the
examples before they went into shards. Its order is as reproducible as the other readers', and goes on from any position
by skipping records before they are decoded; but it is another order than theirs. Where the split fits into the shuffle
buffer its shuffle is uniform.
"""

from __future__ import annotations

import functools
import itertools

import tensorflow as tf

from simimg.input.readers.example_parser import decode_record, decode_records
from simimg.input.sampler import Order, permuted
from simimg.input.split import PADDING_ID, Batch, Split

__all__ = ["SHUFFLE_BUFFER", "StreamReader"]

SHUFFLE_BUFFER = 8192
# Shards that are open at a time, and records taken from one before the next.
_CYCLE_LENGTH = 8
_BLOCK_LENGTH = 16
_READ_BUFFER_BYTES = 4 * 2**20  # TensorFlow's default of 256 KB makes too many requests


class StreamReader:
    """Reads a split sequentially."""

    kind = "stream"

    def __init__(self, split: Split) -> None:
        self.split = split
        self.corrupt: dict[int, str] = {}
        self._files = [str(shard.path) for shard in split.shards]
        self._lengths = [shard.num_examples for shard in split.shards]
        self._first_places = [0, *itertools.accumulate(self._lengths[:-1])]

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a data set of per-replica Batches in the order that the module's docstring describes."""
        return self._decoded(self.train_records(order), order.per_replica_batch_size, drop_remainder=True)

    def train_records(self, order: Order) -> tf.data.Dataset:
        """Returns the records of `train_batches`, one by one: string scalars, each with its place if it has no id."""
        used = order.steps_per_epoch * order.global_batch_size
        skipped = order.start.step * order.global_batch_size

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            # Of this function's graph only. Else the program's seed has a say in the shuffle, and 0 makes it raise.
            tf.random.set_seed(1)
            seed = tf.stack([tf.constant(order.seed, tf.int64), epoch])
            num_shards = len(self._files)
            shards = permuted(tf.range(num_shards, dtype=tf.int64), num_shards, order.seed, epoch)
            records = tf.data.Dataset.from_tensor_slices(shards).interleave(
                self._shard_records,
                cycle_length=min(_CYCLE_LENGTH, num_shards),
                block_length=_BLOCK_LENGTH,  # one after the other: threads cost more than they read
            )
            shuffle_seed = tf.random.stateless_uniform([], seed, 0, 2**62, tf.int64)
            records = records.shuffle(SHUFFLE_BUFFER, shuffle_seed, reshuffle_each_iteration=False).take(used)
            return records.skip(tf.where(epoch == order.start.epoch, tf.constant(skipped, tf.int64), 0))

        records = tf.data.Dataset.range(order.start.epoch, order.num_epochs).flat_map(epoch_records)
        if order.local_replicas < order.num_replicas:  # drop what other processes train on, before it is decoded
            batch, total = order.per_replica_batch_size, order.global_batch_size

            def is_ours(count: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tf.Tensor:
                replica = count % total // batch - order.first_replica
                return (replica >= 0) & (replica < order.local_replicas)

            records = records.enumerate().filter(is_ours).map(lambda count, record: record)
        return records

    def batch(self, element: Batch) -> Batch:
        """Returns an element of `train_batches` as it is."""
        return element

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a data set of Batches: every example once, in the order of the shards, the last batch filled up."""
        shards = tf.data.Dataset.range(len(self._files))
        records = shards.interleave(
            self._shard_records,
            cycle_length=1,
            block_length=1,
        )

        def fill_up(batch: Batch) -> Batch:
            rows, last = tf.range(batch_size), tf.shape(batch.id)[0] - 1
            filled = Batch(*(tf.gather(part, tf.minimum(rows, last)) for part in batch))
            return filled._replace(id=tf.where(rows <= last, filled.id, PADDING_ID))

        return self._decoded(records, batch_size, drop_remainder=False).map(fill_up)

    def _shard_records(self, shard: tf.Tensor) -> tf.data.Dataset:
        """Returns `(serialized record, )` for each record of a shard, and its place in the split if it has no id."""
        path = tf.gather(tf.constant(self._files), shard)
        length = tf.gather(tf.constant(self._lengths, tf.int64), shard)
        records = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES).apply(
            tf.data.experimental.assert_cardinality(length)
        )
        if self.split.has_id:  # numbering each record costs as much as reading it
            return tf.data.Dataset.zip((records,))
        start = tf.gather(tf.constant(self._first_places, tf.int64), shard)
        return records.enumerate(start).map(lambda place, record: (record, place))

    def _decoded(self, records: tf.data.Dataset, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
        decode = functools.partial(decode_records if self.split.encoding == "raw" else decode_record, self.split)
        if self.split.encoding == "raw":  # one parse a batch instead of one an example
            records = records.batch(batch_size, drop_remainder=drop_remainder)
            return records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        decoded = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return decoded.batch(batch_size, drop_remainder=drop_remainder)
