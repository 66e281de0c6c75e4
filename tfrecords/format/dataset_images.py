"""Reads single images of a dataset back from its shards, as they are stored."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tfrecords.base_errors import DataError
from tfrecords.format.example import decode_example
from tfrecords.format.layout import Layout
from tfrecords.format.manifest import Manifest
from tfrecords.format.shard import ShardReader


class DatasetImages:
    """Reads the image of a manifest row. Record offsets of a shard are cached once it has been read."""

    def __init__(self, dataset_dir: Path, layout: Layout, manifest: Manifest) -> None:
        self._dataset_dir = dataset_dir
        self._layout = layout
        self._manifest = manifest
        self._offsets: dict[str, np.ndarray] = {}

    def stored_bytes(self, row: int) -> bytes:
        """Return the image feature of a row's example: raw pixels, or a JPEG or PNG file.

        Raises DataError if the example is damaged, or not where the manifest says.
        """
        manifest = self._manifest
        split, position = manifest.split_names[manifest.splits[row]], int(manifest.positions[row])
        file = self._layout.splits[split][manifest.shards[row]].file
        reader = ShardReader(self._dataset_dir / file)
        record_bytes = self._layout.offsets.record_bytes
        if record_bytes:
            place = (position * record_bytes, record_bytes)
        else:
            if file not in self._offsets:
                self._offsets[file] = reader.offsets()
            place = tuple(self._offsets[file][position].tolist())
        features = decode_example(reader.read(*place))
        image, id = features["image"], int(manifest.ids[row])
        if features["id"] != id or not isinstance(image, bytes):
            raise DataError(f"{reader.path}: record {position} should be example {id}. Convert the images again.")
        return image

    def image(self, row: int) -> Image.Image:
        """Return the image of a row, mode RGB; raise DataError as `stored_bytes`."""
        data = self.stored_bytes(row)
        if self._layout.encoding == "raw":
            side = self._layout.image_size
            return Image.frombytes("RGB", (side, side), data)
        return Image.open(io.BytesIO(data)).convert("RGB")
