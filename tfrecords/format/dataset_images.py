"""Reads single examples of a dataset back from its shards, as they are stored, and the labels of all."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfrecords.base_errors import DataError
from tfrecords.format.array_record_shard import ArrayRecordReader
from tfrecords.format.example import decode_lists
from tfrecords.format.image_size import MODES, width_height
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.naming import is_array_record
from tfrecords.format.parse_errors import parser_errors, readable
from tfrecords.format.record import FOOTER_BYTES
from tfrecords.format.shard import ShardReader

_LABELS_AT_ONCE = 1 << 14
_MAX_OPEN_FILES = 64  # ArrayRecord files, which are read quickly only while they are open


def label_pairs(dataset_dir: Path, layout: Layout, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Return each label of each example of a manifest, or of a part of one, as a pair: the row, int64 `[n]`, and the
    label, int64 `[n]`. If images have one class, it is that of the manifest.

    Only the ends of TFRecords are read. Raises DataError if a shard or its sidecar is missing or damaged.
    """
    schema, num_classes = layout.schema, len(layout.class_names)
    ok = np.flatnonzero(manifest.ok)
    if schema.label_type != "multi":
        return ok, manifest.labels[ok].astype(np.int64)
    pairs = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    order = ok[np.lexsort((manifest.positions[ok], manifest.shards[ok], manifest.splits[ok]))]
    _, starts = np.unique(
        np.stack((manifest.splits[order], manifest.shards[order])).astype(np.int64), axis=1, return_index=True
    )
    for rows in np.split(order, np.sort(starts)[1:]) if len(order) else ():
        infos = layout.splits.get(manifest.split_names[manifest.splits[rows[0]]], ())
        if not 0 <= manifest.shards[rows[0]] < len(infos):
            raise DataError(f"{dataset_dir}: manifest.parquet contradicts layout.json. Run `simimg verify`.")
        read = _ends_reader(dataset_dir / infos[manifest.shards[rows[0]]].file, layout)
        for start in range(0, len(rows), _LABELS_AT_ONCE):
            part = rows[start : start + _LABELS_AT_ONCE]
            found, labels = np.nonzero(schema.labels_of(read(manifest.positions[part].astype(np.int64)), num_classes))
            pairs.append((part[found], labels))
    rows, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return rows, labels


def count_labels(dataset_dir: Path, layout: Layout, manifest: Manifest) -> np.ndarray | None:
    """Return how many images of each split have each label: int64 `[num_classes + 1, num_splits]`, the last row for
    those without any; None unless images may have several. The other arguments are those of `label_pairs`.
    """
    if layout.schema.label_type != "multi":
        return None
    rows, labels = label_pairs(dataset_dir, layout, manifest)
    counts = np.zeros((len(layout.class_names) + 1, len(manifest.split_names)), np.int64)
    np.add.at(counts, (labels, manifest.splits[rows]), 1)
    without = np.setdiff1d(np.flatnonzero(manifest.ok), rows)
    np.add.at(counts[-1], manifest.splits[without], 1)
    return counts


def count_classes(dataset_dir: Path, layout: Layout, manifest: Manifest) -> np.ndarray:
    """Return how many images of each split have each class: int64 `[len(layout.counted_names), num_splits]`.

    The other arguments, and the errors, are those of `label_pairs`.
    """
    several = count_labels(dataset_dir, layout, manifest)
    if several is not None:
        return several
    counts = np.zeros((len(layout.counted_names), len(manifest.split_names)), np.int64)
    np.add.at(counts, (manifest.labels[manifest.ok], manifest.splits[manifest.ok]), 1)
    return counts


def _ends_reader(path: Path, layout: Layout) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that reads the last `label_bytes` bytes of the examples at some positions of a shard."""
    num_bytes, stride = layout.schema.label_bytes, layout.offsets.record_bytes
    if is_array_record(path.name):
        with readable(path):
            reader = ArrayRecordReader(path)

        def last_bytes(position: int) -> bytes:
            payload = reader.read(position)
            if len(payload) < num_bytes:
                raise DataError(f"{path}: record {position} is too short. Convert the images again.")
            return payload[len(payload) - num_bytes :]

        return lambda positions: np.frombuffer(b"".join(map(last_bytes, positions.tolist())), np.uint8).reshape(
            len(positions), num_bytes
        )
    with readable(path):
        data = np.memmap(path, np.uint8, "r")
    table = None if stride else ShardReader(path).offsets().sum(axis=1)

    def ends(positions: np.ndarray) -> np.ndarray:
        if table is not None and positions.max() >= len(table):
            raise DataError(f"{path} does not have the records of the manifest. Convert the images again.")
        stops = (positions + 1) * stride if table is None else table[positions]
        if stops.max() > len(data) or stops.min() < num_bytes + FOOTER_BYTES:
            raise DataError(f"{path} does not have the records of its sidecar. Convert the images again.")
        return data[stops[:, None] - FOOTER_BYTES - num_bytes + np.arange(num_bytes)]

    return ends


class DatasetImages:
    """Reads the image of a manifest row. Record offsets of a shard are cached once it has been read."""

    def __init__(self, dataset_dir: Path, layout: Layout, manifest: Manifest) -> None:
        self._dataset_dir = dataset_dir
        self._layout = layout
        self._manifest = manifest
        self._offsets: dict[str, np.ndarray] = {}
        self._array_reader = functools.lru_cache(_MAX_OPEN_FILES)(ArrayRecordReader)

    def stored_bytes(self, row: int) -> bytes:
        """Return the image feature of a row's example: raw pixels, or a JPEG or PNG file.

        Raises DataError if the example is damaged, or not where the manifest says.
        """
        with self._damaged(row):
            return self._stored_bytes(row)

    def image(self, row: int) -> Image.Image:
        """Return the image of a row for the eye, mode RGB, with transparent parts on white.

        Raises DataError as `stored_bytes`, or if its size is another one.
        """
        with self._damaged(row):
            data, size = self._stored_bytes(row), width_height(self._layout.image_size)
            if self._layout.encoding == "raw":
                return _rgb(Image.frombytes(MODES[self._layout.channels], size, data))
            image = Image.open(io.BytesIO(data), formats=(self._layout.encoding.upper(),))
            if image.size != size and not self._layout.own_shapes:  # before it is decoded
                raise ValueError(f"it has {image.width} x {image.height} px instead of {size[0]} x {size[1]}")
            return _rgb(image)

    def values(self, row: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the labels of a row's example, classes or numbers, and its further features by name.

        Raises DataError as `stored_bytes`.
        """
        with self._damaged(row):
            labels, values = self._layout.schema.values_of(self._example(row))
            num_classes = len(self._layout.class_names)
            if self._layout.schema.label_type != "float" and not all(0 <= label < num_classes for label in labels):
                raise ValueError(f"its labels {labels} are not those of layout.json")
            return labels, values

    def _damaged(self, row: int) -> AbstractContextManager[None]:
        where = f"{self._dataset_dir}: the record of {self._manifest.paths[row]}"
        return parser_errors(lambda fault: DataError(f"{where} is damaged: {fault}. Convert the images again."))

    def _stored_bytes(self, row: int) -> bytes:
        image: bytes = self._example(row)["image"][0]
        return image

    def _example(self, row: int) -> dict[str, list[Any]]:
        """Return all entries of a row's example, one of which is its image."""
        manifest = self._manifest
        split, position = manifest.split_names[manifest.splits[row]], int(manifest.positions[row])
        file = self._layout.splits[split][manifest.shards[row]].file
        features = decode_lists(self._payload(file, position))
        id = int(manifest.ids[row])
        if features["id"] != [id] or not isinstance(features["image"][0], bytes):
            raise DataError(
                f"{self._dataset_dir / file}: record {position} should be example {id}. Convert the images again."
            )
        return features

    def _payload(self, file: str, position: int) -> bytes:
        path = self._dataset_dir / file
        if is_array_record(file):
            with readable(path):
                return self._array_reader(path).read(position)
        reader = ShardReader(path)
        record_bytes = self._layout.offsets.record_bytes
        if record_bytes:
            place = (position * record_bytes, record_bytes)
        else:
            if file not in self._offsets:
                self._offsets[file] = reader.offsets()
            place = tuple(self._offsets[file][position].tolist())
        return reader.read(*place)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image)
    return paper
