"""The canvas: paints, shades and glows on an image that is drawn at twice its size and reduced at the end.

Shading is half stippled (a ramp compared with noise) and half blended: reduced, it reads as the grain of gouache.
All randomness comes from the generator that the canvas is given, so an image is a function of its seed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tools.sample_drawing.outlines import Points, Rng
from tools.sample_drawing.palettes import Color, Palette

SCALE = 2
"""Canvas pixels per image pixel. Two is enough for soft edges under grain; three takes 2.2 times as long."""

_BYTES = np.arange(256)
Level = npt.NDArray[np.uint8]
Texture = Literal["grain", "brush", "mist"]
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A region of the canvas: an `L` mask and where its top left corner lies."""

    mask: Image.Image
    left: int
    top: int

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in canvas pixels."""
        return self.left, self.top, self.left + self.mask.width, self.top + self.mask.height

    def within(self, other: Shape) -> Shape:
        """Returns the part of this shape that lies in the other."""
        return Shape(ImageChops.multiply(self.mask, _window(other, self.area)), self.left, self.top)

    def without(self, other: Shape) -> Shape:
        """Returns the part of this shape that does not lie in the other."""
        outside = ImageChops.invert(_window(other, self.area))
        return Shape(ImageChops.multiply(self.mask, outside), self.left, self.top)


class Canvas:
    """An image while it is drawn.

    Attributes:
        w: width in canvas pixels.
        h: height in canvas pixels.
        u: the unit sizes are given in: the side of a square as large as the image.
        light: -1 or 1, the side that light comes from.
    """

    def __init__(self, width: int, height: int, palette: Palette, rng: Rng) -> None:
        """Starts an empty image of `width` x `height` pixels."""
        self.rng = rng
        self.palette = palette
        self.w, self.h = width * SCALE, height * SCALE
        self.u = float(np.sqrt(self.w * self.h))
        self.light = 1 if rng.random() < 0.5 else -1
        self.image = Image.new("RGB", (self.w, self.h), palette.light)
        # Values end at 254: a ramp of 255 covers everything, one of 0 nothing.
        self._grain = rng.integers(0, 255, (self.h, self.w), np.uint8)
        self._streaks = rng.integers(0, 255, (self.h // 3 + 1, self.w // 90 + 2), np.uint8)

    def pick(self, options: tuple[_T, ...] | list[_T]) -> _T:
        """Returns one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        """Returns True with the probability given."""
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        """Returns a number between low and high."""
        return float(self.rng.uniform(low, high))

    def shape(self, *outlines: Points) -> Shape:
        """Returns the region that the outlines cover together."""
        corners = np.concatenate(outlines) if len(outlines) > 1 else outlines[0]
        (low_x, low_y), (high_x, high_y) = corners.min(0).tolist(), corners.max(0).tolist()
        left, top = min(max(math.floor(low_x), 0), self.w - 1), min(max(math.floor(low_y), 0), self.h - 1)
        right = min(max(math.ceil(high_x) + 1, left + 1), self.w)
        bottom = min(max(math.ceil(high_y) + 1, top + 1), self.h)
        mask = Image.new("L", (right - left, bottom - top), 0)
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon((outline - (left, top)).ravel().tolist(), fill=255)
        return Shape(mask, left, top)

    def paint(self, shape: Shape, color: Color, *more: Color, angle: float = 90, alpha: float = 1.0) -> None:
        """Fills a shape with a color, or with a gradient that ends towards `angle` (0 right, 90 down)."""
        mask = shape.mask if alpha >= 1 else _faded(shape.mask, alpha)
        if more:
            self.image.paste(_gradient(shape.mask.size, (color, *more), angle), (shape.left, shape.top), mask)
        else:
            self.image.paste(color, shape.area, mask)

    def fill(self, outline: Points, color: Color, *more: Color, angle: float = 90, alpha: float = 1.0) -> Shape:
        """Makes a shape of one outline, paints it and returns it."""
        shape = self.shape(outline)
        self.paint(shape, color, *more, angle=angle, alpha=alpha)
        return shape

    def pattern(self, shape: Shape, pieces: Iterable[tuple[Points, Color]], alpha: float = 1.0) -> None:
        """Paints outlines one over the other, cut off at the edge of the shape."""
        layer = self.image.crop(shape.area)
        draw = ImageDraw.Draw(layer)
        for outline, color in pieces:
            draw.polygon((outline - (shape.left, shape.top)).ravel().tolist(), fill=color)
        mask = shape.mask if alpha >= 1 else _faded(shape.mask, alpha)
        self.image.paste(layer, (shape.left, shape.top), mask)

    def shade(
        self,
        shape: Shape,
        color: Color,
        angle: float,
        start: float = 0.3,
        end: float = 1.2,
        strength: float = 0.8,
        texture: Texture = "grain",
    ) -> None:
        """Adds a color that thickens towards `angle`.

        Args:
            shape: where.
            color: what.
            angle: in degrees; 0 is right, 90 down.
            start: where it begins, 0..1 along the shape.
            end: where it has its full strength; may lie beyond the shape.
            strength: how much it covers there, 0..1.
            texture: stippled, in dry horizontal strokes, or blended without any grain.
        """
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # In 1/255 of full cover. The two directions only add up, so nothing but the sum is as large as the shape.
        scale = 255 * strength / (end - start) / (abs(dx) + abs(dy))
        x = ((np.arange(shape.mask.width) + 0.5) / shape.mask.width - 0.5) * dx * scale
        y = ((np.arange(shape.mask.height) + 0.5) / shape.mask.height - 0.5) * dy * scale
        y += (0.5 - start) / (end - start) * 255 * strength
        level = np.clip(x.astype(np.int16)[None, :] + y.astype(np.int16)[:, None], 0, round(255 * strength))
        self._lay(shape, color, level.astype(np.uint8), texture)

    def spot(self, shape: Shape, color: Color, x: float, y: float, radius: float, strength: float = 0.8) -> None:
        """Stipples a color that is thickest at (x, y) and gone at `radius`, inside the shape."""
        across = (np.arange(shape.mask.width, dtype=np.float32) + shape.left - x) / radius
        down = (np.arange(shape.mask.height, dtype=np.float32) + shape.top - y) / radius
        level = (1 - np.sqrt((across**2)[None, :] + (down**2)[:, None])) * np.float32(255 * strength)
        self._lay(shape, color, np.maximum(level, 0).astype(np.uint8), "grain")

    def glow(self, x: float, y: float, radius: float, color: Color, strength: float = 0.6) -> None:
        """Adds a soft round light."""
        r = max(2, round(radius))
        falloff = _falloff().resize((2 * r, 2 * r), Image.Resampling.BILINEAR)
        left, top = round(x) - r, round(y) - r
        mask = _faded(falloff, strength)
        self.image.paste(color, (left, top, left + 2 * r, top + 2 * r), mask)

    def shadow(self, shape: Shape, color: Color, dx: float, dy: float, radius: float, strength: float = 0.35) -> None:
        """Adds the blurred shadow of a shape, moved by (dx, dy); paint the shape itself afterwards."""
        pad = round(radius * 2) + 2
        small = max(1, round(radius / 2))
        mask = _padded(shape.mask, pad).reduce(small)
        mask = mask.filter(ImageFilter.GaussianBlur(radius / small))
        size = (shape.mask.width + 2 * pad, shape.mask.height + 2 * pad)
        mask = _faded(mask.resize(size, Image.Resampling.BILINEAR), strength)
        left, top = round(shape.left - pad + dx), round(shape.top - pad + dy)
        self.image.paste(color, (left, top, left + size[0], top + size[1]), mask)

    def finish(self) -> Image.Image:
        """Returns the image: reduced, on grained paper, a little darker towards the corners."""
        image = self.image.reduce(SCALE)
        height, width = image.height, image.width
        pixels = np.asarray(image).astype(np.float32)
        mottle = self.rng.integers(0, 255, (height // 24 + 2, width // 24 + 2), np.uint8)
        paper = np.asarray(Image.fromarray(mottle).resize(image.size, Image.Resampling.BICUBIC)).astype(np.float32)
        tone = 0.985 + paper * (0.03 / 255) + (self._grain[::-SCALE, ::-SCALE].astype(np.float32) - 127) * (0.031 / 127)
        x = np.linspace(-1, 1, width, dtype=np.float32)
        y = np.linspace(-1, 1, height, dtype=np.float32)
        tone -= 0.06 * ((x**2)[None, :] + (y**2)[:, None]) ** 2 / 2
        pixels *= tone[:, :, None]
        return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))

    @functools.cached_property
    def _bristle(self) -> Level:
        stretched = Image.fromarray(self._streaks).resize((self.w, self.h), Image.Resampling.BICUBIC)
        mixed: Level = self._grain // 3 + np.asarray(stretched) // 3 * 2
        return mixed

    def _lay(self, shape: Shape, color: Color, level: Level, texture: Texture) -> None:
        if texture == "mist":
            self.image.paste(color, shape.area, ImageChops.multiply(Image.fromarray(level), shape.mask))
            return
        left, top, right, bottom = shape.area
        noise = (self._bristle if texture == "brush" else self._grain)[top:bottom, left:right]
        # Half dots, half tint: dots alone look like salt and pepper where the two colors differ much.
        dots = Image.fromarray((level > noise) * np.uint8(130) + level // 2)
        self.image.paste(color, shape.area, ImageChops.multiply(dots, shape.mask))


def _faded(mask: Image.Image, share: float) -> Image.Image:
    # Not Image.point: it rounds a list of 256 numbers each time, which costs more than a small mask.
    table = (_BYTES * share + 0.5).astype(np.uint8)
    return Image.fromarray(table[np.asarray(mask)])


def _window(shape: Shape, area: tuple[int, int, int, int]) -> Image.Image:
    # Pillow pads with zeros where a crop reaches beyond the image: exactly "not in the shape".
    return shape.mask.crop((area[0] - shape.left, area[1] - shape.top, area[2] - shape.left, area[3] - shape.top))


def _padded(mask: Image.Image, pad: int) -> Image.Image:
    return mask.crop((-pad, -pad, mask.width + pad, mask.height + pad))


def _gradient(size: tuple[int, int], colors: tuple[Color, ...], angle: float) -> Image.Image:
    stops = np.linspace(0, 1, len(colors))
    if angle in (0, 90):  # most of them: one row or column of colors, repeated
        length = size[0] if angle == 0 else size[1]
        t = (np.arange(length) + 0.5) / length
        t = t[None, :] if angle == 0 else t[:, None]
    else:
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        grid = (np.arange(32) + 0.5) / 32 - 0.5
        t = ((grid * dx)[None, :] + (grid * dy)[:, None]) / (abs(dx) + abs(dy)) + 0.5
    pixels = np.stack([np.interp(t, stops, [c[i] for c in colors]) for i in range(3)], 2)
    filter = Image.Resampling.NEAREST if angle in (0, 90) else Image.Resampling.BILINEAR
    return Image.fromarray((pixels + 0.5).astype(np.uint8)).resize(size, filter)


@functools.cache
def _falloff() -> Image.Image:
    axis = np.linspace(-1, 1, 128)
    distance = np.sqrt(axis[None, :] ** 2 + axis[:, None] ** 2)
    return Image.fromarray((np.clip(1 - distance, 0, 1) ** 2 * 255).astype(np.uint8))
