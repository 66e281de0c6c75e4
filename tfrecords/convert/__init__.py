"""Converts images to a dataset folder."""

from tfrecords.convert.engine import ConvertProgress, convert
from tfrecords.convert.image.decoder import decode, encode, resize
from tfrecords.convert.output.summary import ConvertSummary
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.sources import Source, open_source
from tfrecords.format.quarantine import Reason, Refusal

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
