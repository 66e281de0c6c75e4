"""Shards to batches: opens a split, picks one of the readers, and delivers training and evaluation batches."""

from simimg.input.crops import CROPS
from simimg.input.pipeline import (
    AUTO_CROP,
    CACHES,
    READERS,
    SHUFFLES,
    batches_of,
    choose_shuffle,
    eval_batches,
    folders_with,
    input_warnings,
    label_counts,
    mixing_of,
    mixture_of,
    open_reader,
    target_spread,
    train_batches,
)
from simimg.input.records import ON_CORRUPT
from simimg.input.sampler import Order, Position
from simimg.input.split import PADDING_ID, Batch, Reader, Split, input_errors, open_split, reading, run_splits
from simimg.input.split_union import own_ids, trained_copies, union_notes, without_passes

__all__ = [
    "AUTO_CROP",
    "CACHES",
    "CROPS",
    "ON_CORRUPT",
    "PADDING_ID",
    "READERS",
    "SHUFFLES",
    "Batch",
    "Order",
    "Position",
    "Reader",
    "Split",
    "batches_of",
    "choose_shuffle",
    "eval_batches",
    "folders_with",
    "input_errors",
    "input_warnings",
    "label_counts",
    "mixing_of",
    "mixture_of",
    "open_reader",
    "open_split",
    "own_ids",
    "reading",
    "run_splits",
    "target_spread",
    "train_batches",
    "trained_copies",
    "union_notes",
    "without_passes",
]
