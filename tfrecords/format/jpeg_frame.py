"""The frame header of a JPEG, and the sidecar with the sizes of a shard's images.

Where images keep their own shapes, each TFRecord shard has a sidecar `sizes/<shard>.sizes`. It has one line
`width height` in px per record, so that a reader can plan crops without touching the records.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tfrecords.base_errors import DataError
from tfrecords.format.example import decode_lists
from tfrecords.format.naming import INDEX_FOLDER, SIZES_FOLDER
from tfrecords.format.parse_errors import readable

MAX_SEGMENTS = 1000  # before the pixels; cameras write about ten


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header of any JPEG says: 0xC0..0xCF for the kind of compression, bits, px, components."""

    kind: int
    precision: int
    width: int
    height: int
    components: int


def frame_of(data: bytes) -> Frame | None:
    """Return the content of a JPEG's frame header, None if it has none before its first scan."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        kind = data[at + 1]
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            if at + 10 > len(data):
                return None
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return Frame(kind, precision, width, height, components)
        if kind == 0xDA:
            return None
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return None


def size_of_example(payload: bytes) -> tuple[int, int]:
    """Return width and height of the JPEG in a serialized Example, px; 0, 0 if it has none."""
    try:
        (image,) = decode_lists(payload)["image"]
    except (ValueError, KeyError):
        return 0, 0
    frame = frame_of(image) if isinstance(image, bytes) else None
    return (frame.width, frame.height) if frame else (0, 0)


def sizes_path(shard: Path) -> Path:
    """Return the path of a shard's sidecar with the sizes of its images: beside it until the dataset is finished.

    In some earlier datasets it is in the folder of the offsets.
    """
    beside = shard.with_name(f"{shard.name}.sizes")
    finished = (shard.parent / folder / beside.name for folder in (SIZES_FOLDER, INDEX_FOLDER))
    return next((path for path in finished if path.exists()), beside)


def sizes_bytes(sizes: Iterable[int] | array[int]) -> bytes:
    """Return the content of that sidecar: width and height of the first image, of the second one, …"""
    numbers = iter(sizes)
    return b"".join(b"%d %d\n" % pair for pair in zip(numbers, numbers, strict=True))


def read_sizes(shard: Path, num_examples: int) -> np.ndarray:
    """Return width and height of the image of each record, int64 `[num_examples, 2]`, px.

    Raises DataError if the sidecar is missing, or does not have a possible size for each record.
    """
    path = sizes_path(shard)
    with readable(path):
        text = path.read_bytes()
    try:
        sizes = np.fromstring(text, np.int64, sep=" ").reshape(text.count(b"\n"), 2)
    except ValueError:
        sizes = np.zeros((1, 2), np.int64)
    if len(sizes) != num_examples or (len(sizes) and not (sizes.min() >= 1 and sizes.max() <= 0xFFFF)):
        raise DataError(
            f"{path} should have one line `width height` for each of the {num_examples:,} records of its shard. Run "
            "`simimg verify`, and convert the images again."
        )
    return sizes
