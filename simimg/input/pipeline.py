"""From a data set folder to batches: which reader, which order, and the training and the evaluation side by side."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.jpeg_png_records import ON_CORRUPT
from simimg.input.readers.device_cache import DeviceReader
from simimg.input.readers.mapped import MappedReader
from simimg.input.readers.resident import ResidentReader
from simimg.input.readers.service import ServiceReader
from simimg.input.readers.stream import StreamReader
from simimg.input.sampler import Mixing, Order
from simimg.input.split import Batch, Split, open_split

__all__ = [
    "CACHES",
    "ON_CORRUPT",
    "READERS",
    "SHUFFLES",
    "Reader",
    "ReaderChoice",
    "choose_reader",
    "choose_shuffle",
    "eval_batches",
    "mixing_of",
    "open_reader",
    "train_batches",
    "troubles",
]

READERS = ("auto", "resident", "mapped", "stream")
CACHES = ("host", "device")
SHUFFLES = ("auto", "uniform", "windowed")

# The share of the memory that is free now which a resident split may take: the model, its activations and a second
# split have to live there as well.
_RESIDENT_SHARE = 0.25
# The share of the memory that is free now up to which the system is trusted to keep a mapped split's files.
_CACHED_SHARE = 0.75


class Reader(Protocol):
    """What delivers the examples of a split.

    Attributes:
        kind: which of `READERS` it is.
        split: what it reads.
        corrupt: of each record that was skipped so far, by its place, what is wrong with it.
    """

    kind: str
    split: Split
    corrupt: dict[int, str]

    def train_batches(self, order: Order) -> tf.data.Dataset:
        """Returns a data set of what `batch` makes Batches of: replica after replica, step after step."""

    def batch(self, element: Any) -> Batch:
        """Returns an element of `train_batches` as a Batch of `order.per_replica_batch_size`, in a replica's step."""

    def eval_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns a data set of Batches of `batch_size`: every example once, the last one filled up with id -1."""


@dataclasses.dataclass(frozen=True)
class ReaderChoice:
    """Which reader was chosen for a split, and the reason, a clause fit to be shown."""

    kind: str
    reason: str


def open_reader(
    dataset_dir: Path,
    split: str,
    kind: str = "auto",
    *,
    on_corrupt: str = "fail",
    cache: str = "host",
    data_service: str = "",
    num_threads: int = 0,
) -> tuple[Reader, ReaderChoice]:
    """Returns a reader of one split of a data set folder, and why it is of this kind.

    Args:
        dataset_dir: the data set's folder.
        split: `train`, `test`, ….
        kind: one of `READERS`.
        on_corrupt: `fail`, or `skip`: a record that cannot be read becomes padding, which nobody trains on.
        cache: one of `CACHES`; `device` keeps the split on every device of the strategy in whose scope this is called.
        data_service: grpc://HOST:PORT of a tf.data service that is to read and decode the split; see `ServiceReader`.
        num_threads: that decode; 0 is one a core.

    Raises:
        UsageError: no such folder or split; the split has no example; the kind cannot read it, or cannot skip; options
            that exclude each other.
        DataError: the folder is damaged or of a form that cannot be read.
    """
    opened = open_split(dataset_dir, split)
    if not opened.num_examples:
        raise UsageError(f"{dataset_dir}: split {split!r} has no example.")
    num_threads = num_threads or len(os.sched_getaffinity(0))
    if data_service:
        if kind != "auto" or cache != "host":
            raise UsageError(f"--data_service={data_service} is a reader of its own. Leave out --reader and --cache.")
        service = ServiceReader(opened, data_service, num_threads=num_threads, on_corrupt=on_corrupt)
        return service, ReaderChoice(service.kind, f"{data_service} reads and decodes")
    choice = (
        choose_reader(opened, psutil.virtual_memory().available) if kind == "auto" else ReaderChoice(kind, "asked for")
    )
    if cache == "device":
        if kind not in ("auto", "resident"):
            raise UsageError(f"--cache=device: --reader={kind} keeps nothing. Leave one of the two out.")
        choice = ReaderChoice("resident", "--cache=device keeps it where it is trained on")
    if choice.kind == "stream":
        if on_corrupt == "skip":
            raise UsageError(
                "--on_corrupt=skip: a streamed shard cannot be read on after a corrupt record. "
                "Use --reader=mapped, for which `simimg convert` has to have written the shards."
            )
        return StreamReader(opened), choice
    reader: Callable[..., Reader] = MappedReader
    if choice.kind == "resident":
        reader = DeviceReader if cache == "device" else ResidentReader
    return reader(opened, num_threads=num_threads, on_corrupt=on_corrupt), choice


def choose_reader(split: Split, free_bytes: int) -> ReaderChoice:
    """Returns the fastest kind of reader that can read `split` with `free_bytes` of memory."""
    size = f"{split.decoded_bytes / 2**20:,.0f} MB decoded"
    if split.decoded_bytes <= free_bytes * _RESIDENT_SHARE:
        return ReaderChoice("resident", f"{size} fits into memory")
    if split.indexed:
        return ReaderChoice("mapped", f"{size} does not fit into a quarter of the free memory; its shards are mapped")
    return ReaderChoice(
        "stream", f"{size} does not fit into a quarter of the free memory; shards without layout.json are streamed"
    )


def choose_shuffle(split: Split, free_bytes: int) -> str:
    """Returns which of `SHUFFLES` to use: `windowed` for shards that are larger than the memory that is free."""
    return "windowed" if (split.stored_bytes or 0) > free_bytes * _CACHED_SHARE else "uniform"


def mixing_of(split: Split, shuffle: str) -> Mixing | None:
    """Returns how far the examples of `split` are mixed under a shuffle, `uniform` or `windowed`."""
    if shuffle == "uniform" or split.stored_bytes is None:
        return None
    return Mixing.of_bytes(split.stored_bytes / split.num_examples)


def train_batches(reader: Reader, order: Order) -> tf.data.Dataset:
    """Returns a data set of what `reader.batch` makes Batches of: replica after replica, step after step."""
    return reader.train_batches(order).with_options(_options()).prefetch(2)


def eval_batches(reader: Reader, batch_size: int) -> tf.data.Dataset:
    """Returns a data set of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
    return reader.eval_batches(batch_size).with_options(_options()).prefetch(2)


def troubles(reader: Reader) -> list[str]:
    """Returns what went wrong so far without being a reason to stop, a sentence each."""
    sentences = []
    if reader.corrupt:
        example = next(reversed(reader.corrupt.values()))
        records = "record was" if len(reader.corrupt) == 1 else "records were"
        sentences.append(f"{len(reader.corrupt):,} corrupt {records} skipped so far, e.g. {example}")
    if isinstance(reader, ServiceReader) and reader.num_owed:
        batches = "batch was" if reader.num_owed == 1 else "batches were"
        sentences.append(f"{reader.num_owed:,} {batches} read here so far, which the data service did not deliver")
    return sentences


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # A dataset of ours is already divided among replicas; TensorFlow must not do it once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
