"""A data set folder of TensorFlow Datasets, read without TensorFlow: TFRecord shards of Examples that have an encoded
picture and the number of its class.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.container_files import Containers
from tfrecords.convert.sources.example_fields import bytes_feature, walk_examples
from tfrecords.convert.sources.labels import FileListing, some_of, source_of_labels
from tfrecords.convert.sources.remote import check_driver, check_url, exists_url, is_url, read_url
from tfrecords.convert.sources.source import Source
from tfrecords.convert.sources.webdataset import MULTI_LABEL
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import FOOTER_BYTES, HEADER_BYTES, masked_crc32c
from tfrecords.format.tfds_metadata import INFO_FILE

__all__ = ["TfdsFiles", "is_tfds", "open_tfds"]

_FEATURES_FILE = "features.json"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclasses.dataclass(frozen=True)
class TfdsFiles:
    """Reads the pictures in the examples of TFRecord shards by place; `feature` is the name of theirs."""

    containers: Containers
    feature: str

    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Returns the encoded picture of the record at `place`, whose checksum is checked.

        Raises:
            Refusal: it cannot be read, or the record is damaged or has no picture.
        """
        assert place is not None
        record = self.containers.read(*place)
        payload = record[HEADER_BYTES:-FOOTER_BYTES]
        if masked_crc32c(payload) != int.from_bytes(record[-FOOTER_BYTES:], "little"):
            raise Refusal(Reason.CORRUPT, "the checksum of its record fails")
        try:
            return bytes_feature(payload, self.feature)
        except ValueError as error:
            raise Refusal(Reason.CORRUPT, f"its record has no picture: {error}") from None


def is_tfds(image_dir: str) -> bool:
    """Tells whether `image_dir`, a folder or its URL, has the metadata of a TFDS data set.

    Raises:
        UsageError: a URL has no driver, or cannot be asked.
    """
    names = (INFO_FILE, _FEATURES_FILE)
    if is_url(image_dir):
        check_url(image_dir)
        check_driver(image_dir)
        return all(exists_url(_join(image_dir, name)) for name in names)
    return all(os.path.isfile(_join(image_dir, name)) for name in names)


def open_tfds(dataset_dir: str, categories: Sequence[str] = ()) -> Source:
    """Finds the pictures of a TFDS data set, split by split in the order of its shards.

    Args:
        dataset_dir: the folder with dataset_info.json, or its URL.
        categories: the classes to take, labels counting them in this order; by default all, as the data set has them.

    Raises:
        UsageError: the data set has no picture or not one label an example, is not stored as TFRecord, or is damaged.
    """
    info = _json(dataset_dir, INFO_FILE)
    image, label, num_classes, notes = _features(dataset_dir, info)
    class_names = _class_names(dataset_dir, label, num_classes)
    shards = _shards(dataset_dir, info)
    containers = Containers.of([_join(dataset_dir, shard.file) for shard in shards])
    found = FileListing()
    for number, shard in enumerate(shards):
        count = 0
        path, num_bytes, stamp = containers.paths[number], containers.sizes[number], containers.stamps[number]
        with containers.scanned(number) as read_at:
            for (offset, length), values in walk_examples(read_at, num_bytes, path, image, label):
                number_of_class = -1 if values.label is None else values.label
                known = 0 <= number_of_class < len(class_names)
                found.add(
                    f"{shard.prefix}/{count}",
                    values.num_bytes,
                    stamp,
                    (number, offset, length),
                    label=class_names[number_of_class] if known else "",
                    split=shard.split,
                    refused=None if known else _no_class(values.label, len(class_names)),
                )
                count += 1
        if count != shard.num_examples:
            raise UsageError(
                f"{path} has {count} examples, and {INFO_FILE} promises {shard.num_examples}. "
                "Prepare the data set again."
            )
    return source_of_labels(
        found,
        location=dataset_dir,
        files=TfdsFiles(containers, image),
        categories=categories,
        class_names=class_names,
        notes=notes,
    )


class _Shard(NamedTuple):
    file: str
    split: str
    prefix: str  # of the paths of its examples
    num_examples: int


def _no_class(label: int | None, num_classes: int) -> Refusal:
    return Refusal(Reason.NO_CLASS_FOLDER, f"its label is {label}, and the data set has {num_classes} classes")


def _features(dataset_dir: str, info: Mapping[str, Any]) -> tuple[str, str, int, list[str]]:
    """Returns the names of the picture's and the label's feature, how many classes there are, and notes."""
    features = dict(_flat(_json(dataset_dir, _FEATURES_FILE), "", False))
    supervised = _supervised(info)
    notes = []
    chosen = []
    for kind in ("Image", "ClassLabel"):
        names = [name for name, (each, listed, _) in features.items() if each == kind and not listed]
        inside = [name for name, (each, listed, _) in features.items() if each == kind and listed]
        of_pair = [name for name in names if name in supervised]
        if len(names) > 1 and len(of_pair) == 1:
            notes.append(f"{of_pair[0]} was taken of {some_of(names)}, as the data set's supervised keys say")
            names = of_pair
        if kind == "ClassLabel" and len(names) != 1 and (names or inside):
            which = f"several labels ({some_of(names)})" if names else f"lists of labels ({some_of(inside)})"
            raise UsageError(f"--image_dir={dataset_dir}: its examples have {which}. {MULTI_LABEL}.")
        if len(names) != 1:
            has = ", ".join(f"{name} ({each})" for name, (each, _, _) in features.items())
            raise UsageError(
                f"--image_dir={dataset_dir}: its examples should have one feature of class {kind}. They have: {has}. "
                "Pictures must be stored as files are (JPEG, PNG); raw pixels need no conversion."
            )
        chosen += names
    return chosen[0], chosen[1], features[chosen[1]][2], notes


def _flat(feature: Mapping[str, Any], name: str, listed: bool) -> Iterator[tuple[str, tuple[str, bool, int]]]:
    """Yields (name, (class, whether it is in a sequence, number of classes)) of all features below one."""
    kind = str(feature.get("pythonClassName", "")).rpartition(".")[2]
    if "featuresDict" in feature:
        for key, inner in feature["featuresDict"].get("features", {}).items():
            yield from _flat(inner, f"{name}/{key}" if name else key, listed)
    elif "sequence" in feature:
        yield from _flat(feature["sequence"].get("feature", {}), name, True)
    else:
        yield name, (kind, listed, int(feature.get("classLabel", {}).get("numClasses", 0)))


def _supervised(info: Mapping[str, Any]) -> set[str]:
    keys = info.get("supervisedKeys", {})
    items = keys.get("tuple", {}).get("items", ())
    return {item.get("featureKey", "") for item in items} | {keys.get("input", ""), keys.get("output", "")}


def _class_names(dataset_dir: str, label: str, num_classes: int) -> list[str]:
    path = _join(dataset_dir, f"{label.replace('/', '-')}.labels.txt")
    try:
        text = _read(path).decode()
    except FileNotFoundError:
        return [str(number) for number in range(num_classes)]
    return [name.strip() for name in text.split("\n") if name.strip()]  # as TFDS reads it


def _shards(dataset_dir: str, info: Mapping[str, Any]) -> list[_Shard]:
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise UsageError(
            f"--image_dir={dataset_dir} is stored as {file_format}. Prepare it as TFRecord: "
            "tfds build --file_format=tfrecord, or download_and_prepare(file_format='tfrecord')."
        )
    shards = []
    for split in info.get("splits", ()):
        lengths = [int(length) for length in split.get("shardLengths", ())]
        for index, length in enumerate(lengths):
            of = f"{index:05d}-of-{len(lengths):05d}"
            file = split.get("filepathTemplate") or _TEMPLATE
            parts = {
                "DATASET": info.get("name", ""), "SPLIT": split["name"], "FILEFORMAT": file_format, "SHARD_X_OF_Y": of,
                "SHARD_INDEX": f"{index:05d}", "NUM_SHARDS": f"{len(lengths):05d}",
            }  # fmt: skip
            for token, value in parts.items():
                file = file.replace(f"{{{token}}}", value)
            shards.append(_Shard(file, split["name"], f"{split['name']}/{of}", length))
    if not shards:
        raise UsageError(f"--image_dir={dataset_dir} has no shards, as {INFO_FILE} says. Prepare the data set again.")
    return shards


def _json(dataset_dir: str, name: str) -> Any:
    path = _join(dataset_dir, name)
    try:
        return json.loads(_read(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no valid JSON: {error}. Prepare the data set again.") from None


def _read(path: str) -> bytes:
    if is_url(path):
        if not exists_url(path):
            raise FileNotFoundError(path)
        return read_url(path)
    with open(path, "rb") as file:
        return file.read()


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
