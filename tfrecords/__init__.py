"""Converts images to TFRecord shards, and reads raw ones; the half of simimg that never imports TensorFlow.

`tfrecords.format` describes the files on disk, `tfrecords.convert` writes them, and `tfrecords.read` reads a split of
raw pixels with NumPy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tfrecords.raw_reader import RawSplit

__all__ = ["read"]


def read(dataset_dir: str | Path, split: str) -> RawSplit:
    """Open a split of a raw dataset as a sequence of examples; `tfrecords.raw_reader` shows what can be done with it.

    Args:
        dataset_dir: the folder DATA_DIR/NAME/VERSION.
        split: the name of the split, such as "train", or several ones as one: "fold1+fold3".

    Raises:
        UsageError: there is no such dataset or split, or it is not stored as TFRecords of raw pixels.
        DataError: a file is missing or damaged.
    """
    from tfrecords.raw_reader import RawSplit

    return RawSplit(dataset_dir, split)
