"""The resident reader with the split on the training devices: the host sends places, everything else happens there.

Each replica has the whole split, since an epoch's permutation may bring any example to any of them.
"""

from __future__ import annotations

import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.readers.resident import ResidentReader
from simimg.input.readers.split_arrays import load_examples
from simimg.input.sampler import Order
from simimg.input.split import Batch, Split
from simimg.input.zero_copy import shared_tensor

__all__ = ["DeviceReader"]


class DeviceReader:
    """Reads a split that fits into the memory of each device; made in the scope of the strategy that trains.

    Takes and raises what `load_examples` does.

    Raises:
        UsageError: the split does not fit into a device's memory.
    """

    kind = "resident"

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        self.split = split
        self._num_threads, self._on_corrupt = num_threads, on_corrupt
        examples = load_examples(split, num_threads=num_threads, on_corrupt=on_corrupt)
        self.corrupt = examples.corrupt
        with tf.device("CPU:0"):
            parts = (shared_tensor(examples.images), tf.constant(examples.labels), tf.constant(examples.ids))
        try:
            self._parts = [tf.Variable(part, trainable=False) for part in parts]
        except tf.errors.ResourceExhaustedError:
            raise UsageError(
                f"--cache=device: the {split.decoded_bytes / 2**20:,.0f} MB of split {split.split!r} do not fit into "
                "the memory of a device. Leave it out."
            ) from None

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a data set of places, int64 `[per_replica_batch_size]`."""
        return order.indices()

    def batch(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, gathered on the device of the replica that calls this."""
        return Batch(*(tf.gather(part.read_value(), places) for part in self._parts))

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a data set of Batches of `batch_size`, from the host: the examples are read once more for it."""
        on_host = ResidentReader(self.split, num_threads=self._num_threads, on_corrupt=self._on_corrupt)
        return on_host.eval_batches(batch_size)
