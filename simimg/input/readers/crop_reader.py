"""The mapped reader of crops: each image is cut while it is decoded, see `simimg.input.crops`.

Records are found and verified as by the mapped reader. A batch is divided among threads, and each has a decoder of its
own. The epoch and the seed travel with the places, so the crops of an example do not depend on the batch, the replica,
the thread or the position from which a run was resumed.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import tensorflow as tf

from simimg.input.jpeg_regions import region_library
from simimg.input.python_calls import python_call
from simimg.input.readers.random_access import GatherReader
from simimg.input.records import EncodedRecords
from simimg.input.sampler import Order
from simimg.input.split import Batch, Split
from tfrecords.format.image_size import ImageSize

_IMAGES_PER_CALL = 64  # 50 ms in one thread. The pages of larger memory cost more than joining the parts


class CropReader(GatherReader):
    """Reads a split whose `crops` say what is cut from its images; training crops are random unless they say otherwise.

    `num_threads` threads decode. `on_corrupt` says what to do with a record that cannot be read, see `EncodedRecords`.

    Raises:
        DataError: a shard or a sidecar is missing or damaged.
    """

    kind = "mapped"
    places_per_call = _IMAGES_PER_CALL

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        super().__init__(split, num_threads)
        self._records = EncodedRecords(split, on_corrupt=on_corrupt)
        self.corrupt = self._records.corrupt

    @property
    def reason(self) -> str:
        """How images are cropped, a clause."""
        size, library = self.split.image_size, region_library()
        cut = f"images are cut to {size} px while they are decoded"
        if library is None:
            return f"{cut}; whole, which takes longer. To decode only the crops: pip install 'simimg-tf[crops]'"
        return f"{cut}, by libjpeg-turbo of {library.name}"

    def resized(self, image_size: ImageSize) -> CropReader:
        """Returns a reader of the same records whose crops have another size."""
        assert self.split.crops is not None
        crops = dataclasses.replace(self.split.crops, image_size=image_size)
        other = copy.copy(self)
        other.split, other._records = self.split.cropped(crops), self._records.cut_to(crops)
        return other

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns central crops of the examples at `places`, int64 `[batch]`; or, of int64 `[batch, 3]` with places,
        seeds and epochs, random crops.
        """
        split, batch = self.split, places.shape[0]
        types = [tf.uint8, split.label_dtype, tf.int64]
        image, label, id = python_call(self._gather, [places], types)
        return Batch(
            image=tf.ensure_shape(image, [batch, *split.image_shape]),
            label=tf.ensure_shape(label, [batch, *split.label_shape]),
            id=tf.ensure_shape(id, [batch]),
        )

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of Batches of `order.per_replica_batch_size`, replica after replica, step after step."""
        if self.split.crops is None or self.split.crops.how != "random":
            return super().train_batches(order)
        elements, per_epoch = order.elements, order.steps_per_epoch * order.local_replicas
        numbers = tf.data.Dataset.range(elements.start, elements.stop)
        places = numbers.map(lambda number: _with_run(order.places(number), order.seed, number // per_epoch))
        return self.gathered(places, order.per_replica_batch_size).with_options(self.as_written())

    def _gather(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if places.ndim == 1:
            return self._records.gather(places)
        _, seed, epoch = places[0].tolist()
        return self._records.gather(places[:, 0], (seed, epoch))


def _with_run(places: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    run = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.concat([places[:, None], tf.tile(run[None], [places.shape[0], 1])], axis=1)
