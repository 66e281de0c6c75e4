"""A whole split as arrays in memory, every record's checksums tested."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from simimg.errors import CorruptRecordError
from simimg.input.jpeg_png_records import EncodedRecords
from simimg.input.readers.stream import StreamReader
from simimg.input.shard_memmap import map_records
from simimg.input.split import PADDING_ID, Split, reading
from simimg.input.zero_copy import aligned
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, varints
from tfrecords.format.record_layout import INT_BYTES, Offsets

__all__ = ["Examples", "load_examples"]

_RECORDS_PER_TASK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """A split, in the order of its shards.

    Attributes:
        images: uint8 `[num_examples, image_size, image_size, 3]`.
        labels: int32 `[num_examples]`.
        ids: int64 `[num_examples]`, -1 where a record was skipped.
        corrupt: of each record that was skipped, by its place, what is wrong with it.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    corrupt: dict[int, str]


def load_examples(split: Split, *, num_threads: int, on_corrupt: str = "fail") -> Examples:
    """Reads a whole split.

    Args:
        split: which.
        num_threads: that read and decode.
        on_corrupt: `fail`, or `skip`, which makes padding of a record that cannot be read: pixels and label 0, id -1.

    Raises:
        DataError: a record cannot be read, or there are fewer or more than the metadata says.
    """
    count, size = split.num_examples, split.image_size
    examples = Examples(
        images=aligned((count, size, size, 3)),
        labels=np.empty(count, np.int32),
        ids=np.empty(count, np.int64),
        corrupt={},
    )
    if not split.indexed:
        _load_stream(split, examples)
    elif split.offsets is not None:
        _load_raw(split, split.offsets, examples, num_threads, on_corrupt == "skip")
    else:
        _load_encoded(EncodedRecords(split, on_corrupt=on_corrupt), examples, num_threads)
    return examples


def _load_raw(split: Split, at: Offsets, examples: Examples, num_threads: int, skip: bool) -> None:
    shards = [shard for shard in split.shards if shard.num_examples]
    records = map_records([(shard.path, shard.num_examples) for shard in shards], at.record_bytes)
    start = header(at.record_bytes - FRAMING_BYTES)
    pixels = examples.images.reshape(len(examples.images), -1)

    def load(shard: int, first: int) -> None:
        places, rows = records.spans()[shard]
        end = min(first + _RECORDS_PER_TASK, places.stop - places.start)
        part = records.rows[rows.start + first : rows.start + end]
        to = slice(places.start + first, places.start + end)
        pixels[to] = part[:, at.image_offset : at.image_offset + pixels.shape[1]]
        examples.labels[to] = varints(part[:, at.label_offset : at.label_offset + INT_BYTES])
        examples.ids[to] = varints(part[:, at.id_offset : at.id_offset + INT_BYTES])
        for number, record in enumerate(map(np.ndarray.tobytes, part), first):
            if record.startswith(start) and record.endswith(footer(record[HEADER_BYTES:-FOOTER_BYTES])):
                continue
            text = f"{shards[shard].path}: record {number} at byte {number * at.record_bytes}: its checksum fails"
            if not skip:
                raise CorruptRecordError(f"{text}. Convert the pictures again, or pass over it with --on_corrupt=skip.")
            place = places.start + number
            examples.corrupt[place] = text
            examples.images[place], examples.labels[place], examples.ids[place] = 0, 0, PADDING_ID

    tasks = [
        (number, first)
        for number, shard in enumerate(shards)
        for first in range(0, shard.num_examples, _RECORDS_PER_TASK)
    ]
    with ThreadPoolExecutor(num_threads) as threads:
        for _ in threads.map(load, *zip(*tasks, strict=True)):
            pass  # what a task raises comes out here


def _load_encoded(records: EncodedRecords, examples: Examples, num_threads: int) -> None:
    def load(first: int) -> None:
        rows = slice(first, min(first + _RECORDS_PER_TASK, len(examples.ids)))
        gathered = records.gather(np.arange(rows.start, rows.stop))
        examples.images[rows], examples.labels[rows], examples.ids[rows] = gathered

    with ThreadPoolExecutor(num_threads) as threads:
        for _ in threads.map(load, range(0, len(examples.ids), _RECORDS_PER_TASK)):
            pass  # what a task raises comes out here
    examples.corrupt.update(records.corrupt)


def _load_stream(split: Split, examples: Examples) -> None:
    first = 0
    for batch in reading(split, StreamReader(split).eval_batches(_RECORDS_PER_TASK)):
        rows = slice(first, min(first + _RECORDS_PER_TASK, split.num_examples))
        parts = (part.numpy()[: rows.stop - first] for part in batch)
        examples.images[rows], examples.labels[rows], examples.ids[rows] = parts
        first = rows.stop
