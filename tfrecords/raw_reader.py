"""Reads raw datasets at random with NumPy alone: for NumPy, PyTorch, JAX and Grain, without TensorFlow.

    train = tfrecords.read("data/photos/1.0.0", "train")
    image, label, id = train[7]          # uint8 [height, width, 3], int, int
    images, labels, ids = train[8:16]    # uint8 [8, height, width, 3], int64 [8], int64 [8]
    train.features(7)                    # of a dataset that was converted with --features: {"age": 34}
    batch = train[[3, 1, 2]]             # in this order; masks, too
    torch.utils.data.DataLoader(train, batch_size=64, shuffle=True, num_workers=4)
    jax.numpy.asarray(batch.image)

Where an image has several labels, its label is uint8 `[num_classes]`, 1 for each of them; where it has numbers, float32
`[num_targets]`; and where it has none, -1.

The shards are mapped into memory, so opening reads no pixels, and all processes share the page cache. One example and
several indices are copies, which may be written to. A slice is a view of the file if it lies in one shard: it copies no
pixels and is read-only. A slice over several shards is a copy.

The checksums of a record are verified when it is read for the first time. If a file is cut short while it is mapped,
the operating system ends the process, as with every memory map.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfrecords.base_errors import CorruptRecordError, UsageError
from tfrecords.format.example import decode_lists
from tfrecords.format.image_size import image_shape
from tfrecords.format.layout import Layout
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.naming import TFRECORD
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, varints
from tfrecords.format.record_layout import INT_BYTES
from tfrecords.locations import location_text, path_of, url_of


class Examples(NamedTuple):
    """One example, or n of them. `image` is uint8 `[height, width, channels]`, or `[n, ...]`: RGB, 1 channel if the
    dataset is gray, 4 if it is RGBA. `label` and `id` are int, or int64 `[n]`. `id` is the number of the image in the
    manifest. Several labels and numbers are an array; see this module.
    """

    image: np.ndarray
    label: Any
    id: Any


def _number(groups: bytes) -> int:
    return sum((group & 0x7F) << (7 * place) for place, group in enumerate(groups))


class RawSplit:
    """A split of a raw dataset as a sequence of `Examples`; see this module for what `[...]` takes and gives.

    `layout` has the class names and the size of the images. A pickled split is opened again where it is unpickled.
    """

    def __init__(self, dataset_dir: str | Path, split: str) -> None:
        self._given, self.split = location_text(dataset_dir), split
        if url_of(dataset_dir):
            from tfrecords.storage.remote_dataset import local_dataset  # not at the top: of folders it is not needed

            self._dataset_dir = local_dataset(dataset_dir, split, what="dataset_dir").absolute()
        else:
            self._dataset_dir = path_of(dataset_dir).absolute()
            self._given = str(self._dataset_dir)  # of a process with another working folder
        if not self._dataset_dir.is_dir() or not Layout.exists(self._dataset_dir):
            raise UsageError(f"{dataset_dir} has no layout.json. Name a dataset folder that `simimg convert` wrote.")
        self.layout = layout = Layout.load(self._dataset_dir)
        names = split.split("+")
        if missing := [name for name in names if name not in layout.splits]:
            has = ", ".join(layout.splits) or "none"
            raise UsageError(f"{dataset_dir} has no split {missing[0]!r}. It has: {has}.")
        if len(set(names)) < len(names):
            raise UsageError(f"split {split!r} has one split twice.")
        if layout.encoding != "raw" or layout.file_format != TFRECORD:
            form = f"{layout.file_format} files" if layout.encoding == "raw" else f"{layout.encoding} images"
            raise UsageError(
                f"{dataset_dir} has {form}, but tfrecords.read needs TFRecords of raw pixels. Convert the images again "
                "under another --name with --encoding=raw, or use simimg.load or TensorFlow Datasets."
            )
        self._schema = schema = layout.schema
        if not layout.offsets.record_bytes:
            varying = ", ".join(str(feature) for feature in schema.features if not feature.is_fixed)
            raise UsageError(
                f"{dataset_dir} has records that differ in length because of {varying}, but tfrecords.read needs "
                "records of one length. Use simimg.load or TensorFlow Datasets, or convert the images without them."
            )
        self._shape = image_shape(layout.image_size, layout.channels)
        at, num_bytes = layout.offsets, math.prod(self._shape)
        shards = [shard for name in names for shard in layout.splits[name]]
        self._shards = [(self._dataset_dir / shard.file, shard.num_examples) for shard in shards]
        self._ends = np.cumsum([count for _, count in self._shards])
        mapped = map_records(self._shards, at.record_bytes)
        self._records: np.ndarray | None = mapped.rows
        self._records.flags.writeable = False
        self._rows = np.concatenate([np.arange(rows.start, rows.stop) for _, rows in mapped.spans()] or [np.arange(0)])
        self._verified = np.zeros(len(self._rows), bool)
        self._pixels = slice(at.image_offset, at.image_offset + num_bytes)
        self._label = slice(at.label_offset, at.label_offset + schema.label_bytes)
        self._id = slice(at.id_offset, at.id_offset + INT_BYTES)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> Examples:
        """Return one example for an integer, otherwise several.

        Raises:
            IndexError: there is no such example.
            CorruptRecordError: a record is damaged; names its shard and its number there.
            UsageError: the split was closed.
        """
        records, rows = self._opened(), self._rows[index]
        if rows.ndim > 1:
            raise IndexError("an index should be an integer, a slice, a list of integers or a mask.")
        if not self._verified[index].all():
            self._verify(records, np.arange(len(self))[index].reshape(-1).tolist())
        part: Any = rows
        if not rows.ndim:  # without NumPy's arithmetic, which takes most of the time for a single example
            record = records[rows]
            image = record[self._pixels].reshape(self._shape).copy()
            id = _number(record[self._id].tobytes())
            if self._schema.label_type == "single":
                return Examples(image, _number(record[self._label].tobytes()), id)
            label = self._labels_of(record[None, self._label])[0]
            return Examples(image, int(label) if self._schema.label_type == "none" else label, id)
        if isinstance(index, slice) and len(rows):  # a slice of the records if there is no other shard in between
            low, high = int(rows.min()), int(rows.max()) + 1
            view = records[low:high][:: index.step or 1]
            records, part = (view, ...) if len(view) == len(rows) else (records, rows)
        images = records[:, self._pixels][part].reshape(-1, *self._shape)
        labels = self._labels_of(records[:, self._label][part])
        return Examples(images, labels, varints(records[:, self._id][part]))

    def features(self, index: int) -> dict[str, Any]:
        """Return the further features of one example by name: int or float, or a list of them.

        Raises:
            IndexError, CorruptRecordError, UsageError: as `[index]`; and if the record has another form.
        """
        records = self._opened()
        place = range(len(self))[index]
        self._verify(records, [place])
        payload = records[self._rows[place]].tobytes()[HEADER_BYTES:-FOOTER_BYTES]
        where = f"{self._dataset_dir}: example {place} of {self.split}"
        with parser_errors(lambda fault: CorruptRecordError(f"{where}: {fault}. Convert the images again.")):
            return self._schema.values_of(decode_lists(payload))[1]

    def __iter__(self) -> Iterator[Examples]:
        return (self[place] for place in range(len(self)))

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The labels of all examples, int64 `[len]` or an array as described above, read without their checksums: for
        weights and samplers.
        """
        return self._labels_of(self._opened()[:, self._label][self._rows])

    def _labels_of(self, ends: np.ndarray) -> np.ndarray:
        """Return the labels in the last bytes of records, which are copied."""
        if self._schema.label_type == "single":
            return varints(ends)
        labels = self._schema.labels_of(ends.copy(), len(self.layout.class_names))
        return labels.astype(np.int64) if self._schema.label_type == "none" else labels

    def close(self) -> None:
        """End reading; the files are released when no slice refers to them any more."""
        self._records = None

    def __enter__(self) -> RawSplit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[RawSplit], tuple[str, str]]:
        self._opened()
        return RawSplit, (self._given, self.split)

    def _opened(self) -> np.ndarray:
        if self._records is None:
            raise UsageError(f"{self._dataset_dir}: {self.split} was closed. Open it again with tfrecords.read.")
        return self._records

    def _verify(self, records: np.ndarray, places: list[int]) -> None:
        start = header(self.layout.offsets.record_bytes - FRAMING_BYTES)
        for place in places:
            if self._verified[place]:
                continue
            record = records[self._rows[place]].tobytes()
            if not record.startswith(start) or not record.endswith(footer(record[HEADER_BYTES:-FOOTER_BYTES])):
                shard = int(np.searchsorted(self._ends, place, side="right"))
                path, number = self._shards[shard][0], place - (int(self._ends[shard]) - self._shards[shard][1])
                raise CorruptRecordError(f"{path}: record {number}: a checksum fails. Convert the images again.")
            self._verified[place] = True
