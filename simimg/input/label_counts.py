"""How many examples of each class a split has."""

from __future__ import annotations

import numpy as np

from simimg.input.pipeline import Reader, eval_batches
from simimg.input.split import PADDING_ID, reading
from tfrecords.format.manifest import iter_manifest
from tfrecords.format.naming import MANIFEST_FILE

__all__ = ["label_counts"]

_BATCH_SIZE = 256


def label_counts(reader: Reader) -> np.ndarray:
    """Returns the number of examples of each class, int64 `[num_classes]`: of the manifest, or by reading them all.

    Raises:
        DataError: the manifest is damaged, or a record cannot be read.
    """
    split = reader.split
    counts = np.zeros(len(split.class_names), np.int64)
    if split.indexed and (split.dataset_dir / MANIFEST_FILE).exists():
        for part in iter_manifest(split.dataset_dir):
            here = part.ok & (np.array([*part.split_names, ""])[part.splits] == split.split)
            counts += np.bincount(part.labels[here], minlength=len(counts))
        return counts
    for batch in reading(split, eval_batches(reader, min(_BATCH_SIZE, split.num_examples))):
        labels = batch.label.numpy()[batch.id.numpy() != PADDING_ID]
        counts += np.bincount(labels, minlength=len(counts))
    return counts
