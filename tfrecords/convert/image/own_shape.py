"""Images that keep their shapes: their size, and whether a file can be stored as it is.

`short` and `longest` reduce images whose short side, or longer side, is larger than asked for; `none` reduces nothing.
No image is enlarged. A JPEG that need not be reduced is stored with the bytes of its file if every reader shows the
same: upright, sRGB, 8 bits, YCbCr or gray, and without a warning of libjpeg. Everything else is compressed again.
"""

from __future__ import annotations

import simplejpeg

from tfrecords.convert.image.jpeg import PlainJpeg
from tfrecords.format.image_size import ImageSize
from tfrecords.format.quarantine import Reason, Refusal

MAX_JPEG_SIDE = 65_500  # px; libjpeg's JPEG_MAX_DIMENSION


def own_size(size: tuple[int, int], image_size: ImageSize, how: str) -> tuple[int, int]:
    """Return width and height in px under which an image of `size` is stored; `how` is short, longest or none."""
    if how == "none":
        return size
    assert isinstance(image_size, int), "one side is reduced"
    side = min(size) if how == "short" else max(size)
    if side <= image_size:
        return size
    width, height = (max(1, (2 * length * image_size + side) // (2 * side)) for length in size)  # rounded
    return width, height


def stays_as_it_is(data: bytes, header: PlainJpeg) -> bool:
    """Return whether the file of a JPEG that is not reduced, and was decoded without a warning, can be stored."""
    try:
        colors: str = simplejpeg.decode_jpeg_header(data)[2]
    except KeyError:  # colors sampled as 4:4:1, which simplejpeg decodes but has no name for
        return False
    return header.orientation == 1 and colors == ("Gray" if header.components == 1 else "YCbCr")


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, or raise Refusal if no JPEG can have it."""
    if max(size) > MAX_JPEG_SIDE:
        raise Refusal(
            Reason.TOO_LARGE,
            f"{size[0]:,} x {size[1]:,} px would be stored, and a JPEG has at most {MAX_JPEG_SIDE:,} px per side",
        )
    return size
