"""The resident reader: the decoded split is one uint8 tensor in memory, and a batch is a gather of any of its rows."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simimg.input.dataset import Batch, Split, reading
from simimg.input.stream import StreamReader
from tfrecords.format.layout import INT_BYTES

__all__ = ["ResidentReader"]

_LOAD_BATCH = 256


class ResidentReader:
    """Reads a split that fits into memory.

    Raises:
        DataError: a record cannot be read, or there are fewer or more than the metadata says.
    """

    kind = "resident"

    def __init__(self, split: Split) -> None:
        self.split = split
        images, labels, ids = _load_raw(split) if split.offsets else _load_decoded(split)
        with tf.device("CPU:0"):
            self._images = tf.constant(images)
            self._labels = tf.constant(labels)
            self._ids = tf.constant(ids)

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        return Batch(
            image=tf.gather(self._images, places),
            label=tf.gather(self._labels, places),
            id=tf.gather(self._ids, places),
        )


def _load_raw(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert split.offsets is not None
    at, size = split.offsets, split.image_size
    images = np.empty((split.num_examples, size, size, 3), np.uint8)
    labels = np.empty(split.num_examples, np.int32)
    ids = np.empty(split.num_examples, np.int64)
    first = 0
    for shard in split.shards:
        if not shard.num_examples:
            continue
        records = np.memmap(shard.path, np.uint8, "r", shape=(shard.num_examples, at.record_bytes))
        rows = slice(first, first + shard.num_examples)
        images[rows].reshape(shard.num_examples, -1)[:] = records[
            :, at.image_offset : at.image_offset + size * size * 3
        ]
        labels[rows] = _varints(records, at.label_offset)
        ids[rows] = _varints(records, at.id_offset)
        first += shard.num_examples
    return images, labels, ids


def _load_decoded(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = np.empty((split.num_examples, split.image_size, split.image_size, 3), np.uint8)
    labels = np.empty(split.num_examples, np.int32)
    ids = np.empty(split.num_examples, np.int64)
    first = 0
    for batch in reading(split, StreamReader(split).eval_batches(_LOAD_BATCH)):
        count = min(_LOAD_BATCH, split.num_examples - first)
        rows = slice(first, first + count)
        images[rows], labels[rows], ids[rows] = (part.numpy()[:count] for part in batch)
        first += count
    return images, labels, ids


def _varints(records: np.ndarray, offset: int) -> np.ndarray:
    groups = records[:, offset : offset + INT_BYTES].astype(np.int64) & 0x7F
    return (groups << (7 * np.arange(INT_BYTES))).sum(axis=1)
