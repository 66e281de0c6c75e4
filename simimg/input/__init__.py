"""Shards to batches: three readers, one face."""

from simimg.input.batch_iterator import batches_of
from simimg.input.label_counts import label_counts
from simimg.input.pipeline import (
    CACHES,
    ON_CORRUPT,
    READERS,
    SHUFFLES,
    Reader,
    ReaderChoice,
    choose_reader,
    choose_shuffle,
    eval_batches,
    mixing_of,
    open_reader,
    train_batches,
    troubles,
)
from simimg.input.sampler import Mixing, Order, Position
from simimg.input.split import PADDING_ID, Batch, Split, input_errors, open_split, reading

__all__ = [
    "CACHES",
    "ON_CORRUPT",
    "PADDING_ID",
    "READERS",
    "SHUFFLES",
    "Batch",
    "Mixing",
    "Order",
    "Position",
    "Reader",
    "ReaderChoice",
    "Split",
    "batches_of",
    "choose_reader",
    "choose_shuffle",
    "eval_batches",
    "input_errors",
    "label_counts",
    "mixing_of",
    "open_reader",
    "open_split",
    "reading",
    "train_batches",
    "troubles",
]
