"""The mapped reader: raw shards of any size, mapped into memory, a batch gathered from anywhere in them.

A raw shard is an array uint8 [num_examples, record_bytes] on disk. tf.raw_ops.ImmutableConst maps the file without
reading or copying it; only the records of a batch are touched.
"""

from __future__ import annotations

import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.dataset import Batch, Split
from tfrecords.format.layout import INT_BYTES

__all__ = ["MappedReader"]


class MappedReader:
    """Reads a split with raw shards on a local disk.

    Raises:
        UsageError: the split is not raw.
    """

    kind = "mapped"

    def __init__(self, split: Split) -> None:
        if split.offsets is None:
            raise UsageError(
                f"--reader=mapped needs raw shards; {split.dataset_dir} has {split.encoding}. "
                "Use --reader=resident or --reader=stream."
            )
        self.split = split
        self._offsets = split.offsets
        self._shards = []
        first_places = [0]
        with tf.device("CPU:0"):
            for shard in split.shards:
                if shard.num_examples:
                    shape = [shard.num_examples, split.offsets.record_bytes]
                    self._shards.append(
                        tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=shape, memory_region_name=str(shard.path))
                    )
                    first_places.append(first_places[-1] + shard.num_examples)
            self._first_places = tf.constant(first_places[:-1], tf.int64)

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        at, size = self._offsets, self.split.image_size
        records = self._records(places)
        pixels = records[:, at.image_offset : at.image_offset + size * size * 3]
        return Batch(
            image=tf.reshape(pixels, [-1, size, size, 3]),
            label=tf.cast(_varints(records, at.label_offset), tf.int32),
            id=_varints(records, at.id_offset),
        )

    def _records(self, places: tf.Tensor) -> tf.Tensor:
        if len(self._shards) == 1:
            return tf.gather(self._shards[0], places)
        shard = tf.cast(tf.searchsorted(self._first_places, places, side="right") - 1, tf.int32)
        rows = places - tf.gather(self._first_places, shard)
        wanted = tf.dynamic_partition(rows, shard, len(self._shards))
        positions = tf.dynamic_partition(tf.range(tf.size(places)), shard, len(self._shards))
        parts = [tf.gather(records, row) for records, row in zip(self._shards, wanted, strict=True)]
        return tf.ensure_shape(tf.dynamic_stitch(positions, parts), [places.shape[0], self._offsets.record_bytes])


def _varints(records: tf.Tensor, offset: int) -> tf.Tensor:
    groups = tf.cast(records[:, offset : offset + INT_BYTES], tf.int64) & 0x7F
    return tf.reduce_sum(tf.bitwise.left_shift(groups, 7 * tf.range(INT_BYTES, dtype=tf.int64)), axis=1)
