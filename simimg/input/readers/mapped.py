"""The mapped reader: shards of any size on a local disk, mapped into memory, from which batches are gathered.

A raw shard is an array uint8 [num_examples, record_bytes] on disk. A split of raw shards is mapped as one such array,
and TensorFlow gathers from it. JPEG and PNG records are found through their sidecar files and decoded by threads. Only
the records of a batch are read, and the operating system caches as much of the files as memory allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.python_calls import python_call
from simimg.input.readers.random_access import GatherReader
from simimg.input.records import EncodedRecords, shared_tensor, tf_labels, tf_varints
from simimg.input.split import Batch, Split
from simimg.input.split_union import gathered_parts, with_passes
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.record_layout import INT_BYTES, Offsets

_IMAGES_PER_CALL = 256  # decoded by one thread, one after the other

_Gather = Callable[[tf.Tensor], tf.Tensor]


class MappedReader(GatherReader):
    """Reads a split that `simimg convert` wrote.

    `num_threads` threads decode. `on_corrupt` says what to do with a JPEG or PNG record that cannot be read, see
    `EncodedRecords`. The checksums of raw records are not verified here, because that would cost more than reading
    them; `simimg verify` does it.

    Raises:
        UsageError: the split has no layout.json.
        DataError: a shard is missing or damaged.
    """

    kind = "mapped"
    stored: _Gather
    """Returns the bytes of the records at given places: uint8 `[batch, record_bytes]`, or string `[batch]`."""

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        if not split.indexed:
            raise UsageError(
                f"--reader=mapped needs shards that `simimg convert` wrote; {split.dataset_dir} has no layout.json. "
                "Use --reader=resident or --reader=stream."
            )
        super().__init__(split, num_threads)
        if split.offsets is not None:
            self.stored, self._gather = _raw(split, split.offsets)
        else:
            records = EncodedRecords(split, on_corrupt=on_corrupt)
            self.places_per_call = _IMAGES_PER_CALL
            self.corrupt = records.corrupt
            self.stored, self._gather = _encoded(split, records)

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        return self._gather(places)


class MixedReader(GatherReader):
    """Reads a joined split, each part by a `MappedReader`; takes the same arguments, and raises the same errors."""

    kind = "mapped"

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        self._readers = [
            MappedReader(part.split, num_threads=num_threads, on_corrupt=on_corrupt) for part in split.parts
        ]
        super().__init__(split, num_threads)
        self.places_per_call = min(filter(None, (reader.places_per_call for reader in self._readers)), default=None)

    @property
    def corrupt(self) -> dict[int, str]:
        """The reason for each record that was skipped so far, by its place."""
        found: dict[int, str] = {}
        first = 0
        for reader in self._readers:
            found |= {first + place: fault for place, fault in reader.corrupt.items()}
            first += reader.split.num_examples
        return found

    @corrupt.setter
    def corrupt(self, _: dict[int, str]) -> None:
        """Ignores the empty one that every reader begins with, because the readers of the parts have them."""

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]`, which may be those of a mixture."""
        return with_passes(self._at, places)

    def _at(self, places: tf.Tensor) -> Batch:
        return gathered_parts(self.split, [reader.gather for reader in self._readers], places)


def _raw(split: Split, at: Offsets) -> tuple[_Gather, Callable[[tf.Tensor], Batch]]:
    records = map_records([(shard.path, shard.num_examples) for shard in split.shards], at.record_bytes)
    shape, label_bytes, num_classes = split.image_shape, split.schema.label_bytes, len(split.class_names)
    with tf.device("CPU:0"):
        rows = shared_tensor(records.rows)
        ends = tf.constant(records.first_places[1:], tf.int64)
        skipped = tf.constant(np.subtract(records.first_rows, records.first_places[:-1]), tf.int64)

    def stored(places: tf.Tensor) -> tf.Tensor:
        # A place out of range would be a row that does not exist, and reading it kills the process.
        places = tf.clip_by_value(places, 0, split.num_examples - 1)
        shard = tf.searchsorted(ends, places, side="right")
        return tf.gather(rows, places + tf.gather(skipped, shard))

    def gather(places: tf.Tensor) -> Batch:
        batch = stored(places)
        pixels = batch[:, at.image_offset : at.image_offset + math.prod(shape)]
        return Batch(
            image=tf.reshape(pixels, [-1, *shape]),
            label=tf_labels(batch[:, at.label_offset : at.label_offset + label_bytes], split.schema, num_classes),
            id=tf_varints(batch[:, at.id_offset : at.id_offset + INT_BYTES]),
        )

    return stored, gather


def _encoded(split: Split, records: EncodedRecords) -> tuple[_Gather, Callable[[tf.Tensor], Batch]]:
    shape, types = split.image_shape, [tf.uint8, split.label_dtype, tf.int64]

    def stored(places: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(python_call(records.stored, [places], tf.string), places.shape)

    def gather(places: tf.Tensor) -> Batch:
        image, label, id = python_call(records.gather, [places], types)
        return Batch(
            image=tf.ensure_shape(image, [places.shape[0], *shape]),
            label=tf.ensure_shape(label, [places.shape[0], *split.label_shape]),
            id=tf.ensure_shape(id, places.shape),
        )

    return stored, gather
