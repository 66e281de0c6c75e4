"""Reads single images of a dataset back from its shards, as they are stored, and counts several labels per image."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from tfrecords.base_errors import DataError
from tfrecords.format.array_record_shard import ArrayRecordReader
from tfrecords.format.example import decode_lists
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.naming import is_array_record
from tfrecords.format.parse_errors import parser_errors, readable
from tfrecords.format.record import FOOTER_BYTES
from tfrecords.format.shard import ShardReader

_LABELS_AT_ONCE = 1 << 14
_MAX_OPEN_FILES = 64  # ArrayRecord files, which are read quickly only while they are open


def count_labels(dataset_dir: Path, layout: Layout, split_names: Sequence[str]) -> np.ndarray | None:
    """Return how many images of each split have each label: int64 `[num_classes + 1, num_splits]`, the last row for
    those without any; None if each image has one class.

    Only the ends of the records are read. Raises DataError if a shard or its sidecar is missing or damaged.
    """
    schema, num_classes = layout.schema, len(layout.class_names)
    if schema.label_type != "multi":
        return None
    counts = np.zeros((num_classes + 1, len(split_names)), np.int64)
    for column, split in enumerate(split_names):
        for info in layout.splits.get(split, ()):
            path = dataset_dir / info.file
            stride = layout.offsets.record_bytes
            ends = np.arange(1, info.num_examples + 1) * stride if stride else ShardReader(path).offsets().sum(axis=1)
            if not len(ends):
                continue
            with readable(path):
                data = np.memmap(path, np.uint8, "r")
            if ends.max() > len(data) or ends.min() < schema.label_bytes + FOOTER_BYTES:
                raise DataError(f"{path} does not have the records of its sidecar. Convert the images again.")
            first = ends - FOOTER_BYTES - schema.label_bytes
            for start in range(0, len(first), _LABELS_AT_ONCE):
                part = data[first[start : start + _LABELS_AT_ONCE, None] + np.arange(schema.label_bytes)]
                hot = schema.labels_of(part, num_classes)
                counts[:-1, column] += hot.sum(axis=0, dtype=np.int64)
                counts[-1, column] += int((hot.sum(axis=1, dtype=np.int64) == 0).sum())
    return counts


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
        """Return the image of a row, mode RGB; raise DataError as `stored_bytes`, or if its size is another one."""
        with self._damaged(row):
            data, side = self._stored_bytes(row), self._layout.image_size
            if self._layout.encoding == "raw":
                return Image.frombytes("RGB", (side, side), data)
            image = Image.open(io.BytesIO(data), formats=(self._layout.encoding.upper(),))
            if image.size != (side, side):  # before it is decoded
                raise ValueError(f"it has {image.width} x {image.height} px instead of {side} x {side}")
            return image.convert("RGB")

    def _damaged(self, row: int) -> AbstractContextManager[None]:
        where = f"{self._dataset_dir}: the record of {self._manifest.paths[row]}"
        return parser_errors(lambda fault: DataError(f"{where} is damaged: {fault}. Convert the images again."))

    def _stored_bytes(self, row: int) -> bytes:
        manifest = self._manifest
        split, position = manifest.split_names[manifest.splits[row]], int(manifest.positions[row])
        file = self._layout.splits[split][manifest.shards[row]].file
        features = decode_lists(self._payload(file, position))
        image, id = features["image"][0], int(manifest.ids[row])
        if features["id"] != [id] or not isinstance(image, bytes):
            raise DataError(
                f"{self._dataset_dir / file}: record {position} should be example {id}. Convert the images again."
            )
        return image

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
