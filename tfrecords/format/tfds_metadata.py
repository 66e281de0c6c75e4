"""The metadata files of TensorFlow Datasets: dataset_info.json, features.json and label.labels.txt.

They are written as tensorflow_datasets.folder_dataset.write_metadata (4.9) writes them, so
`tfds.builder_from_directory` opens a dataset folder. Those of folders that TFDS prepared are read here, too. Such a
folder comes from elsewhere: a file name has no folder in it, every number is in its range, and anything else is a
ValueError.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tfrecords.base_errors import DataError
from tfrecords.format.atomic_files import atomic_file, json_bytes, read_json
from tfrecords.format.image_size import image_shape, sides_text
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.naming import FEATURES_FILE, INFO_FILE, LABELS_FILE, TFRECORD, check_file_name
from tfrecords.format.record import FRAMING_BYTES
from tfrecords.format.schema import VARIABLE, FeatureSpec

_FEATURES = "tensorflow_datasets.core.features"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # tensorflow_datasets/core/naming.py
_MAX_CLASSES = 1 << 22  # each has a name in memory, also if the folder has only their number
_MAX_COUNT = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsInfo:
    """The parts of dataset_info.json that readers need.

    `shards` has, for each split, the file name and the number of examples of each shard. `supervised` are the names of
    the features that the dataset declares as input and target.
    """

    name: str
    file_format: str
    shards: dict[str, tuple[tuple[str, int], ...]]
    supervised: frozenset[str]

    @classmethod
    def parse(cls, info: Any) -> TfdsInfo:
        """Return the content of a dataset_info.json, given as the value of its JSON; raise ValueError if it has another
        form.
        """
        with _value_errors():
            name, file_format = _text(info.get("name", "")), _text(info.get("fileFormat", TFRECORD))
            keys = info.get("supervisedKeys", {})
            pair = [item.get("featureKey", "") for item in _list(keys.get("tuple", {}).get("items", []))]
            splits = _list(info.get("splits", []))
            shards = {_text(split["name"]): tuple(_shards(name, file_format, split)) for split in splits}
            if len(shards) < len(splits):
                raise ValueError("it has two splits of one name")
            return cls(
                name=name,
                file_format=file_format,
                shards=shards,
                supervised=frozenset(map(_text, (*pair, keys.get("input", ""), keys.get("output", "")))),
            )


class TfdsFeature(NamedTuple):
    """One feature of features.json.

    `kind` is the name of its TFDS class, such as Image, ClassLabel or Tensor. `in_sequence` says whether an example has
    a list of them. `encoding` is "raw" for a tensor stored as bytes and "" if a value is not stored as a byte string.
    """

    kind: str
    in_sequence: bool
    num_classes: int
    encoding: str
    dtype: str
    shape: tuple[int, ...]


def parse_features(features: Any) -> dict[str, TfdsFeature]:
    """Return the features of a features.json, given as the value of its JSON; those of inner dictionaries as `a/b`.

    Raises ValueError if it has another form.
    """
    with _value_errors():
        return dict(_flat(features, "", False))


def class_names(labels: bytes | None, num_classes: int) -> list[str]:
    """Return the names in a labels file, or the numbers of the classes if there is no such file.

    As in TFDS, a name ends at a line break of any system and at nothing else, and blank lines do not count.

    Raises ValueError if the file is not UTF-8, or has names for another number of classes than `num_classes`, unless
    that is 0.
    """
    if labels is None:
        return [str(number) for number in range(num_classes)]
    lines = re.split("\r\n|\r|\n", labels.decode())
    names = [name.strip() for name in lines if name.strip()]
    if num_classes not in (0, len(names)):
        raise ValueError(f"it has {len(names)} names for {num_classes} classes")
    return names


def write_metadata(dataset_dir: Path, layout: Layout) -> None:
    """Write the metadata files of the dataset that `layout` describes into `dataset_dir`."""
    for name, content in metadata_files(layout).items():
        with atomic_file(dataset_dir / name, sync_name=False) as file:
            file.write(content)


def metadata_files(layout: Layout) -> dict[str, bytes]:
    """Return the content of each metadata file by its name.

    dataset_info.json comes last, so a folder that has it has the others.
    """
    has_classes = layout.schema.label_type in ("single", "multi")
    return {
        FEATURES_FILE: json_bytes(_features_json(layout)),
        **({LABELS_FILE: "".join(f"{name}\n" for name in layout.class_names).encode()} if has_classes else {}),
        INFO_FILE: json_bytes(_info_json(layout)),
    }


def is_tfds_folder(dataset_dir: Path) -> bool:
    """Return whether `dataset_dir` has TFDS metadata."""
    return (dataset_dir / INFO_FILE).is_file() and (dataset_dir / FEATURES_FILE).is_file()


def num_examples_by_split(dataset_dir: Path) -> dict[str, int]:
    """Return the number of examples that dataset_info.json gives for each split.

    Raises DataError if the file is missing, not JSON, or without the lengths of the shards.
    """
    path = dataset_dir / INFO_FILE
    info = read_json(path, "the dataset's TFDS metadata")
    try:
        shards = TfdsInfo.parse(info).shards
    except ValueError as error:
        raise DataError(f"{path} should have each split's name and shardLengths ({error}).") from None
    return {split: sum(count for _, count in files) for split, files in shards.items()}


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turn the errors of reading a JSON value of another form into ValueErrors."""
    try:
        yield
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(repr(error)) from None


def _shards(name: str, file_format: str, split: dict[str, Any]) -> Iterator[tuple[str, int]]:
    lengths = [_number(length, 0, _MAX_COUNT) for length in _list(split.get("shardLengths", []))]
    template = _text(split.get("filepathTemplate") or _TEMPLATE)
    values = {"DATASET": name, "SPLIT": split["name"], "FILEFORMAT": file_format, "NUM_SHARDS": f"{len(lengths):05d}"}
    for index, length in enumerate(lengths):
        values["SHARD_INDEX"] = f"{index:05d}"
        values["SHARD_X_OF_Y"] = f"{values['SHARD_INDEX']}-of-{values['NUM_SHARDS']}"
        # Not str.format, which a template can make read attributes and fill the memory.
        file = re.sub(r"\{([^{}]*)\}", lambda match: values[match[1]], template)
        yield check_file_name(file), length


def _flat(feature: Any, name: str, in_sequence: bool) -> Iterator[tuple[str, TfdsFeature]]:
    if "featuresDict" in feature:
        for key, inner in feature["featuresDict"].get("features", {}).items():
            yield from _flat(inner, f"{name}/{key}" if name else _text(key), in_sequence)
    elif "sequence" in feature:
        yield from _flat(feature["sequence"].get("feature", {}), name, True)
    else:
        image, tensor = feature.get("image", {}), feature.get("tensor", {})
        is_raw = tensor.get("encoding") == "bytes"
        yield (
            name,
            TfdsFeature(
                kind=str(feature.get("pythonClassName", "")).rpartition(".")[2],
                in_sequence=in_sequence,
                num_classes=_number(feature.get("classLabel", {}).get("numClasses", 0), 0, _MAX_CLASSES),
                encoding=image.get("encodingFormat") or "png" if "image" in feature else "raw" if is_raw else "",
                dtype=image.get("dtype") or tensor.get("dtype") or "",
                shape=tuple(
                    _number(size, -1, _MAX_COUNT)
                    for size in _list((image or tensor).get("shape", {}).get("dimensions", []))
                ),
            ),
        )


def _text(value: Any) -> str:
    """Return a string that can be a name in a file system."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"a name should be a text. Received: {value!r:.100}")
    value.encode()  # a JSON text may have surrogates, which are no characters
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"there should be a list. Received: {value!r:.100}")
    return value


def _number(value: Any, lowest: int, highest: int) -> int:
    """Return a whole number, which protobuf's JSON writes as a number or as a string."""
    text = str(value) if isinstance(value, (int, str)) else ""
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not lowest <= int(text) <= highest:
        raise ValueError(f"a number should be {lowest}..{highest}. Received: {value!r:.100}")
    return int(text)


def _info_json(layout: Layout) -> dict[str, Any]:
    # Protobuf's JSON writes 64-bit integers as strings.
    pair = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    return {
        "name": layout.name,
        **_description_json(layout),
        "version": layout.version,
        "fileFormat": layout.file_format,
        **({"supervisedKeys": pair} if layout.schema.label_type != "none" else {}),
        "splits": [
            {
                "name": split,
                "filepathTemplate": _TEMPLATE,
                "shardLengths": [str(shard.num_examples) for shard in shards],
                "numBytes": str(sum(map(_payload_bytes, shards))),
            }
            for split, shards in layout.splits.items()
        ],
    }


def _description_json(layout: Layout) -> dict[str, Any]:
    """Return what TFDS shows about the dataset. Without a location, it shows an address of its catalog, where the
    dataset is not; `about:blank` is an address that has nothing.
    """
    if not layout.source:  # of a dataset of an earlier version
        return {}
    counts = ", ".join(f"{layout.num_examples(split):,} {split}" for split in layout.splits)
    total = sum(map(layout.num_examples, layout.splits))
    classes = f" of {len(layout.class_names):,} classes" if layout.schema.label_type in ("single", "multi") else ""
    source = ", ".join(f"--{flag}={value}" for flag, value in layout.source.items())
    options = ", ".join(
        f"{name} {value}" for name, value in layout.config.items() if value and name not in ("name", "from")
    )
    pixels = "raw pixels, not image files" if layout.encoding == "raw" else f"{layout.encoding.upper()} images"
    size = "shapes of their own" if layout.own_shapes else f"{sides_text(layout.image_size, 'x')} px"
    text = (
        f"{total:,} examples ({counts}){classes}, {size}, {pixels}. Version "
        f"{layout.version}, made by `simimg convert` from {source}. Options: {options}."
    )
    return {"description": text, "location": {"urls": ["about:blank"]}}


def _payload_bytes(shard: ShardInfo) -> int:
    if shard.payload_bytes is not None:
        return shard.payload_bytes
    return shard.num_bytes - FRAMING_BYTES * shard.num_examples


def _features_json(layout: Layout) -> dict[str, Any]:
    own = (-1, -1, layout.channels)  # -1: any
    shape = own if layout.own_shapes else image_shape(layout.image_size, layout.channels)
    pixels = {"shape": {"dimensions": [str(side) for side in shape]}, "dtype": "uint8"}
    if layout.encoding == "raw":
        image = _feature("tensor_feature.Tensor", tensor={**pixels, "encoding": "bytes"})
    else:
        image = _feature("image_feature.Image", image={**pixels, "encodingFormat": layout.encoding})
    features = {
        "id": _feature("tensor_feature.Tensor", tensor={"shape": {}, "dtype": "int64", "encoding": "none"}),
        "image": image,
        **_label_json(layout),
        **{spec.name: _value_json(spec) for spec in layout.schema.features},
    }
    return _feature("features_dict.FeaturesDict", featuresDict={"features": features})


def _label_json(layout: Layout) -> dict[str, Any]:
    schema = layout.schema
    label = _feature("class_label_feature.ClassLabel", classLabel={"numClasses": str(len(layout.class_names))})
    if schema.label_type == "multi":
        label = _feature("sequence_feature.Sequence", sequence={"feature": label, "length": "-1"})
    elif schema.label_type == "float":
        length = schema.label_size if schema.label_size > 1 else 0
        label = _value_json(FeatureSpec(name="label", dtype="float32", length=length))
    return {} if schema.label_type == "none" else {"label": label}


def _value_json(spec: FeatureSpec) -> dict[str, Any]:
    """Return a feature as TFDS writes it: a tensor or a text, or a sequence of one of them."""
    is_number = spec.dtype in ("int64", "float32")
    is_sequence = spec.length == VARIABLE or (spec.length > 0 and not is_number)
    shape = {"dimensions": [str(spec.length)]} if spec.length > 0 and not is_sequence else {}
    dtype = spec.dtype if is_number else "string"
    value = _feature("tensor_feature.Tensor", tensor={"shape": shape, "dtype": dtype, "encoding": "none"})
    if spec.dtype == "text":
        value = _feature("text_feature.Text", text={})
    if is_sequence:
        length = str(spec.length) if spec.length > 0 else "-1"
        value = _feature("sequence_feature.Sequence", sequence={"feature": value, "length": length})
    return value


def _feature(kind: str, **content: Any) -> dict[str, Any]:
    return {"pythonClassName": f"{_FEATURES}.{kind}", **content}
