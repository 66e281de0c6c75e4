"""The size and the channels of a dataset's images.

The size is an `int` for squares, their side in px, as in every dataset without `--image_size=256x192`, and a
`Rectangle` otherwise, a width and a height. In JSON a rectangle is the list [width, height]. Channels are 1 (gray), 3
(RGB) or 4 (RGBA, with alpha that is not multiplied into the colors).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfrecords.base_errors import UsageError

MAX_IMAGE_SIZE = 4096  # px, of each side
CENTER_SHARE = 7 / 8
"""Of the short side: what evaluation sees of images of their own shapes."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of images with so many channels."""
COLORS = {1: "gray", 3: "RGB", 4: "RGBA"}
"""What they are called."""

# Luma of ITU-R BT.601-7, section 2.5.1: 0.299 R + 0.587 G + 0.114 B, in 65,536ths, as Pillow rounds them. The sum is
# 65,536, so equal channels keep their value.
_LUMA = (19595, 38470, 7471)


class Rectangle(NamedTuple):
    """A width and a height in px that differ."""

    width: int
    height: int

    def __str__(self) -> str:
        """As `--image_size` takes it."""
        return f"{self.width}x{self.height}"


ImageSize = int | Rectangle


def image_size_of(value: int | str | Sequence[int]) -> ImageSize:
    """Return the size that a number, a text such as "64" or "256x192", or a pair (width, height) says.

    Raises ValueError if it is none, or a side is not 1..`MAX_IMAGE_SIZE`.
    """
    sides: list[int] = []
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([+-]?\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*", value)
        sides = [int(side) for side in match.groups() if side] if match else []
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = [value]
    elif isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int for side in value):
        sides = [*value]
    if not sides:
        raise ValueError(f"a size should be a number of px or WIDTHxHEIGHT. Received: {value!r:.100}")
    if not all(1 <= side <= MAX_IMAGE_SIZE for side in sides):
        raise ValueError(f"should be 1..{MAX_IMAGE_SIZE} px. Received: {value!r:.100}")
    width, height = sides[0], sides[-1]
    return width if width == height else Rectangle(width, height)


def parse_image_size(value: ImageSize | str | Sequence[int], *, zero: str = "") -> ImageSize:
    """Return a value of `--image_size`; raise UsageError if it is none.

    `zero` is the word that 0 stands for, if that is a value: for no size, or one that is decided later.
    """
    if zero and str(value) in ("0", zero):
        return 0
    try:
        return image_size_of(value)
    except ValueError as error:
        if zero and re.fullmatch(r"-\d+", str(value)):
            raise UsageError(f"--image_size={value}: should be 0 or more.") from None
        if str(error).startswith("should"):
            raise UsageError(f"--image_size={value}: {str(error).partition('. ')[0]}.") from None
        expected = ", ".join(["a whole number", *([zero] if zero else [])]) + " or WIDTHxHEIGHT"
        raise UsageError(f"Expected {expected} for --image_size, got {str(value)!r}.") from None


def width_height(size: ImageSize) -> tuple[int, int]:
    """Return the width and the height, px."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def image_shape(size: ImageSize, channels: int = 3) -> tuple[int, int, int]:
    """Return the shape of an image of this size as an array: height, width, channels."""
    width, height = width_height(size)
    return height, width, channels


def luma(rgb: Any, integer: Any) -> Any:
    """Return the gray levels 0..255 of RGB images `[..., h, w, 3]`, `integer` `[..., h, w, 1]`.

    `rgb` is an array of NumPy, or a tensor, of the type `integer`, which has 32 bits.
    """
    red, green, blue = (rgb[..., channel : channel + 1] * integer(weight) for channel, weight in enumerate(_LUMA))
    return (red + green + blue + integer(1 << 15)) // integer(1 << 16)


def num_pixels(size: ImageSize) -> int:
    """Return the number of pixels."""
    width, height = width_height(size)
    return width * height


def sides_text(size: ImageSize, times: str = "×") -> str:
    """Return both sides for people, such as 64 × 64."""
    width, height = width_height(size)
    return f"{width} {times} {height}"


def is_larger(size: ImageSize, other: ImageSize) -> bool:
    """Return whether a side is longer than that of the other size."""
    return any(a > b for a, b in zip(width_height(size), width_height(other), strict=True))
