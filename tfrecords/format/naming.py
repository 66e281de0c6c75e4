"""Names of a dataset's folder and of the files in it; the shards' names are those of TensorFlow Datasets.

    <data_dir>/<name>/<version>/<name>-<split>.tfrecord-00000-of-00004

TFDS's patterns (tensorflow_datasets/core/naming.py): a name is a letter followed by letters, digits or `_`. A split may
also contain `-`. Indices have at least five digits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from tfrecords.base_errors import UsageError

VERSION = "1.0.0"  # of a dataset that nothing was appended to

# The formats of shards, by the names that TFDS has for them.
TFRECORD, ARRAY_RECORD = FILE_FORMATS = ("tfrecord", "array_record")

LAYOUT_FILE = "layout.json"
MANIFEST_FILE = "manifest.parquet"
QUARANTINE_FILE = "quarantine.jsonl"  # one line per rejected file; absent if there is none
REPORT_FILE = "report.html"
# Sidecars are not beside finished shards, where patterns of other programs, such as NAME-train*, would take them too.
INDEX_FOLDER = "idx"
SIZES_FOLDER = "sizes"  # not the same, so that there is one file per shard in each, as DALI demands
SIDECAR_FOLDERS = (INDEX_FOLDER, SIZES_FOLDER)
# TFDS's own:
INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
LABELS_FILE = "label.labels.txt"

_MAX_SPLITS = 127  # the manifest has a signed byte for the number of a split
_MAX_SPLIT_NAME = 100  # characters; a file name has at most 255 bytes, and also holds the dataset's name
_ALL_SPLITS = "all"  # in TFDS, the name of all splits together


def check_name(name: str) -> str:
    """Return `name`, or raise UsageError if TFDS does not accept it for a dataset."""
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
        raise UsageError(f"--name={name}: should be a letter followed by letters, digits or '_', e.g. --name=caltech5.")
    return name


def name_after(location: str) -> str:
    """Return a dataset name made from the last part of a path or URL, without its suffixes."""
    last = re.split(r"[/\\]", location.rstrip("/\\") if "://" in location else os.path.abspath(location))[-1]
    stem = re.sub(r"(\.(zip|tar|csv|tsv|parquet))+$|[-_.]*(\{.*\}|\*).*$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")
    return name if re.match("[a-zA-Z]", name) else f"images_{name}".rstrip("_")


def check_split(split: str) -> str:
    """Return `split`, or raise UsageError if TFDS does not accept it for a split."""
    if not re.fullmatch(r"[a-zA-Z0-9_]+", split):
        raise UsageError(
            f"split {split!r}: a split's name should have only letters, digits or '_', e.g. train=0.75,test=0.25."
        )
    if split == _ALL_SPLITS:
        raise UsageError(f"split {split!r}: TensorFlow Datasets reads all splits under this name. Choose another one.")
    if len(split) > _MAX_SPLIT_NAME:
        raise UsageError(
            f"split {split!r}: a split's name should have at most {_MAX_SPLIT_NAME} characters. Received: {len(split)}."
        )
    return split


def check_splits(splits: Collection[str]) -> None:
    """Raise UsageError unless a dataset can have these splits: TFDS accepts each name, and they are not too many."""
    for split in splits:
        check_split(split)
    if len(splits) > _MAX_SPLITS:
        raise UsageError(f"a dataset should have at most {_MAX_SPLITS} splits. Received: {len(splits)}.")


def fold_name(number: int) -> str:
    """Return the name of the split that is fold `number`, from 1, of a dataset that was made for cross-validation."""
    return f"fold{number}"


def num_folds(splits: Collection[str]) -> int:
    """Return the number of folds that these splits are, 0 if they are not fold1, fold2, … and nothing else."""
    return len(splits) if len(splits) > 1 and set(splits) == {*map(fold_name, range(1, len(splits) + 1))} else 0


def check_other_name(name: str) -> str:
    """Return `name`, or raise ValueError if it is not the name of a file of a dataset, which may be a sidecar."""
    folder, _, inner = name.partition("/")
    check_file_name(inner if folder in SIDECAR_FOLDERS else name)
    return name


def check_file_name(name: str) -> str:
    """Return `name`, or raise ValueError if it is not the name of a file in one given folder."""
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise ValueError(f"a file name should have no folder in it. Received: {name[:100]!r}")
    return name


def dataset_dir(data_dir: Path, name: str, version: str = VERSION) -> Path:
    """Return the folder of a version of dataset `name` in `data_dir`."""
    return data_dir / name / version


def versions(data_dir: Path, name: str) -> list[Path]:
    """Return the folders of all versions of dataset `name` in `data_dir`, in the order of their version numbers
    (1.10.0 after 1.9.0).

    Folders with other names, such as a conversion's working folder, are left out.
    """
    try:
        folders = [path for path in (data_dir / name).iterdir() if version_numbers(path.name) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folders, key=lambda path: version_numbers(path.name))


def next_version(version: str, *, changes: bool = False) -> str:
    """Return the version number of a dataset made by appending to `version`: 1.1.0 after 1.0.0.

    If it `changes` examples or leaves some out, it is 2.0.0. This is TFDS's rule: a higher minor version has the same
    examples and more. Raises ValueError if `version` is not three numbers.
    """
    numbers = version_numbers(version)
    if not numbers:
        raise ValueError(f"`version` should be three numbers, e.g. 1.0.0. Received: version={version!r}")
    return f"{numbers[0] + 1}.0.0" if changes else f"{numbers[0]}.{numbers[1] + 1}.0"


def shard_name(name: str, split: str, shard: int, num_shards: int, file_format: str = TFRECORD) -> str:
    """Return the file name of one shard, e.g. `caltech5-train.tfrecord-00000-of-00008`."""
    return f"{name}-{split}.{file_format}-{shard:05d}-of-{num_shards:05d}"


def is_shard(file: str) -> bool:
    """Return whether a file of this name is a shard."""
    return re.search(rf"\.({'|'.join(FILE_FORMATS)})-\d+-of-\d+$", file) is not None


def is_array_record(shard: str) -> bool:
    """Return whether a shard is an ArrayRecord file, given its file name; `shard_name` has one dot, before the format.

    Other names are those of TFRecord files, including names that other programs gave them.
    """
    return shard.partition(".")[2].startswith(f"{ARRAY_RECORD}-")


def index_path(shard: Path) -> Path:
    """Return the path of the offsets sidecar of a shard that is being made, and in datasets of earlier versions."""
    return shard.with_name(f"{shard.name}.idx")


def index_name(shard: str) -> str:
    """Return the name of a shard's offsets sidecar in a finished dataset, relative to its folder."""
    return f"{INDEX_FOLDER}/{shard}.idx"


def find_index(shard: Path) -> Path:
    """Return the path of a shard's offsets sidecar, whichever of the two it is; the first one if neither is there."""
    finished = shard.parent / index_name(shard.name)
    return finished if finished.exists() else index_path(shard)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the three numbers of a version, or an empty tuple if `version` is not one."""
    number = "(0|[1-9][0-9]*)"
    match = re.fullmatch(rf"{number}\.{number}\.{number}", version)
    return tuple(map(int, match.groups())) if match else ()
