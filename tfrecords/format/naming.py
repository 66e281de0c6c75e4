"""The names of a data set's folder and files, as TensorFlow Datasets spells them.

    <data_dir>/<name>/<version>/<name>-<split>.tfrecord-00000-of-00004

TFDS's patterns (tensorflow_datasets/core/naming.py): a name is a letter followed by letters, digits or `_`; a split may
also hold `-`; indices have at least five digits.
"""

from __future__ import annotations

import re
from pathlib import Path

from tfrecords.base_errors import UsageError

__all__ = ["VERSION", "check_name", "check_split", "dataset_dir", "next_version", "shard_name", "versions"]

VERSION = "1.0.0"  # of a data set that nothing was added to


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


def dataset_dir(data_dir: Path, name: str, version: str = VERSION) -> Path:
    """Returns the folder of a version of data set `name` below `data_dir`."""
    return data_dir / name / version


def versions(data_dir: Path, name: str) -> list[Path]:
    """Returns the folders of all versions of data set `name` below `data_dir`, oldest first, by number: 1.10.0 is last.

    Folders with other names, such as those that conversions work in, are left out.
    """
    try:
        folders = [path for path in (data_dir / name).iterdir() if _parsed(path.name) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folders, key=lambda path: _parsed(path.name))


def next_version(version: str) -> str:
    """Returns the version of what is made by adding to `version`: 1.1.0 after 1.0.0.

    TFDS's rule: a higher minor version has the same examples and more.

    Raises:
        ValueError: `version` is not three numbers.
    """
    numbers = _parsed(version)
    if not numbers:
        raise ValueError(f"`version` should be three numbers, e.g. 1.0.0. Received: version={version!r}")
    return f"{numbers[0]}.{numbers[1] + 1}.0"


def shard_name(name: str, split: str, shard: int, num_shards: int) -> str:
    """Returns the file name of one shard, e.g. `caltech5-train.tfrecord-00000-of-00008`."""
    return f"{name}-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def _parsed(version: str) -> tuple[int, ...]:
    """Returns the numbers of a version, none if it is no version."""
    number = "(0|[1-9][0-9]*)"
    match = re.fullmatch(rf"{number}\.{number}\.{number}", version)
    return tuple(map(int, match.groups())) if match else ()
