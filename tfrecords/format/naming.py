"""The names of a data set's folder and files, as TensorFlow Datasets spells them.

    <data_dir>/<name>/<version>/<name>-<split>.tfrecord-00000-of-00004

TFDS's patterns (tensorflow_datasets/core/naming.py): a name is a letter followed by letters, digits or `_`; a split may
also hold `-`; indices have at least five digits.
"""

from __future__ import annotations

import re
from pathlib import Path

from tfrecords.errors import UsageError

__all__ = ["VERSION", "check_name", "check_split", "dataset_dir", "shard_name"]

VERSION = "1.0.0"


def check_name(name: str) -> str:
    """Returns `name`, a name that TFDS accepts for a data set.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
        raise UsageError(
            f"--name={name}: a data set's name is a letter followed by letters, digits or '_', e.g. --name=caltech5."
        )
    return name


def check_split(split: str) -> str:
    """Returns `split`, a name that TFDS accepts for a split.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"[a-zA-Z0-9_]+", split):
        raise UsageError(f"split {split!r}: a split's name has letters, digits or '_' only, e.g. train=0.75,test=0.25.")
    return split


def dataset_dir(data_dir: Path, name: str) -> Path:
    """Returns the folder of data set `name` below `data_dir`."""
    return data_dir / name / VERSION


def shard_name(name: str, split: str, shard: int, num_shards: int) -> str:
    """Returns the file name of one shard, e.g. `caltech5-train.tfrecord-00000-of-00008`."""
    return f"{name}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"
