"""The resident reader: the decoded split is one uint8 tensor in memory, and a batch is a gather of any of its rows."""

from __future__ import annotations

import tensorflow as tf

from simimg.input.readers.random_access import GatherReader
from simimg.input.readers.split_arrays import load_examples
from simimg.input.split import Batch, Split
from simimg.input.zero_copy import shared_tensor

__all__ = ["ResidentReader"]


class ResidentReader(GatherReader):
    """Reads a split that fits into memory; takes and raises what `load_examples` does."""

    kind = "resident"

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        super().__init__(split, num_threads)
        examples = load_examples(split, num_threads=num_threads, on_corrupt=on_corrupt)
        self.corrupt = examples.corrupt
        with tf.device("CPU:0"):
            self._images = shared_tensor(examples.images)
            self._labels, self._ids = tf.constant(examples.labels), tf.constant(examples.ids)

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        return Batch(
            image=tf.gather(self._images, places),
            label=tf.gather(self._labels, places),
            id=tf.gather(self._ids, places),
        )
