"""What the pixels of an image tell about its past: whether it lost tones, has noise, was filtered or enlarged.

1. *Tones.* A palette image, a posterized one, and one of 16 bits per pixel have fewer colors or levels per color than
   the image that they were made from. A drawing has few colors by itself, and is plain in most places. A noisy version
   of a drawing has about the same colors there on average.
2. *Filters.* A sharpened or blurred image can be computed from its source to the rounding of pixels: each pixel is a
   sum of its neighbors in the source, with weights that depend on their distance alone. A blurred one does not give
   back its source.
3. *Enlargement.* Pixels between those of the source are weighted means, which vary less the farther they are from
   them. So the differences of neighbors rise and fall with the pixels of the source, also after sharpening
   (A. C. Gallagher, Detection of linear and cubic interpolation in JPEG compressed images, CRV 2005).

The results are the same on every processor: sums are of integers, and equations are solved in Python's numbers.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from simimg.determinism import ordered_sum, solved
from simimg.similarity.palette_noise import colors_of, palette_of

_FEW_COLORS, _FEW_LEVELS = 256, 64  # of a palette; of 6 bits per color
_MORE_COLORS, _MORE_LEVELS = 4, 2  # times as many has an image that did not lose them
_NEXT = 2  # levels between neighbors in a gradient; in palettes of photos they are farther apart
_COUNTED_PX = 1 << 19  # whose colors are counted
_TILE = 8  # px; tiles begin in the middle of JPEG's blocks, so that they show the noise of several
# Share of plain tiles, by which an image counts as drawn, and that of one with fewer inks. Of 12 drawings, all had more
# and 27 to 126 colors; of 40 photos with 256 colors, none had more than 0.42. Photos of things on white have plain
# tiles, too. With 128 colors, at most 0.54 of the pixels of their other tiles equal their neighbors; in text 0.59.
_DRAWN, _DRAWN_FEW, _INKS, _FEWEST_INKS, _EQUAL = 0.5, 0.1, 128, 32, 0.56
_SHIFT = 1.5  # levels by which the means of most plain tiles differ at most in a noisy version
_NOISE, _NOISY = 6, 0.02  # levels between the extremes of a tile; the share of such tiles in a noisy version
_LEAST_PX = 64  # of the shorter side: icons have few tones

_REACH = 6  # px, of an unsharp mask of radius 2
_PART_PX, _STRIP = 192, 24  # side of the part that is examined, and half the height of what is examined of it first
# Squared levels that a filter may leave: by rounding, or a share of all that differs and the loss of a JPEG file.
# Of photos and drawings that Pillow sharpened, it left at most 0.5; of those that differ otherwise, a share of 0.03.
_ROUNDING, _LOSS, _LEFT = 0.6, 4.0, 0.02
_WEIGHTS = 0.02  # by which all weights together may differ from 1; other filters change the brightness
_NOISE_LEFT = 0.9  # share of what a blur removed that a filter cannot bring back: of noise 0.99, of photos 0.6
_CHANGED = 6.0  # squared levels by which a filtered image differs at least

_STRIP_PX = 1024  # of the other side, along which the differences of neighbors are added up
# The power at the frequency of the source's pixels, in units of that around it, across and down together. Without such
# a source, 40 drawings had less than 7 at each of five sizes; of enlarged drawings, half had more than 15, of enlarged
# photos, 95 in 100 more than 40. Photos that were resized earlier have peaks of their own.
_PEAK = 12.0
_AROUND = (3, 24)  # frequencies around it, in cycles per image
_LOWEST = 1 / 50  # cycles per px, of those; below, the content of an image shows
# JPEG's blocks make peaks at the multiples of an eighth. There, those of other multiples count as well, by this share.
_GRID, _BLOCKS_SHARE = 8, 0.25


@dataclasses.dataclass(frozen=True)
class Tones:
    """The tones of an image, as far as they are few.

    Attributes:
        colors: their number; more than matter are not counted, and the grays of a gray image are no palette.
        levels: the largest number of levels of one color.
        is_gradient: whether its few colors are a row in which each is next to the one before.
        is_drawing: whether it has few tones because it was drawn.
    """

    colors: int
    levels: int
    is_gradient: bool
    is_drawing: bool


def tones_of(image: Image.Image) -> Tones | None:
    """Return the tones of an image of mode RGB, or None for an icon, which has few by its size."""
    if min(image.size) < _LEAST_PX:
        return None
    pixels = np.asarray(image)
    colors, levels = _num_tones(pixels)
    is_palette, are_few = colors <= _FEW_COLORS, levels <= _FEW_LEVELS
    is_drawing = False
    if is_palette or are_few:
        is_drawing = _is_drawn(pixels, colors)
    return Tones(colors, levels, is_palette and _is_gradient(pixels), is_drawing)


def lost_tones(tones: Tones | None, others: Tones | None) -> bool:
    """Return whether an image is a version of another one with fewer tones. False for a drawing and for an icon."""
    if tones is None or others is None or tones.is_drawing:
        return False
    is_palette = tones.colors <= _FEW_COLORS and others.colors > _MORE_COLORS * tones.colors
    has_few_levels = tones.levels <= _FEW_LEVELS and others.levels >= _MORE_LEVELS * tones.levels
    return (is_palette and not tones.is_gradient) or has_few_levels


def has_noise(image: Image.Image, drawing: Image.Image) -> bool:
    """Return whether an image is a drawing of the same size and noise; both mode RGB."""
    if image.size != drawing.size or min(image.size) < _LEAST_PX:
        return False
    noisy, drawn = _tiles(np.asarray(image)), _tiles(np.asarray(drawing))
    plain = _extents(drawn) == 0
    if plain.mean() < _DRAWN:
        return False
    noisy, drawn = noisy[plain], drawn[plain]
    sums, colors = (tiles.sum(axis=(1, 2), dtype=np.int64) for tiles in (noisy, drawn))
    shifts = np.sort(np.abs(sums - colors), axis=None)
    return bool((_extents(noisy) >= _NOISE).mean() >= _NOISY and shifts[len(shifts) // 2] <= _SHIFT * _TILE * _TILE)


def filtered(image: Image.Image, source: Image.Image) -> str:
    """Return `sharpened` or `blurred` if an image was made so from another one of the same size, else an empty text.

    Both have mode RGB. A blur that a filter can undo is not told: the other image may be a sharpened version of this
    one. Nor is one that removes nothing but noise or dithering.
    """
    if image.size != source.size or min(image.size) < _LEAST_PX:
        return ""
    width, height = (min(side, _PART_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    box = (left, top, left + width, top + height)
    # Green is what every filter computes by itself. Luma is rounded once more.
    ours, theirs = (np.asarray(one.crop(box))[..., 1].astype(np.int64) for one in (image, source))
    if not _explains(theirs, ours):
        return ""
    if _roughness(ours) > _roughness(theirs):
        return "sharpened"
    return "" if _explains(ours, theirs) or not _tells_of(ours, theirs) else "blurred"


def left_by_filter(source: Image.Image, image: Image.Image) -> float:
    """Return the mean squared levels that the best filter of a source leaves of an image; both mode L, of one size.

    Clipped pixels are left out. Infinity for icons, and if most pixels are clipped.
    """
    if min(image.size) < _LEAST_PX:
        return math.inf
    theirs, ours = (np.asarray(one).astype(np.int64) for one in (source, image))
    inner = ours[_REACH:-_REACH, _REACH:-_REACH]
    counted = np.count_nonzero((inner > 0) & (inner < 255))
    return _left_by_filter(theirs, ours)[0] / counted if 2 * counted > inner.size else math.inf


def is_enlarged(gray: Image.Image, size: tuple[int, int]) -> bool:
    """Return whether an image, mode L, was enlarged from one of this size, width and height, and perhaps sharpened.

    False also if that cannot be seen: in small or plain images, and after strong compression.
    """
    pixels = np.asarray(gray)
    sides = zip((pixels, pixels.T), size, strict=True)
    return sum(_peak(_variation(side), source) for side, source in sides) > _PEAK


def _num_tones(pixels: np.ndarray) -> tuple[int, int]:
    """Return the numbers of colors and of levels per color; the few colors of a gray image are no palette.

    More colors than matter are not counted.
    """
    some = np.ascontiguousarray(pixels[:: 1 + pixels[..., 0].size // _COUNTED_PX]).reshape(-1, 3)
    levels = max(int(np.count_nonzero(np.bincount(some[:, color], minlength=256))) for color in range(3))
    if (some == some[:, :1]).all():
        return 1 << 24, levels
    most = _MORE_COLORS * _FEW_COLORS
    colors = colors_of(some, most)
    return most + 1 if colors is None else len(colors), levels


def _is_gradient(pixels: np.ndarray) -> bool:
    """Return whether the few colors of an image are a row in which each is next to the one before, as in a gradient."""
    palette = palette_of(pixels)
    if palette is None or len(palette) < 2:
        return False
    colors = palette.astype(np.int64)
    apart = np.abs(colors[:, None] - colors).max(axis=2)
    np.fill_diagonal(apart, 255)
    return bool(np.median(apart.min(axis=1)) <= _NEXT)


def _is_drawn(pixels: np.ndarray, colors: int) -> bool:
    """Return whether an image of few tones is plain in so many places that it was drawn."""
    tiles = _tiles(pixels)
    plain = _extents(tiles) == 0
    share = plain.mean()
    if share >= _DRAWN or share < _DRAWN_FEW or colors > _INKS:
        return bool(share >= _DRAWN)
    return colors <= _FEWEST_INKS or _equal_neighbors(tiles[~plain]) >= _EQUAL


def _equal_neighbors(tiles: np.ndarray) -> float:
    """Return the share of pixels that are equal to their neighbor on one side, the same for all, where it is largest.

    So a checkerboard, whose diagonals are equal, is as even as a plain color, in each of the eight positions.
    """
    inner = tiles[:, :-1, 1:-1]
    sides = tiles[:, :-1, 2:], tiles[:, 1:, 1:-1], tiles[:, 1:, 2:], tiles[:, 1:, :-2]
    return max(float((inner == other).all(axis=3).mean()) for other in sides)


def _tiles(pixels: np.ndarray) -> np.ndarray:
    """Return the tiles of uint8 `[h, w, 3]`: `[n, _TILE, _TILE, 3]`."""
    height, width = ((side - _TILE // 2) // _TILE for side in pixels.shape[:2])
    start = _TILE // 2
    inner = pixels[start : start + height * _TILE, start : start + width * _TILE]
    return inner.reshape(height, _TILE, width, _TILE, 3).swapaxes(1, 2).reshape(-1, _TILE, _TILE, 3)


def _extents(tiles: np.ndarray) -> np.ndarray:
    """Return how many levels the pixels of each tile differ by, int64 `[n]`."""
    return (tiles.max(axis=(1, 2)).astype(np.int64) - tiles.min(axis=(1, 2))).max(axis=1)


def _roughness(pixels: np.ndarray) -> int:
    """Return the sum of the squared differences of neighbors."""
    return sum(int((np.diff(pixels, axis=axis) ** 2).sum()) for axis in (0, 1))


def _explains(source: np.ndarray, image: np.ndarray) -> bool:
    """Return whether a filter of the source gives an image, both int64 `[h, w]`, to the rounding of its pixels."""
    inner = (slice(_REACH, -_REACH),) * 2
    wanted, same = image[inner].ravel(), source[inner].ravel()
    # What was clipped says nothing.
    counted = (wanted > 0) & (wanted < 255)
    changed = float(((wanted - same)[counted] ** 2).mean()) if counted.any() else 0.0
    if changed < _CHANGED:
        return False
    most = max(_ROUNDING, min(_LOSS, _LEFT * changed))
    middle = slice(max(0, len(source) // 2 - _STRIP), len(source) // 2 + _STRIP)
    # The best filter for a part leaves no more of it than the best one for the whole does, so that a part tells most
    # of the images that are not filtered.
    if _left_by_filter(source[middle], image[middle])[0] > most * int(counted.sum()):
        return False
    left, brightness = _left_by_filter(source, image)
    return abs(brightness - 1) <= _WEIGHTS and left / int(counted.sum()) <= most


def _tells_of(image: np.ndarray, source: np.ndarray) -> bool:
    """Return whether what a blurred image lost of its source depends on what it shows, as noise does not."""
    inner = (slice(_REACH, -_REACH),) * 2
    lost = ((source - image)[inner] ** 2)[(source[inner] > 0) & (source[inner] < 255)]
    return _left_by_filter(image, source)[0] < _NOISE_LEFT * int(lost.sum())


def _left_by_filter(source: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Return the sum of the squared levels that the best filter of a source leaves, and its weights all together."""
    inner = (slice(_REACH, -_REACH),) * 2
    wanted = image[inner].ravel()
    counted = (wanted > 0) & (wanted < 255)
    rings: dict[tuple[int, int], np.ndarray] = {}
    sizes: dict[tuple[int, int], int] = {}
    height, width = (side - 2 * _REACH for side in source.shape)
    for down in range(2 * _REACH + 1):
        for right in range(2 * _REACH + 1):
            near, far = sorted((abs(down - _REACH), abs(right - _REACH)))
            part = source[down : down + height, right : right + width]
            rings[near, far] = rings.get((near, far), 0) + part
            sizes[near, far] = sizes.get((near, far), 0) + 1
    columns = np.stack([ring.ravel()[counted] for ring in rings.values()], axis=1).astype(np.float64)
    target = wanted[counted].astype(np.float64)
    # Of integers below 2^53: exact. The diagonal is larger by 1, so that the matrix is positive definite.
    products, sides = columns.T @ columns + np.eye(columns.shape[1]), columns.T @ target
    weights = solved(np.column_stack([products, sides]).tolist())
    brightness = sum(weight * size for weight, size in zip(weights, sizes.values(), strict=True))
    left = target
    for ring, weight in enumerate(weights):  # in a fixed order
        left = left - weight * columns[:, ring]
    return float(ordered_sum(left * left)) if len(left) else 0.0, brightness


def _variation(pixels: np.ndarray) -> np.ndarray:
    """Return the sums of the third differences of neighbors in uint8 `[h, w]`, without signs, int64 `[w - 3]`."""
    start = max(0, len(pixels) - _STRIP_PX) // 2
    strip = pixels[start : start + _STRIP_PX].astype(np.int16)
    return np.abs(np.diff(strip, n=3, axis=1)).sum(axis=0, dtype=np.int64)


def _peak(variation: np.ndarray, source: int) -> float:
    """Return the power of a variation, int64 `[n]`, at the frequency of `source` pixels, in units of that around it."""
    side = len(variation) + 3
    cycles = min(source % side, -source % side)
    blocks = np.rint(np.arange(1, _GRID // 2 + 1) * side / _GRID).astype(np.int64)
    offsets = np.arange(*_AROUND)
    around = np.concatenate([cycles - offsets, cycles + offsets])
    around = around[(around >= _LOWEST * side) & (around <= side // 2)]
    around = around[np.abs(around[:, None] - blocks).min(axis=1) > 2]
    if cycles < _LOWEST * side or not len(around):
        return 0.0
    own, *noise = _power(variation, side, np.concatenate([[cycles], around])).tolist()
    level = max(1.0, sum(noise) / len(noise))
    if np.abs(blocks - cycles).min() <= 2:
        # Its own multiples are not those of the blocks.
        others = blocks[np.abs((blocks + cycles // 2) % cycles - cycles // 2) > _GRID]
        if not len(others):
            return 0.0
        level = max(level, _BLOCKS_SHARE * float(_power(variation, side, others).max()))
    return own / level


def _power(values: np.ndarray, side: int, cycles: np.ndarray) -> np.ndarray:
    """Return the power of int64 `[n]` at some numbers of cycles per `side`, `[k]`, under a window: float64 `[k]`."""
    place = np.arange(len(values))
    window = np.sin(np.pi * (place + 0.5) / len(values)) ** 2
    phase = 2 * np.pi * (np.outer(place, cycles) % side) / side
    # Sums of integers below 2^53: exact.
    waves = np.rint(1024 * window[:, None] * np.concatenate([np.cos(phase), np.sin(phase)], axis=1))
    parts = (values - values.sum() // len(values)).astype(np.float64) @ waves
    return (parts * parts).reshape(2, -1).sum(axis=0)
