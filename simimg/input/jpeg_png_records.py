"""JPEG and PNG records, found by their place through the shards' sidecars, their checksums tested, decoded.

Decoding happens in C without the interpreter's lock, so callers in several threads decode at the same time; what a
picture holds the lock for is about two microseconds.
"""

from __future__ import annotations

import io
import itertools

import google_crc32c
import numpy as np
import simplejpeg
from PIL import Image

from simimg.errors import CorruptRecordError, DataError
from simimg.input.shard_memmap import map_records
from simimg.input.split import PADDING_ID, Shard, Split
from simimg.input.zero_copy import aligned
from tfrecords.format.naming import index_path
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, unmasked, varints
from tfrecords.format.record_layout import INT_BYTES, record_spans
from tfrecords.format.shard import ShardReader

__all__ = ["ON_CORRUPT", "EncodedRecords"]

ON_CORRUPT = ("fail", "skip")

_LENGTH_BYTES = 8  # of a record's header, before their checksum


class EncodedRecords:
    """The records of a split that `simimg convert` wrote as JPEG or PNG.

    Attributes:
        corrupt: of each record that was skipped, by its place, what is wrong with it.

    Args:
        split: which.
        on_corrupt: `fail`, or `skip`, which makes padding of a record that cannot be read: pixels and label 0, id -1.
        decode: False leaves the pixels undefined, to measure what the rest takes.

    Raises:
        DataError: a shard or its sidecar is missing or damaged.
    """

    def __init__(self, split: Split, *, on_corrupt: str = "fail", decode: bool = True) -> None:
        self.corrupt: dict[int, str] = {}
        self._size = split.image_size
        self._decode = {"jpeg": _decode_jpeg, "png": _decode_png}[split.encoding] if decode else _decode_nothing
        self._skip = on_corrupt == "skip"
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
        # Two thousand million bytes are enough for a record; so these take half the memory.
        self._ids_at, self._images_at, self._image_bytes = (
            part.astype(np.int32) for part in record_spans(self._lengths)
        )

    def gather(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns images uint8 `[n, size, size, 3]`, labels int32 `[n]` and ids int64 `[n]` of the records at `places`.

        Raises:
            CorruptRecordError: one cannot be read; names the shard, the record's number there and its offset.
        """
        starts, lengths = self._starts[places], self._lengths[places]
        ends = starts + lengths - FOOTER_BYTES
        wrong = (self._image_bytes[places] < 0) | (self._numbers(starts, _LENGTH_BYTES) != lengths - FRAMING_BYTES)
        images_at = starts + self._images_at[places]
        columns = (
            wrong,
            starts + HEADER_BYTES,
            ends,
            unmasked(self._numbers(ends, FOOTER_BYTES)),
            images_at,
            images_at + self._image_bytes[places],
        )
        images = aligned((len(places), self._size, self._size, 3))
        faults = []
        view, crc32c, decode = self._view, google_crc32c.value, self._decode
        rows = zip(*(column.tolist() for column in columns), images, strict=True)
        for row, (is_wrong, start, end, checksum, image_at, image_end, pixels) in enumerate(rows):
            try:
                if is_wrong:
                    raise ValueError("its length is not that of the sidecar, or that of no record")
                if crc32c(view[start:end].tobytes()) != checksum:
                    raise ValueError("the checksum of the payload fails")
                decode(view[image_at:image_end], pixels)
            except ValueError as error:
                faults.append((row, str(error)))
        labels = self._varints(ends - INT_BYTES).astype(np.int32)
        ids = self._varints(starts + self._ids_at[places])
        for row, reason in faults:
            self._report(int(places[row]), reason)
            images[row], labels[row], ids[row] = 0, 0, PADDING_ID
        return images, labels, ids

    def stored(self, places: np.ndarray) -> np.ndarray:
        """Returns the bytes of the records at `places`, bytes `[n]`."""
        starts, lengths = self._starts[places].tolist(), self._lengths[places].tolist()
        view = self._view
        return np.array([bytes(view[at : at + length]) for at, length in zip(starts, lengths, strict=True)], object)

    def _numbers(self, at: np.ndarray, num_bytes: int) -> np.ndarray:
        """Returns the little-endian numbers of `num_bytes` bytes that lie at `at`, int64 like it."""
        parts = self._bytes[at[:, None] + np.arange(num_bytes)].astype(np.int64)
        return (parts << (8 * np.arange(num_bytes))).sum(axis=1)

    def _varints(self, at: np.ndarray) -> np.ndarray:
        return varints(self._bytes[at[:, None] + np.arange(INT_BYTES)])

    def _report(self, place: int, reason: str) -> None:
        shard = int(np.searchsorted(self._first_places, place, side="right")) - 1
        first = self._first_places[shard]
        where = f"record {place - first} at byte {self._starts[place] - self._starts[first]}"
        text = f"{self._shards[shard].path}: {where}: {reason}"
        if not self._skip:
            raise CorruptRecordError(f"{text}. Convert the pictures again, or pass over it with --on_corrupt=skip.")
        self.corrupt[place] = text


def _decode_nothing(data: memoryview, pixels: np.ndarray) -> None:
    pass


def _decode_jpeg(data: memoryview, pixels: np.ndarray) -> None:
    simplejpeg.decode_jpeg(data, "RGB", False, False, 0, 0, 1, pixels)  # by the accurate transform, which is as fast


def _decode_png(data: memoryview, pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        pixels[:] = np.asarray(image.convert("RGB"))


def _table(shard: Shard) -> np.ndarray:
    """Returns a shard's sidecar, int64 `[num_examples, 2]`, after checking that its shard has those bytes."""
    table = ShardReader(shard.path).offsets()
    ends = np.cumsum(table[:, 1])
    whole = (table[:, 1] >= FRAMING_BYTES).all() and (table[:, 0] == ends - table[:, 1]).all()
    if len(table) != shard.num_examples or not whole or ends[-1] != shard.path.stat().st_size:
        raise DataError(
            f"{index_path(shard.path)} does not list the {shard.num_examples:,} records of its shard one after the "
            "other. Run `simimg verify`, and convert the pictures again."
        )
    return table
