"""From a data set folder to batches: which reader, and the training and the evaluation side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import tensorflow as tf

from simimg.errors import UsageError
from simimg.input.dataset import PADDING_ID, Batch, Split, open_split
from simimg.input.mapped import MappedReader
from simimg.input.position import Order
from simimg.input.resident import ResidentReader
from simimg.input.stream import StreamReader

__all__ = ["READERS", "Reader", "ReaderChoice", "choose_reader", "eval_batches", "open_reader", "train_batches"]

READERS = ("auto", "resident", "mapped", "stream")

# The share of the memory that is free now which a resident split may take: the model, its activations and a second
# split have to live there as well.
_RESIDENT_SHARE = 0.25


class Reader(Protocol):
    """What a reader has besides its way to deliver examples."""

    kind: str
    split: Split


@dataclasses.dataclass(frozen=True)
class ReaderChoice:
    """Which reader was chosen for a split, and the reason, a clause fit to be shown."""

    kind: str
    reason: str


def open_reader(dataset_dir: Path, split: str, kind: str = "auto") -> tuple[Reader, ReaderChoice]:
    """Returns a reader of one split of a data set folder, and why it is of this kind.

    Args:
        dataset_dir: the data set's folder.
        split: `train`, `test`, ….
        kind: one of `READERS`.

    Raises:
        UsageError: no such folder or split; the split has no example; the kind cannot read it.
        DataError: the folder is damaged or of a form that cannot be read.
    """
    opened = open_split(dataset_dir, split)
    if not opened.num_examples:
        raise UsageError(f"{dataset_dir}: split {split!r} has no example.")
    choice = (
        choose_reader(opened, psutil.virtual_memory().available) if kind == "auto" else ReaderChoice(kind, "asked for")
    )
    readers: dict[str, Callable[[Split], Reader]] = {
        "resident": ResidentReader,
        "mapped": MappedReader,
        "stream": StreamReader,
    }
    return readers[choice.kind](opened), choice


def choose_reader(split: Split, free_bytes: int) -> ReaderChoice:
    """Returns the fastest kind of reader that can read `split` with `free_bytes` of memory."""
    size = f"{split.decoded_bytes / 2**20:,.0f} MB decoded"
    if split.decoded_bytes <= free_bytes * _RESIDENT_SHARE:
        return ReaderChoice("resident", f"{size} fits into memory")
    if split.offsets is not None:
        return ReaderChoice(
            "mapped", f"{size} does not fit into a quarter of the free memory; raw shards can be mapped"
        )
    return ReaderChoice(
        "stream", f"{size} does not fit into a quarter of the free memory; {split.encoding} shards are streamed"
    )


def train_batches(reader: Reader, order: Order) -> tf.data.Dataset:
    """Returns a data set of Batches of `order.per_replica_batch_size`, replica after replica, step after step."""
    if isinstance(reader, StreamReader):
        batches = reader.train_batches(order)
    else:
        assert isinstance(reader, ResidentReader | MappedReader)
        batches = order.indices().map(reader.gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.with_options(_options()).prefetch(tf.data.AUTOTUNE)


def eval_batches(reader: Reader, batch_size: int) -> tf.data.Dataset:
    """Returns a data set of Batches of `batch_size`: every example once, the last batch filled up with id -1."""
    if isinstance(reader, StreamReader):
        batches = reader.eval_batches(batch_size)
    else:
        assert isinstance(reader, ResidentReader | MappedReader)
        last = reader.split.num_examples - 1

        def gather(step: tf.Tensor) -> Batch:
            places = step * batch_size + tf.range(batch_size, dtype=tf.int64)
            batch = reader.gather(tf.minimum(places, last))
            return batch._replace(id=tf.where(places <= last, batch.id, PADDING_ID))

        batches = tf.data.Dataset.range(-(-reader.split.num_examples // batch_size)).map(
            gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
    return batches.with_options(_options()).prefetch(2)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # A dataset of ours is already divided among replicas; TensorFlow must not do it once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
