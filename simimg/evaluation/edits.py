"""Edited copies: what happens to photos on their way through the world; search is measured by finding the originals."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from PIL import Image, ImageEnhance, ImageOps

__all__ = ["EDITS"]

_FILL = (255, 255, 255)


def resized(image: Image.Image) -> Image.Image:
    """Half as wide and half as high."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image) -> Image.Image:
    """Through a JPEG of quality 20, on libjpeg's scale of 1..100."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def recoloured(image: Image.Image) -> Image.Image:
    """Saturation up by 80 %, contrast and brightness by 20 %, red raised and blue lowered by 15 %."""
    image = ImageEnhance.Color(image).enhance(1.8)
    image = ImageEnhance.Brightness(ImageEnhance.Contrast(image).enhance(1.2)).enhance(1.2)
    red, green, blue = image.split()
    return Image.merge("RGB", (red.point(lambda v: min(255, v * 1.15)), green, blue.point(lambda v: v * 0.85)))


def mirrored(image: Image.Image) -> Image.Image:
    """Left to right."""
    return ImageOps.mirror(image)


def turned(image: Image.Image) -> Image.Image:
    """Ten degrees counter-clockwise, white in the corners."""
    return image.rotate(10, Image.Resampling.BICUBIC, fillcolor=_FILL)


def cropped(image: Image.Image) -> Image.Image:
    """The middle 70 % of the width and of the height: half of the picture."""
    dx, dy = round(image.width * 0.15), round(image.height * 0.15)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


# From the harmless to the hard.
EDITS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    edit.__name__: edit for edit in (resized, recompressed, recoloured, mirrored, turned, cropped)
}
