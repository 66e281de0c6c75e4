"""The stream reader: any shards that TensorFlow can open, read from front to back.

It cannot shuffle a whole split uniformly. It reads the shards in an order that depends on (seed, epoch), several at a
time, and shuffles within a buffer of `SHUFFLE_BUFFER` examples; the converter has already mixed the examples across
shards. The order is as reproducible as that of the other readers, but it is a different order. A run resumes at any
position by skipping records before they are decoded. If the split fits into the buffer, the shuffle is uniform.

A dataset that is larger than the cache that it is read through comes one shard at a time, so then one shard is read
after the other, and the next one is fetched meanwhile. This is another order again, which follows from (seed, epoch)
and not from the size of the cache. Within the buffer, examples of neighboring shards are mixed. A run that resumes in
the middle of an epoch fetches the shards before that position once more.

Records are parsed and decoded by TensorFlow's own operations, which can be sent to other machines as a graph.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simimg.input.permutation import permuted
from simimg.input.records import many_hot
from simimg.input.sampler import Order
from simimg.input.split import PADDING_ID, Batch, Reader, Split
from tfrecords.format.absent_shards import supply_of

SHUFFLE_BUFFER = 8192
_CYCLE_LENGTH = 8  # shards open at the same time
_BLOCK_LENGTH = 16  # records taken from one shard before the next
_READ_BUFFER_BYTES = 4 * 2**20  # TensorFlow's default of 256 KB makes too many requests


class StreamReader(Reader):
    """Reads a split sequentially."""

    kind = "stream"

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        self._files = [str(shard.path) for shard in split.shards]
        self._lengths = [shard.num_examples for shard in split.shards]
        self._first_places = [0, *itertools.accumulate(self._lengths[:-1])]
        self._supply = supply_of(split.dataset_dir)

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of per-replica Batches in the order that the module's docstring describes."""
        return self._decoded(self.train_records(order), order.per_replica_batch_size, drop_remainder=True)

    def train_records(self, order: Order) -> tf.data.Dataset:
        """Returns the records of `train_batches` one by one: string scalars, each with its place if it has no id."""
        used = order.steps_per_epoch * order.global_batch_size
        skipped = order.start.step * order.global_batch_size

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            # Set for this function's graph only. Otherwise the program's seed changes the shuffle, and seed 0 raises.
            tf.random.set_seed(1)
            seed = tf.stack([tf.constant(order.seed, tf.int64), epoch])
            num_shards = len(self._files)
            shards = permuted(tf.range(num_shards, dtype=tf.int64), num_shards, order.seed, epoch)
            records = self._opened(shards).interleave(
                self._shard_records,
                cycle_length=min(_CYCLE_LENGTH, num_shards) if self._supply is None else 1,
                block_length=_BLOCK_LENGTH,  # without parallel calls: threads cost more than the reading
            )
            shuffle_seed = tf.random.stateless_uniform([], seed, 0, 2**62, tf.int64)
            records = records.shuffle(SHUFFLE_BUFFER, shuffle_seed, reshuffle_each_iteration=False).take(used)
            return records.skip(tf.where(epoch == order.start.epoch, tf.cast(skipped, tf.int64), 0))

        records = tf.data.Dataset.range(order.start.epoch, order.num_epochs).flat_map(epoch_records)
        if order.local_replicas < order.num_replicas:  # drop the records of other processes before decoding
            batch, total = order.per_replica_batch_size, order.global_batch_size

            def is_ours(count: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tf.Tensor:
                replica = count % total // batch - order.first_replica
                return (replica >= 0) & (replica < order.local_replicas)

            records = records.enumerate().filter(is_ours).map(lambda count, record: record)
        return records

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of Batches: every example once, in the order of the shards, the last batch filled up."""
        shards = tf.range(len(self._files), dtype=tf.int64)
        records = self._opened(shards).interleave(self._shard_records, cycle_length=1, block_length=1)

        def fill_up(batch: Batch) -> Batch:
            rows, last = tf.range(batch_size), tf.shape(batch.id)[0] - 1
            filled = Batch(*(tf.gather(part, tf.minimum(rows, last)) for part in batch))
            return filled._replace(id=tf.where(rows <= last, filled.id, PADDING_ID))

        return self._decoded(records, batch_size, drop_remainder=False).map(fill_up)

    def _opened(self, shards: tf.Tensor) -> tf.data.Dataset:
        """Returns the numbers and the paths of shards, to be opened one after the other."""
        if self._supply is None:
            return tf.data.Dataset.from_tensor_slices((shards, tf.gather(tf.constant(self._files), shards)))
        signature = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string))
        return tf.data.Dataset.from_generator(self._brought, args=(shards,), output_signature=signature)

    def _brought(self, shards: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yields shards and their paths as they are brought here; called by TensorFlow, for each iteration anew."""
        assert self._supply is not None
        lease = self._supply.lease()  # of this iteration alone: another one would close the shard that it opens
        names = [Path(self._files[shard]).name for shard in shards]
        for shard, name, following in zip(shards, names, [*names[1:], ""], strict=True):
            yield shard, lease.path_of(name, following)

    def _shard_records(self, shard: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        """Returns `(serialized record, )` for each record of a shard, with its place in the split if it has no id."""
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
        if self.split.encoding == "raw":  # one parse per batch instead of one per example
            records = records.batch(batch_size, drop_remainder=drop_remainder)
            return records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        decoded = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return decoded.batch(batch_size, drop_remainder=drop_remainder)


def decode_records(split: Split, serialized: tf.Tensor, places: tf.Tensor | None = None) -> Batch:
    """Returns a Batch of raw records, string `[batch]`; `places`, int64 `[batch]`, are the ids if none are stored."""
    features = parse_records(split, serialized)
    # Without `fixed_length`, which would fill up images of another size with zeros, or cut them off.
    pixels = tf.io.decode_raw(features["image"], tf.uint8)
    return Batch(
        image=tf.reshape(pixels, [tf.shape(serialized)[0], *split.image_shape]),
        label=_label(split, features, tf.shape(serialized)),
        id=features.get("id", places),
    )


def decode_record(split: Split, serialized: tf.Tensor, place: tf.Tensor | None = None) -> Batch:
    """Returns one JPEG or PNG record as a Batch without its first axis; the arguments are scalars."""
    features = tf.io.parse_single_example(serialized, _feature_spec(split))
    # TensorFlow's default transform is up to 22 levels off, and no faster.
    accurate = functools.partial(tf.io.decode_jpeg, dct_method="INTEGER_ACCURATE")
    decode = accurate if split.encoding == "jpeg" else tf.io.decode_png
    return Batch(
        image=tf.ensure_shape(decode(features["image"], channels=split.channels), split.image_shape),
        label=_label(split, features, tf.shape(serialized)),
        id=features.get("id", place),
    )


def parse_records(split: Split, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses records, string `[batch]`, into `image`, string `[batch]`, `id`, int64 `[batch]`, and `label`, int64 or
    float32.
    """
    features: dict[str, tf.Tensor] = tf.io.parse_example(serialized, _feature_spec(split))
    return features


def _label(split: Split, features: dict[str, tf.Tensor], shape: tf.Tensor) -> tf.Tensor:
    """Returns the labels of parsed records, as in a Batch; `shape` is that of the serialized records."""
    kind = split.schema.label_type
    if kind == "single":
        return tf.cast(features["label"], tf.int32)
    if kind == "none":
        return tf.fill(shape, -1)
    if kind == "multi":
        return many_hot(features["label"], len(split.class_names))
    return features["label"]


def _feature_spec(split: Split) -> dict[str, Any]:
    kinds = {"image": tf.string, **({"id": tf.int64} if split.has_id else {})}
    spec: dict[str, Any] = {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}
    kind, missing = split.schema.label_type, -1  # stands for the labels that another example of a batch has more
    if kind == "single":
        spec["label"] = tf.io.FixedLenFeature([], tf.int64)
    elif kind == "multi":
        spec["label"] = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True, default_value=missing)
    elif kind == "float":
        spec["label"] = tf.io.FixedLenFeature([split.schema.label_size], tf.float32)
    return spec
