"""A dataset folder of TensorFlow Datasets, read without TensorFlow.

Its TFRecord shards hold Examples with an encoded image and the number of its class.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.container_files import Containers
from tfrecords.convert.sources.labels import FileListing, some_of, source_of_labels
from tfrecords.convert.sources.read_errors import MissingFile, refusal_of
from tfrecords.convert.sources.remote import driver_of, exists_url, is_url, read_url
from tfrecords.convert.sources.row_values import ONE_CLASS
from tfrecords.convert.sources.selection import Selection
from tfrecords.convert.sources.source import Source, refuse_damaged
from tfrecords.format.atomic_files import parse_json
from tfrecords.format.example import bytes_feature, find_features
from tfrecords.format.naming import FEATURES_FILE, INFO_FILE, TFRECORD
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, ReadAt, footer, header
from tfrecords.format.tfds_metadata import TfdsFeature, TfdsInfo, class_names, parse_features

# Bytes of a record that are read to find the label: names and small features, but only the beginning of an image.
_PEEK_BYTES = 512


class Values(NamedTuple):
    """The label of an example, or None, and the length of its image in bytes, or -1."""

    label: int | None
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class TfdsFiles:
    """Reads the images in the examples of TFRecord shards by place; `feature` is the name of their feature."""

    containers: Containers
    feature: str

    @refuse_damaged
    def read(self, path: str, place: tuple[int, int, int] | None) -> bytes:
        """Return the encoded image of the record at `place`, after checking the record's checksum.

        Raises Refusal if it cannot be read, or the record is damaged or has no image.
        """
        assert place is not None
        record = self.containers.read_range(*place)
        payload = record[HEADER_BYTES:-FOOTER_BYTES]
        if record[-FOOTER_BYTES:] != footer(payload):
            raise Refusal(Reason.CORRUPT, "the checksum of its record fails")
        try:
            return bytes_feature(payload, self.feature)
        except ValueError as error:
            raise Refusal(Reason.CORRUPT, f"its record has no image: {error}") from None


def is_tfds(image_dir: str) -> bool:
    """Return whether `image_dir`, a folder or its URL, has the metadata of a TFDS dataset.

    Raises UsageError if there is no driver for the URL, or the driver fails.
    """
    names = (INFO_FILE, FEATURES_FILE)
    if is_url(image_dir):
        with driver_of(image_dir):
            return all(exists_url(_join(image_dir, name)) for name in names)
    return all(os.path.isfile(_join(image_dir, name)) for name in names)


def open_tfds(dataset_dir: str, categories: Sequence[str] = (), selection: Selection | None = None) -> Source:
    """Find the images of a TFDS dataset, split by split in the order of its shards, with `categories` and `selection`
    as in `open_source`.

    `dataset_dir` is the folder with dataset_info.json, or its URL.

    Raises:
        UsageError: it is damaged, not stored as TFRecord, or its examples do not have one image and one class.
    """
    with _parsing(f"{dataset_dir}: {INFO_FILE}"):
        info = TfdsInfo.parse(_json(dataset_dir, INFO_FILE))
    with _parsing(f"{dataset_dir}: {FEATURES_FILE}"):
        features = parse_features(_json(dataset_dir, FEATURES_FILE))
    image, label, notes = _chosen_features(dataset_dir, features, info.supervised)
    names = _class_names(dataset_dir, label, features[label].num_classes)
    if info.file_format != TFRECORD:
        raise UsageError(
            f"--image_dir={dataset_dir} is stored as {info.file_format}. Prepare it as TFRecord: "
            "tfds build --file_format=tfrecord, or download_and_prepare(file_format='tfrecord'); or convert the "
            "images that it was made of."
        )
    shards = [(split, files, number) for split, files in info.shards.items() for number in range(len(files))]
    if not shards:
        raise UsageError(
            f"--image_dir={dataset_dir} has no shards according to {INFO_FILE}. Prepare the dataset again."
        )
    containers = Containers.of([_join(dataset_dir, files[number][0]) for _, files, number in shards])
    found = FileListing()
    for container, (split, files, number) in enumerate(shards):
        count = 0
        path, stamp = containers.paths[container], containers.stamps[container]
        with containers.scanned(container) as read_at:
            for (offset, length), values in walk_examples(read_at, containers.sizes[container], path, image, label):
                known = values.label is not None and 0 <= values.label < len(names)
                found.add(
                    f"{split}/{number:05d}-of-{len(files):05d}/{count}",
                    values.num_bytes,
                    stamp,
                    (container, offset, length),
                    label=names[values.label or 0] if known else "",
                    split=split,
                    refused=None if known else _no_class(values.label, len(names)),
                )
                count += 1
        if count != files[number][1]:
            raise UsageError(
                f"{path} has {count} examples; {INFO_FILE} says {files[number][1]}. Prepare the dataset again."
            )
    return source_of_labels(
        found,
        location=dataset_dir,
        files=TfdsFiles(containers, image),
        categories=categories,
        class_names=names,
        selection=selection,
        notes=notes,
        form=f"dataset of TensorFlow Datasets with {len(found.paths):,} examples; images from the feature {image}, "
        f"labels from {label}",
    )


def walk_examples(
    read_at: ReadAt, num_bytes: int, path: str, image: str, label: str
) -> Iterator[tuple[tuple[int, int], Values]]:
    """Yield offset and length of each record of a TFRecord file, framing included, and what is in it.

    Images are not read. `num_bytes` is the length of the file, `path` its name in errors; `image` and `label` are the
    names of the features.

    Raises:
        UsageError: the file is damaged, or a record is not an Example.
    """
    offset = 0
    while offset < num_bytes:
        window = _windowed(read_at)
        head = window(offset, HEADER_BYTES)
        where = f"{path}: record at byte {offset}"
        if len(head) < HEADER_BYTES:
            raise UsageError(f"{where}: the file is truncated. Prepare the dataset again.")
        length = int.from_bytes(head[:8], "little")
        if head != header(length):
            raise UsageError(f"{where}: the checksum of its length fails. Prepare the dataset again.")
        if offset + FRAMING_BYTES + length > num_bytes:
            raise UsageError(f"{where}: the file is truncated. Prepare the dataset again.")
        start = offset + HEADER_BYTES
        try:
            features = find_features(window, start, start + length)
            number = features[label].value(window) if label in features else None
            values = Values(
                number if isinstance(number, int) else None,
                features[image].num_bytes(window) if image in features else -1,
            )
        except ValueError as error:
            raise UsageError(f"{where} is not a tf.train.Example: {error}. Prepare the dataset again.") from None
        yield (offset, length + FRAMING_BYTES), values
        offset += length + FRAMING_BYTES


def _windowed(read_at: ReadAt) -> ReadAt:
    """Return a function that reads short ranges from a somewhat longer one, which it keeps."""
    start, data = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, data
        if offset < start or offset + length > start + len(data):
            start, data = offset, read_at(offset, max(length, _PEEK_BYTES))
        return data[offset - start : offset - start + length]

    return read


def _no_class(label: int | None, num_classes: int) -> Refusal:
    return Refusal(Reason.NO_CLASS_FOLDER, f"its label is {label}, and the dataset has {num_classes} classes")


def _chosen_features(
    dataset_dir: str, features: Mapping[str, TfdsFeature], supervised: frozenset[str]
) -> tuple[str, str, list[str]]:
    """Return the names of the image's and the label's feature, and notes."""
    notes = []
    chosen = []
    for kind in ("Image", "ClassLabel"):
        names = [name for name, feature in features.items() if feature.kind == kind and not feature.in_sequence]
        inside = [name for name, feature in features.items() if feature.kind == kind and feature.in_sequence]
        of_pair = [name for name in names if name in supervised]
        if len(names) > 1 and len(of_pair) == 1:
            notes.append(f"{of_pair[0]} was chosen from {some_of(names)} by the dataset's supervised keys")
            names = of_pair
        if kind == "ClassLabel" and len(names) != 1 and (names or inside):
            which = f"several labels ({some_of(names)})" if names else f"lists of labels ({some_of(inside)})"
            raise UsageError(f"--image_dir={dataset_dir}: its examples have {which}. {ONE_CLASS}.")
        if len(names) != 1:
            has = ", ".join(f"{name} ({feature.kind})" for name, feature in features.items())
            raise UsageError(
                f"--image_dir={dataset_dir}: its examples should have one feature of class {kind}. They have: {has}. "
                "Images have to be stored as files (JPEG, PNG); raw pixels need no conversion."
            )
        chosen += names
    return chosen[0], chosen[1], notes


def _class_names(dataset_dir: str, label: str, num_classes: int) -> list[str]:
    path = _join(dataset_dir, f"{label.replace('/', '-')}.labels.txt")
    with _parsing(path):
        try:
            labels = _read(path)
        except FileNotFoundError:
            labels = None
        return class_names(labels, num_classes)


def _parsing(what: str) -> AbstractContextManager[None]:
    return parser_errors(lambda fault: UsageError(f"{what} has another form ({fault}). Prepare the dataset again."))


def _json(dataset_dir: str, name: str) -> Any:
    path = _join(dataset_dir, name)
    try:
        return parse_json(_read(path))
    except FileNotFoundError:
        raise UsageError(f"{path} is missing. Prepare the dataset again.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}. Prepare the dataset again.") from None


def _read(path: str) -> bytes:
    """Return the content of a file.

    Raises FileNotFoundError if there is none, UsageError if it may not be read, and OSError if the machine fails.
    """
    if not is_url(path):
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {refusal_of(error).detail}. Make it readable.") from None
    try:
        return read_url(path)
    except Refusal as refusal:
        # S3 answers 403 for a missing object too, unless one may list the bucket; labels may be missing.
        if isinstance(refusal, MissingFile) or path.endswith(".labels.txt"):
            raise FileNotFoundError(path) from None
        raise UsageError(f"{path} cannot be read: {refusal.detail}. Make it readable.") from None


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
