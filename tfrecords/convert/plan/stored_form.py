"""How a conversion stores images, of its options: their size, colors and encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfrecords.base_errors import UsageError
from tfrecords.convert.image.decoder import parse_backdrop
from tfrecords.format.image_size import COLORS, num_pixels
from tfrecords.format.record_layout import OWN_SHAPES

if TYPE_CHECKING:
    from tfrecords.convert.plan.convert_config import ConvertConfig

# Up to this side, reading an image's raw pixels costs less than decoding a JPEG.
RAW_UP_TO_PX = 128


def check_form(config: ConvertConfig) -> None:
    """Raise UsageError if images cannot be stored as the options say."""
    if config.resize in OWN_SHAPES:
        if config.encoding not in ("auto", "jpeg"):
            raise UsageError(
                f"--encoding={config.encoding}: images that keep their shapes (--resize={config.resize}) are stored as "
                "JPEG. Leave it out."
            )
        if not isinstance(config.image_size, int):
            raise UsageError(
                f"--image_size={config.image_size}: images that keep their shapes (--resize={config.resize}) are "
                "reduced by one side. Give one number."
            )
    if config.channels not in COLORS:
        raise UsageError(f"--channels={config.channels}: should be 1 (gray), 3 (RGB) or 4 (RGBA).")
    if config.channels == 4:
        if config.encoding == "jpeg" or config.resize in OWN_SHAPES:
            raise UsageError(
                "--channels=4: JPEG has no transparency. Give --encoding=png or raw, and a --resize that makes images "
                "of one size."
            )
        if (backdrop := parse_backdrop(config.background)) != "color":
            raise UsageError(
                f"--background={backdrop}: with --channels=4, transparency is stored and nothing is behind it. Leave "
                "out one of them."
            )
    if not 1 <= config.jpeg_quality <= 100:
        raise UsageError(f"--jpeg_quality={config.jpeg_quality}: should be 1..100.")
    if config.max_pixels < 1:
        raise UsageError(f"--max_pixels={config.max_pixels}: should be 1 or more.")


def encoding_of(config: ConvertConfig) -> str:
    """Return the encoding, with `auto` resolved."""
    if config.encoding != "auto":
        return config.encoding
    is_small = config.resize not in OWN_SHAPES and num_pixels(config.image_size) <= RAW_UP_TO_PX**2
    if is_small:
        return "raw"
    return "png" if config.channels == 4 else "jpeg"
