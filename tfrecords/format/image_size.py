"""The size of a dataset's images: the side of a square, or a width and a height, in px.

It is an `int` for squares, as in every dataset without `--image_size=256x192`, and a `Rectangle` otherwise. In JSON a
rectangle is the list [width, height].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tfrecords.base_errors import UsageError

MAX_IMAGE_SIZE = 4096  # px, of each side


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


def image_shape(size: ImageSize) -> tuple[int, int, int]:
    """Return the shape of an image of this size as an array: height, width, channels."""
    width, height = width_height(size)
    return height, width, 3


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
