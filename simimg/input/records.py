"""Stored records for TensorFlow: tensors that share memory, and JPEG and PNG records decoded from mapped shards.

JPEG and PNG records are found through the shards' sidecar files. Their checksums are verified, and they are decoded in
C without the interpreter's lock, so several threads decode at the same time. An image holds the lock for about 2 us.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np
import simplejpeg
import tensorflow as tf
from PIL import Image

from simimg.errors import CorruptRecordError, DataError
from simimg.input.crops import Crops, crop_pixels
from simimg.input.split import PADDING_ID, Shard, Split
from tfrecords.format.image_size import MODES, ImageSize, image_shape
from tfrecords.format.jpeg_frame import read_sizes
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.naming import find_index
from tfrecords.format.parse_errors import parser_errors
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, unmasked, varints
from tfrecords.format.record_layout import INT_BYTES, find_spans, record_spans
from tfrecords.format.schema import Schema
from tfrecords.format.shard import ShardReader

ON_CORRUPT = ("fail", "skip", "unchecked")

_ALIGNMENT = 64  # bytes; TensorFlow copies memory that is aligned to less, or crashes the process
_LENGTH_BYTES = 8  # of a record's header; the checksum of the length follows


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Returns an uninitialized uint8 array in memory that TensorFlow can use without copying it."""
    num_bytes = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(num_bytes + _ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % _ALIGNMENT
    return memory[skipped : skipped + num_bytes].reshape(shape)


def shared_tensor(array: np.ndarray) -> tf.Tensor:
    """Returns `array` as a CPU tensor that shares its aligned memory and keeps it alive."""
    assert array.ctypes.data % _ALIGNMENT == 0
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def tf_varints(groups: tf.Tensor, num_bytes: int = INT_BYTES) -> tf.Tensor:
    """Decodes padded varints, uint8 `[..., num_bytes]`, to int64 `[...]`, as TensorFlow operations."""
    shifted = tf.bitwise.left_shift(tf.cast(groups, tf.int64) & 0x7F, 7 * tf.range(num_bytes, dtype=tf.int64))
    return tf.reduce_sum(shifted, axis=-1)


def tf_labels(ends: tf.Tensor, schema: Schema, num_classes: int) -> tf.Tensor:
    """Decodes the last bytes of records, uint8 `[n, label_bytes]`: `Schema.labels_of` as TensorFlow operations."""
    if schema.label_type == "single":
        return tf.cast(tf_varints(ends), tf.int32)
    if schema.label_type == "none":
        return tf.fill([tf.shape(ends)[0]], -1)
    size = schema.label_size
    if schema.label_type == "float":
        return tf.bitcast(tf.reshape(ends, [-1, size, 4]), tf.float32)
    count_bytes = schema.count_bytes
    counts = tf_varints(ends[:, :count_bytes], count_bytes) // INT_BYTES
    values = tf_varints(tf.reshape(ends[:, count_bytes : count_bytes + size * INT_BYTES], [-1, size, INT_BYTES]))
    return many_hot(tf.where(tf.range(size, dtype=tf.int64) < counts[:, None], values, -1), num_classes)


def many_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns uint8 `[..., num_classes]`, 1 for each class in `labels`, int64 `[..., n]`, which are padded with -1."""
    hot = tf.one_hot(labels, num_classes, dtype=tf.uint8)
    return tf.reduce_max(tf.pad(hot, [[0, 0]] * (len(labels.shape) - 1) + [[0, 1], [0, 0]]), axis=-2)


def corrupt_record(fault: str) -> CorruptRecordError:
    """Returns the error for a record that cannot be read; `fault` names the shard, the record and the reason."""
    return CorruptRecordError(f"{fault}. Convert the images again, or skip the record with --on_corrupt=skip.")


class EncodedRecords:
    """The records of a split that `simimg convert` wrote as JPEG or PNG, or raw with features of any length.

    Args:
        on_corrupt: `fail`; `skip`, which turns an unreadable record into padding: pixels and label 0, id -1; or
            `unchecked`, which fails like `fail`, but does not verify the checksums of payloads.
        decode: False leaves the pixels undefined, to measure the cost of everything else.

    Raises:
        DataError: a shard or its sidecar file is missing or damaged.
    """

    def __init__(self, split: Split, *, on_corrupt: str = "fail", decode: bool = True) -> None:
        self.corrupt: dict[int, str] = {}  # the reason for each record that was skipped so far, by its place
        self._shape, self._crops = split.image_shape, split.crops
        self._schema, self._num_classes = split.schema, len(split.class_names)
        self._decode: Callable[..., None] = (
            {"jpeg": _decode_jpeg, "png": _decode_png, "raw": _copy_pixels}[split.encoding]
            if decode
            else _decode_nothing
        )
        if self._crops is not None and decode:
            self._decode = crop_pixels
        self._skip, self._verify = on_corrupt == "skip", on_corrupt != "unchecked"
        self._shards = [shard for shard in split.shards if shard.num_examples]
        files = map_records([(shard.path, shard.path.stat().st_size) for shard in self._shards], 1)
        self._bytes = files.rows.ravel()
        self._view = self._bytes.data
        tables = [_table(shard) for shard in self._shards]
        self._first_places = np.array([0, *itertools.accumulate(map(len, tables))])
        self._starts = np.concatenate(
            [first + table[:, 0] for first, table in zip(files.first_rows, tables, strict=True)]
        )
        self._lengths = np.concatenate([table[:, 1] for table in tables])
        self._sizes = np.empty((0, 2), np.uint16)  # width and height of each image, if crops are cut from them
        if self._crops is not None:
            self._sizes = _sizes(self._shards, split.stored_size)
        self._spans: tuple[np.ndarray, ...] = ()
        if split.schema.is_plain:
            # int32 halves the memory of these, and no record is longer than 2 GB.
            self._spans = tuple(part.astype(np.int32) for part in record_spans(self._lengths))

    def cut_to(self, crops: Crops) -> EncodedRecords:
        """Returns the same records with other crops; they share the mapped files and `corrupt`."""
        other = copy.copy(self)
        other._crops, other._shape = crops, image_shape(crops.image_size, self._shape[2])
        return other

    def gather(
        self, places: np.ndarray, run: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the records at `places`: images uint8 `[n, height, width, channels]`, labels as in a Batch, and ids,
        int64 `[n]`.

        If the split has crops, they are random for a `run`, seed and epoch, and otherwise central.

        Raises:
            CorruptRecordError: a record cannot be read; names its shard, its number there and its offset.
        """
        starts, lengths = self._starts[places], self._lengths[places]
        ends = starts + lengths - FOOTER_BYTES
        if self._spans:
            ids_at, image_at, image_bytes = (part[places] for part in self._spans)
        else:  # from the records, of which not all need to be touched before
            ids_at, image_at, image_bytes = find_spans(self._bytes, starts, starts + lengths)
        wrong = (image_bytes < 0) | (self._numbers(starts, _LENGTH_BYTES) != lengths - FRAMING_BYTES)
        images_at = starts + image_at
        columns = (
            wrong,
            starts + HEADER_BYTES,
            ends,
            unmasked(self._numbers(ends, FOOTER_BYTES)),
            images_at,
            images_at + image_bytes,
        )
        # A wrong record may end before its id, and where the memory is not mapped.
        ids = self._varints(np.where(wrong, starts, starts + ids_at))
        crops: Iterable[tuple[Any, ...]] = itertools.repeat(())
        if self._crops is not None:
            sizes = self._sizes[places]
            crops = zip(map(tuple, sizes.tolist()), self._crops.boxes(sizes, ids, run), strict=True)
        images = aligned((len(places), *self._shape))
        faults = []
        view, crc32c, decode, verify = self._view, google_crc32c.value, self._decode, self._verify
        rows = zip(*(column.tolist() for column in columns), images, strict=True)
        for row, ((is_wrong, start, end, checksum, image_start, image_end, pixels), crop) in enumerate(
            zip(rows, crops, strict=False)
        ):
            try:
                if is_wrong:
                    raise ValueError("its length is not the one in the sidecar file, or too short for a record")
                if verify and crc32c(view[start:end].tobytes()) != checksum:
                    raise ValueError("the checksum of the payload fails")
                decode(view[image_start:image_end], pixels, *crop)
            except ValueError as error:
                faults.append((row, str(error)))
        labels = self.labels(places)
        for row, reason in faults:
            self._report(int(places[row]), reason)
            images[row], labels[row], ids[row] = 0, 0, PADDING_ID
        return images, labels, ids

    def labels(self, places: np.ndarray) -> np.ndarray:
        """Returns the labels of the records at `places`, as in a Batch; nothing is verified."""
        starts, lengths = self._starts[places], self._lengths[places]
        num_bytes = self._schema.label_bytes
        # A wrong record may be too short.
        first = np.maximum(starts + lengths - FOOTER_BYTES - num_bytes, 0)
        return self._schema.labels_of(self._bytes[first[:, None] + np.arange(num_bytes)], self._num_classes)

    def stored(self, places: np.ndarray) -> np.ndarray:
        """Returns the bytes of the records at `places`, bytes `[n]`."""
        starts, lengths = self._starts[places].tolist(), self._lengths[places].tolist()
        view = self._view
        return np.array([bytes(view[at : at + length]) for at, length in zip(starts, lengths, strict=True)], object)

    def _numbers(self, at: np.ndarray, num_bytes: int) -> np.ndarray:
        """Returns the little-endian numbers of `num_bytes` bytes at the offsets `at`, int64 of the same shape."""
        parts = self._bytes[at[:, None] + np.arange(num_bytes)].astype(np.int64)
        return (parts << (8 * np.arange(num_bytes))).sum(axis=1)

    def _varints(self, at: np.ndarray) -> np.ndarray:
        return varints(self._bytes[at[:, None] + np.arange(INT_BYTES)])

    def _report(self, place: int, reason: str) -> None:
        shard = int(np.searchsorted(self._first_places, place, side="right")) - 1
        first = self._first_places[shard]
        where = f"record {place - first} at byte {self._starts[place] - self._starts[first]}"
        fault = f"{self._shards[shard].path}: {where}: {reason}"
        if not self._skip:
            raise corrupt_record(fault)
        self.corrupt[place] = fault


def _decode_nothing(data: memoryview, pixels: np.ndarray, *crop: object) -> None:
    pass


def _copy_pixels(data: memoryview, pixels: np.ndarray) -> None:
    if len(data) != pixels.size:
        raise ValueError(f"it has {len(data)} bytes of pixels instead of {pixels.size}")
    pixels[:] = np.frombuffer(data, np.uint8).reshape(pixels.shape)


def _decode_jpeg(data: memoryview, pixels: np.ndarray) -> None:
    # The accurate transform, which is as fast. A smaller image leaves the rest of `pixels` uninitialized.
    decoded = simplejpeg.decode_jpeg(data, "RGB" if pixels.shape[2] == 3 else "GRAY", False, False, 0, 0, 1, pixels)
    if decoded.shape != pixels.shape:
        found, wanted = (f"{image.shape[1]} x {image.shape[0]}" for image in (decoded, pixels))
        raise ValueError(f"it has {found} px instead of {wanted}")


def _decode_png(data: memoryview, pixels: np.ndarray) -> None:
    with parser_errors(ValueError), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.size != pixels.shape[1::-1]:  # NumPy would repeat a smaller one
            raise ValueError(f"it has {image.width} x {image.height} px instead of {pixels.shape[1]} x {len(pixels)}")
        pixels[:] = np.asarray(image.convert(MODES[pixels.shape[2]])).reshape(pixels.shape)


def _sizes(shards: Sequence[Shard], size: ImageSize) -> np.ndarray:
    """Returns width and height of each image, uint16 `[num_examples, 2]`: `size`, or those of the sidecars if 0."""
    if size:
        return np.full((sum(shard.num_examples for shard in shards), 2), size, np.uint16)
    return np.concatenate([read_sizes(shard.path, shard.num_examples).astype(np.uint16) for shard in shards])


def _table(shard: Shard) -> np.ndarray:
    """Returns a shard's sidecar file, int64 `[num_examples, 2]`, after checking it against the shard's length."""
    table = ShardReader(shard.path).offsets()
    ends = np.cumsum(table[:, 1])  # negative where lengths from elsewhere add up to more than an int64
    whole = (table[:, 1] >= FRAMING_BYTES).all() and (ends > 0).all() and (table[:, 0] == ends - table[:, 1]).all()
    if len(table) != shard.num_examples or not whole or ends[-1] != shard.path.stat().st_size:
        raise DataError(
            f"{find_index(shard.path)} does not list the {shard.num_examples:,} records of its shard without gaps. "
            "Run `simimg verify`, and convert the images again."
        )
    return table
