"""Shards to batches: three readers, one face."""

from simimg.input.dataset import Batch, Split, open_split, reading
from simimg.input.pipeline import READERS, Reader, ReaderChoice, choose_reader, eval_batches, open_reader, train_batches
from simimg.input.position import Order, Position

__all__ = [
    "READERS",
    "Batch",
    "Order",
    "Position",
    "Reader",
    "ReaderChoice",
    "Split",
    "choose_reader",
    "eval_batches",
    "open_reader",
    "open_split",
    "reading",
    "train_batches",
]
