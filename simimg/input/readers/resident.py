"""The resident reader: the decoded split is one uint8 tensor, and a batch is a gather of any of its rows.

`ResidentReader` keeps the split in the host's memory. `DeviceReader` keeps it on every training device: the host only
sends places, and the gather runs on the device. Each replica has the whole split, because an epoch's permutation may
bring any example to any replica.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.readers.random_access import GatherReader
from simimg.input.readers.stream import StreamReader
from simimg.input.records import EncodedRecords, aligned, corrupt_record, shared_tensor
from simimg.input.sampler import Order
from simimg.input.split import PADDING_ID, Batch, Split, reading
from simimg.input.split_union import relabeled, renumbered, with_passes
from tfrecords.format.mapped_shards import map_records
from tfrecords.format.record import FOOTER_BYTES, FRAMING_BYTES, HEADER_BYTES, footer, header, varints
from tfrecords.format.record_layout import INT_BYTES, Offsets

_RECORDS_PER_TASK = 256


class ResidentReader(GatherReader):
    """Reads a split that fits into memory; takes the arguments of `load_examples`, and raises what it raises."""

    kind = "resident"

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        super().__init__(split, num_threads)
        examples = load_examples(split, num_threads=num_threads, on_corrupt=on_corrupt)
        self.corrupt = examples.corrupt
        self._parts: Sequence[tf.Tensor | tf.Variable] = examples.tensors()

    def gather(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, int64 `[batch]` in 0..num_examples-1."""
        return with_passes(self._at, places) if self.split.parts else self._at(places)

    def _at(self, places: tf.Tensor) -> Batch:
        return Batch(*(tf.gather(part, places) for part in self._parts))


class DeviceReader(ResidentReader):
    """Reads a split that fits into the memory of each device; made in the scope of the strategy that trains.

    Raises:
        UsageError: the split does not fit into a device's memory.
    """

    def __init__(self, split: Split, *, num_threads: int, on_corrupt: str = "fail") -> None:
        super().__init__(split, num_threads=num_threads, on_corrupt=on_corrupt)
        self._on_corrupt = on_corrupt
        try:
            image, label, id = self._parts
            label = tf.cast(label, tf.int64) if label.dtype == tf.int32 else label  # a GPU has no variables of int32
            kept = (image, label, id)
            self._parts = [tf.Variable(part, trainable=False) for part in kept]
        except tf.errors.ResourceExhaustedError:
            raise UsageError(
                f"--cache=device: the {split.decoded_bytes / 2**20:,.0f} MB of split {split.split!r} do not fit into "
                "the memory of a device. Leave it out."
            ) from None

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a dataset of places, int64 `[per_replica_batch_size]`."""
        return order.indices()

    def _at(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`, gathered on the device of the replica that calls this."""
        # From the variables themselves, which `tf.gather` does not do if each replica has its own. TensorFlow 2.21 has
        # no kernel for GPUs that gathers from a tensor of uint8, and would copy the split to the host in each step.
        image, label, id = (
            tf.raw_ops.ResourceGather(resource=part.handle, indices=places, dtype=part.dtype) for part in self._parts
        )
        return Batch(image, tf.cast(label, self.split.label_dtype), id)

    def batch(self, places: tf.Tensor) -> Batch:
        """Returns the examples at `places`."""
        return self.gather(places)

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a dataset of Batches of `batch_size` from the host, which reads the split again for it."""
        on_host = ResidentReader(self.split, num_threads=self._num_threads, on_corrupt=self._on_corrupt)
        return on_host.eval_batches(batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """A split as arrays, in the order of its shards."""

    images: np.ndarray  # uint8 `[num_examples, height, width, 3]`
    labels: np.ndarray  # as in a Batch
    ids: np.ndarray  # int64 `[num_examples]`, -1 for skipped records
    corrupt: dict[int, str]  # the reason for each record that was skipped, by its place

    def tensors(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns images, labels and ids as tensors on the CPU; the images are not copied."""
        with tf.device("CPU:0"):
            return shared_tensor(self.images), tf.constant(self.labels), tf.constant(self.ids)


def load_examples(split: Split, *, num_threads: int, on_corrupt: str = "fail") -> Examples:
    """Reads a whole split in `num_threads` threads, and verifies the checksums of every record.

    With `on_corrupt` = `skip` an unreadable record becomes padding: pixels and label 0, id -1.

    Raises:
        DataError: a record cannot be read, or there are fewer or more records than the metadata says.
    """
    count = split.num_examples
    images, ids = aligned((count, *split.image_shape)), np.empty(count, np.int64)
    labels = _labels_for(split)
    examples = Examples(images=images, labels=labels, ids=ids, corrupt={})
    if not split.parts:
        _load(split, examples, num_threads, on_corrupt)
        return examples
    end = 0
    for number, part in enumerate(split.parts):
        rows = slice(end, end := end + part.split.num_examples)
        own = Examples(images=images[rows], labels=_labels_for(part.split), ids=ids[rows], corrupt={})
        _load(part.split, own, num_threads, on_corrupt)
        labels[rows] = relabeled(own.labels, part, len(split.class_names))
        ids[rows] = renumbered(own.ids, number)
        examples.corrupt.update({rows.start + place: fault for place, fault in own.corrupt.items()})
    return examples


def _labels_for(split: Split) -> np.ndarray:
    return np.empty((split.num_examples, *split.label_shape), split.label_dtype.as_numpy_dtype)


def _load(split: Split, examples: Examples, num_threads: int, on_corrupt: str) -> None:
    if not split.indexed:
        _load_stream(split, examples)
    elif split.offsets is not None:
        _load_raw(split, split.offsets, examples, num_threads, on_corrupt == "skip")
    else:
        _load_encoded(EncodedRecords(split, on_corrupt=on_corrupt), examples, num_threads)


def _load_raw(split: Split, at: Offsets, examples: Examples, num_threads: int, skip: bool) -> None:
    shards = [shard for shard in split.shards if shard.num_examples]
    records = map_records([(shard.path, shard.num_examples) for shard in shards], at.record_bytes)
    spans = records.spans()
    label_bytes = split.schema.label_bytes
    start = header(at.record_bytes - FRAMING_BYTES)
    pixels = examples.images.reshape(len(examples.images), -1)

    def load(task: tuple[int, int]) -> None:
        shard, first = task
        places, rows = spans[shard]
        end = min(first + _RECORDS_PER_TASK, places.stop - places.start)
        part = records.rows[rows.start + first : rows.start + end]
        to = slice(places.start + first, places.start + end)
        pixels[to] = part[:, at.image_offset : at.image_offset + pixels.shape[1]]
        ends = part[:, at.label_offset : at.label_offset + label_bytes]
        examples.labels[to] = split.schema.labels_of(ends, len(split.class_names))
        examples.ids[to] = varints(part[:, at.id_offset : at.id_offset + INT_BYTES])
        for number, record in enumerate(map(np.ndarray.tobytes, part), first):
            if record.startswith(start) and record.endswith(footer(record[HEADER_BYTES:-FOOTER_BYTES])):
                continue
            fault = f"{shards[shard].path}: record {number} at byte {number * at.record_bytes}: its checksum fails"
            if not skip:
                raise corrupt_record(fault)
            place = places.start + number
            examples.corrupt[place] = fault
            examples.images[place], examples.labels[place], examples.ids[place] = 0, 0, PADDING_ID

    firsts = [range(0, shard.num_examples, _RECORDS_PER_TASK) for shard in shards]
    _run_tasks(load, ((shard, first) for shard, starts in enumerate(firsts) for first in starts), num_threads)


def _load_encoded(records: EncodedRecords, examples: Examples, num_threads: int) -> None:
    def load(first: int) -> None:
        rows = slice(first, min(first + _RECORDS_PER_TASK, len(examples.ids)))
        gathered = records.gather(np.arange(rows.start, rows.stop))
        examples.images[rows], examples.labels[rows], examples.ids[rows] = gathered

    _run_tasks(load, range(0, len(examples.ids), _RECORDS_PER_TASK), num_threads)
    examples.corrupt.update(records.corrupt)


def _run_tasks(task: Callable[..., None], arguments: Iterable[object], num_threads: int) -> None:
    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(task, arguments))  # raises what a task has raised


def _load_stream(split: Split, examples: Examples) -> None:
    first = 0
    for batch in reading(split, StreamReader(split).eval_batches(_RECORDS_PER_TASK)):
        rows = slice(first, min(first + _RECORDS_PER_TASK, split.num_examples))
        parts = (part.numpy()[: rows.stop - first] for part in batch)
        examples.images[rows], examples.labels[rows], examples.ids[rows] = parts
        first = rows.stop
