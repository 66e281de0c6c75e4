"""The metadata files with which `tfds.builder_from_directory` opens a data set folder: dataset_info.json, features.json
and label.labels.txt, as tensorflow_datasets.folder_dataset.write_metadata (4.9) writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, json_bytes, read_json
from tfrecords.format.layout import Layout
from tfrecords.format.record import FRAMING_BYTES

__all__ = ["INFO_FILE", "is_tfds_folder", "metadata_files", "num_examples_by_split", "write_metadata"]

INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_LABELS_FILE = "label.labels.txt"
_FEATURES = "tensorflow_datasets.core.features"


def write_metadata(dataset_dir: Path, layout: Layout) -> None:
    """Writes the metadata files of the data set that `layout` describes into `dataset_dir`."""
    for name, content in metadata_files(layout).items():
        with atomic_file(dataset_dir / name, sync_name=False) as file:
            file.write(content)


def metadata_files(layout: Layout) -> dict[str, bytes]:
    """Returns what each metadata file holds, by its name.

    dataset_info.json comes last, so a folder that has it has the others.
    """
    return {
        _FEATURES_FILE: json_bytes(_features(layout)),
        _LABELS_FILE: "".join(f"{name}\n" for name in layout.class_names).encode(),
        INFO_FILE: json_bytes(_info(layout)),
    }


def is_tfds_folder(dataset_dir: Path) -> bool:
    """Tells whether `dataset_dir` has TFDS metadata."""
    return (dataset_dir / INFO_FILE).is_file() and (dataset_dir / _FEATURES_FILE).is_file()


def num_examples_by_split(dataset_dir: Path) -> dict[str, int]:
    """Returns how many examples dataset_info.json promises for each split.

    Raises:
        DataError: the file is missing, not JSON, or without the lengths of the shards.
    """
    path = dataset_dir / INFO_FILE
    info = read_json(path, "the data set's TFDS metadata")
    try:
        return {split["name"]: sum(map(int, split.get("shardLengths", ()))) for split in info.get("splits", ())}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} should have each split's name and shardLengths ({error!r}).") from None


def _info(layout: Layout) -> dict[str, Any]:
    # Protobuf's JSON has 64-bit integers as strings.
    return {
        "name": layout.name,
        "version": layout.version,
        "fileFormat": "tfrecord",
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(shard.num_examples) for shard in shards],
                "numBytes": str(sum(shard.num_bytes - FRAMING_BYTES * shard.num_examples for shard in shards)),
            }
            for split, shards in layout.splits.items()
        ],
    }


def _features(layout: Layout) -> dict[str, Any]:
    dimensions = {"dimensions": [str(layout.image_size), str(layout.image_size), "3"]}
    if layout.encoding == "raw":
        image: dict[str, Any] = {
            "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
            "tensor": {"shape": dimensions, "dtype": "uint8", "encoding": "bytes"},
        }
    else:
        image = {
            "pythonClassName": f"{_FEATURES}.image_feature.Image",
            "image": {"shape": dimensions, "dtype": "uint8", "encodingFormat": layout.encoding},
        }
    label = {
        "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(len(layout.class_names))},
    }
    id_feature = {
        "pythonClassName": f"{_FEATURES}.tensor_feature.Tensor",
        "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
    }
    return {
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
        "featuresDict": {"features": {"id": id_feature, "image": image, "label": label}},
    }
