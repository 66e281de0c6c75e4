"""Reads the boxes of an AVIF or HEIC file that say how its image is shown: color, clean aperture, rotation, mirror.
And the color profile and the samples of a JPEG 2000, which has such boxes, too.

The boxes are those of ISO/IEC 23008-12 (HEIF), 14496-12 (ISO base media) and 15444-1 (JPEG 2000). EXIF and XMP in AVIF
and HEIC files describe the image, too, but a reader must not apply them. Nothing here raises an error: a damaged file
has no such boxes, and its decoder finds the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
from collections.abc import Iterator
from fractions import Fraction

# Where each orientation of EXIF (TIFF 6.0, tag 274) puts the axes of the stored image: (x, y) of the upright image are
# these combinations of the stored (x, y), e.g. orientation 6 moves the stored x to y, and the stored y to -x.
_AXES = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}
_ORIENTATIONS = {axes: orientation for orientation, axes in _AXES.items()}
_MAX_BOXES = 10_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShownAs:
    """How the primary image of a file is shown.

    Attributes:
        cicp: primaries, transfer and matrix of ITU-T H.273 and whether the range is full, from `colr`; or None.
        crop: the clean aperture, `(left, top, right, bottom)` px of the stored image; or None.
        orientation: rotation and mirror, as EXIF numbers them.
    """

    cicp: tuple[int, int, int, bool] | None = None
    crop: tuple[int, int, int, int] | None = None
    orientation: int = 1


def shown_as(data: bytes, size: tuple[int, int]) -> ShownAs:
    """Return how the primary image in `data` is shown, whose stored size is `size`, width and height in px."""
    cicp = crop = None
    axes = _AXES[1]
    try:
        for kind, content in _properties(data):
            if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
                primaries, transfer, matrix = struct.unpack_from(">HHH", content, 4)
                cicp = primaries, transfer, matrix, len(content) < 11 or bool(content[10] & 0x80)
            elif kind == b"clap":
                crop = _crop(content, size)
            elif kind == b"irot":
                for _ in range(content[0] & 3):
                    axes = _then(axes, _AXES[8])  # a quarter turn, counterclockwise
            elif kind == b"imir":
                # 0: top and bottom change places; 1: left and right.
                axes = _then(axes, _AXES[2 if content[0] & 1 else 4])
    except (struct.error, IndexError, ZeroDivisionError):
        pass
    return ShownAs(cicp=cicp, crop=crop, orientation=_ORIENTATIONS[axes])


def jp2_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a JPEG 2000 file, or None if it has none."""
    header = _find(data, 0, len(data), b"jp2h")
    color = header and _find(data, *header, b"colr")
    if not color or data[color[0]] not in (2, 3):  # how color is specified: by a restricted or by any profile
        return None
    return data[color[0] + 3 : color[1]]


def jpeg2000_samples(data: bytes) -> tuple[int, bool]:
    """Return the bits per sample of a JPEG 2000's first component, and whether it is signed; (16, False) if unknown."""
    found = (0, len(data)) if data.startswith(b"\xff\x4f") else _find(data, 0, len(data), b"jp2c")
    at = found[0] + 42 if found else len(data)  # in its first segment, SIZ
    return ((data[at] & 0x7F) + 1, data[at] >= 0x80) if at < len(data) else (16, False)


def _then(
    first: tuple[tuple[int, int], tuple[int, int]], second: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the axes of an image that is transformed twice: the product of two matrices."""
    (a, b), (c, d) = first
    rows = [(x * a + y * c, x * b + y * d) for x, y in second]
    return rows[0], rows[1]


def _crop(content: bytes, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the pixels of a clean aperture, which is given by its size and by how far its center is moved."""
    numbers = struct.unpack_from(">IIIIiIiI", content)
    width, height, across, down = (Fraction(numbers[at], numbers[at + 1]) for at in range(0, 8, 2))
    edges: list[int] = []
    for side, clean, moved in ((size[0], width, across), (size[1], height, down)):
        start = Fraction(side - 1, 2) + moved - (clean - 1) / 2
        edges.append(math.floor(start + Fraction(1, 2)))
        edges.append(math.floor(start + clean + Fraction(1, 2)))
    left, right, top, bottom = edges
    # Parts that are not there are an error of the file, which then is shown whole.
    return (left, top, right, bottom) if 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1] else None


def _properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the primary item's properties, in the order in which they apply."""
    meta = _find(data, 0, len(data), b"meta")
    if meta is None:
        return
    start, end = meta[0] + 4, meta[1]
    primary_box, properties = _find(data, start, end, b"pitm"), _find(data, start, end, b"iprp")
    if primary_box is None or properties is None:
        return
    primary = _integer(data, primary_box[0] + 4, 4 if data[primary_box[0]] else 2)
    container = _find(data, *properties, b"ipco")
    if container is None:
        return
    boxes = [(kind, data[begin:stop]) for kind, begin, stop in _boxes(data, *container)]
    for kind, begin, stop in _boxes(data, *properties):
        if kind != b"ipma":
            continue
        version, wide = data[begin], data[begin + 3] & 1
        at = begin + 8
        for _ in range(_integer(data, begin + 4, 4)):
            if at >= stop:
                break
            item = _integer(data, at, 4 if version else 2)
            at += 4 if version else 2
            number = data[at]
            at += 1
            for _ in range(number):
                index = _integer(data, at, 2) & 0x7FFF if wide else data[at] & 0x7F
                at += 2 if wide else 1
                if item == primary and 0 < index <= len(boxes):
                    yield boxes[index - 1]


def _find(data: bytes, start: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    return next(((begin, stop) for kind, begin, stop in _boxes(data, start, end) if kind == wanted), None)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield those of `boxes` that are whole."""
    some = itertools.islice(boxes(data, start, end), _MAX_BOXES)
    return itertools.takewhile(lambda box: box[2] <= end, some)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box from `start` to `end`, up to one without a valid length.

    The last one may end beyond `end`: then the file is truncated.
    """
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        length, kind, header = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[at + 8 : at + 16]), 16
        stop = end if length == 0 else at + length
        if stop < at + header:
            return
        yield kind, at + header, stop
        at = stop


def _integer(data: bytes, at: int, num_bytes: int) -> int:
    if at + num_bytes > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + num_bytes])
