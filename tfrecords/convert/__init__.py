"""From a folder of pictures to a data set folder."""

from tfrecords.convert.config import ConvertConfig
from tfrecords.convert.engine import ConvertProgress, ConvertSummary, convert
from tfrecords.convert.images import decode, encode, resize
from tfrecords.convert.quarantine import Reason, Refusal
from tfrecords.convert.sources import ImageFile, Source, scan_folder

__all__ = [
    "ConvertConfig",
    "ConvertProgress",
    "ConvertSummary",
    "ImageFile",
    "Reason",
    "Refusal",
    "Source",
    "convert",
    "decode",
    "encode",
    "resize",
    "scan_folder",
]
