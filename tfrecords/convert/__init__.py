"""From pictures to a data set folder."""

from tfrecords.convert.config import ConvertConfig
from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.images import decode, encode, resize
from tfrecords.convert.quarantine import Reason, Refusal
from tfrecords.convert.result import ConvertSummary
from tfrecords.convert.sources import Source, open_source

__all__ = [
    "ConvertConfig",
    "ConvertProgress",
    "ConvertSummary",
    "Reason",
    "Refusal",
    "Source",
    "convert",
    "decode",
    "encode",
    "open_source",
    "resize",
]
