"""Batches in Python, without what tf.data's own iterator adds to each.

That one asks the same operation for an element and then puts together, in Python, whatever structure a data set may
have; a Batch has always the same. It saves 60 us an element, which a small batch takes no longer to be read.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from simimg.input.split import Batch

__all__ = ["batches_of"]


def batches_of(dataset: tf.data.Dataset) -> Iterator[Batch]:
    """Yields the elements of a data set of Batches."""
    spec = dataset.element_spec
    types, shapes = [part.dtype for part in spec], [part.shape for part in spec]
    iterator = tf.raw_ops.AnonymousIteratorV3(output_types=types, output_shapes=shapes)
    tf.raw_ops.MakeIterator(dataset=tf.data.experimental.to_variant(dataset), iterator=iterator)
    get_next = tf.raw_ops.IteratorGetNext
    while True:
        try:
            element = get_next(iterator=iterator, output_types=types, output_shapes=shapes)
        except tf.errors.OutOfRangeError:
            return
        yield Batch(*element)
