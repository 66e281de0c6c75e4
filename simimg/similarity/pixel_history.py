"""What the pixels of an image tell about its past: whether it lost tones, has noise, or was filtered.

1. *Tones.* A palette image, a posterized one, and one of 16 bits per pixel have fewer colors or levels per color than
   the image that they were made from. A drawing has few colors by itself, and is plain in most places. A noisy version
   of a drawing has about the same colors there on average.
2. *Filters.* A sharpened or blurred image can be computed from its source to the rounding of pixels: each pixel is a
   sum of its neighbors in the source, with weights that depend on their distance alone. A blurred one does not give
   back its source.

The results are the same on every processor: sums are of integers, and equations are solved in Python's numbers.
"""

from __future__ import annotations

import dataclasses

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
# and 27 to 126 colors; of 40 photos with 256 colors, none had more than 0.42.
_DRAWN, _DRAWN_FEW, _INKS = 0.5, 0.1, 128
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
        is_drawing = bool((_tiles(pixels)[0] == 0).mean() >= (_DRAWN_FEW if colors <= _INKS else _DRAWN))
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
    drawn, colors = _tiles(np.asarray(drawing))
    plain = drawn == 0
    if plain.mean() < _DRAWN:
        return False
    extent, sums = _tiles(np.asarray(image))
    shifts = np.sort(np.abs((sums - colors)[plain]), axis=None)
    return bool((extent[plain] >= _NOISE).mean() >= _NOISY and shifts[len(shifts) // 2] <= _SHIFT * _TILE * _TILE)


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


def _tiles(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the extents of the tiles of uint8 `[h, w, 3]`, in levels, int `[n]`, and their sums, int64 `[n, 3]`."""
    height, width = ((side - _TILE // 2) // _TILE for side in pixels.shape[:2])
    start = _TILE // 2
    inner = pixels[start : start + height * _TILE, start : start + width * _TILE]
    tiles = inner.reshape(height, _TILE, width, _TILE, 3).swapaxes(1, 2).reshape(-1, _TILE * _TILE, 3)
    extent = (tiles.max(axis=1).astype(np.int64) - tiles.min(axis=1)).max(axis=1)
    return extent, tiles.sum(axis=1, dtype=np.int64)


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
