"""Images of at most 256 colors, such as GIF files: what a palette does to an image is no difference.

Colors that a palette does not have are replaced by near ones (bands), or mixed from several ones (dithering). How far
the colors of the other image are from the palette tells by how much they may differ. Black text on white is in the
palette of a document, so another digit stays a difference. Dithering keeps the mean of a few pixels, and bands have
that of the nearest colors. What shifts the mean by more is no palette: a dark spot, or another color of the lips.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from simimg.similarity.registration import Registered

_MOST_COLORS = 256
_SAMPLED = 97  # one pixel in so many is counted first
_BITS = 5  # of each channel, by which the nearest color is looked up
_DITHERED = 1.5  # ratio of the differences to the distance from the palette
_FAR, _MOST_FAR = 40, 0.02  # levels, and share of the pixels
_REACH, _MOST = 5, 72  # px, and levels of a channel; the web's palette of 216 colors has steps of 51
# Side in px of the square whose mean is kept, and levels by which it is not. In 144 photos, palettes of 64 to 256
# colors shifted the mean by at most 12 levels, JPEG files of quality 40 by 26, and Pillow's bands of the web's by 27.
_KEPT_PX, _SHIFTED = 9, 24


def palette_of(image: np.ndarray) -> np.ndarray | None:
    """Return the colors of an image, uint8 `[h, w, 3]`, as uint8 `[n, 3]`; None if it has more than 256."""
    found = colors_of(image, _MOST_COLORS)
    return None if found is None else np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)


def colors_of(pixels: np.ndarray, most: int) -> np.ndarray | None:
    """Return the different colors of pixels, uint8 `[..., 3]`, as int32 `[n]`, 0xrrggbb; None if they are more."""
    colors = pixels.reshape(-1, 3)
    for some in (colors[::_SAMPLED], colors):
        red, green, blue = (some[:, channel].astype(np.int32) for channel in range(3))
        found = np.unique(red << 16 | green << 8 | blue)
        if len(found) > most:
            return None
    return found


def are_unlike_palettes(image: np.ndarray, other: np.ndarray) -> bool:
    """Return whether only one of two images has at most 256 colors, or less than half as many as the other one."""
    palettes = [palette_of(one) for one in (image, other)]
    fewer, more = sorted(_MOST_COLORS + 1 if palette is None else len(palette) for palette in palettes)
    return fewer != more and (more > _MOST_COLORS or 2 * fewer < more)


def within_palettes(pair: Registered, palettes: tuple[np.ndarray | None, np.ndarray | None]) -> Registered:
    """Return two images in one frame, the one without a palette as near to the other one as its palette explains.

    `palettes` are those of the query and the candidate, see `palette_of`.
    """
    of_query, of_candidate = palettes
    if of_query is not None:
        return dataclasses.replace(pair, candidate=_nearer(pair.candidate, pair.query, of_query, pair.inside))
    if of_candidate is not None:
        return dataclasses.replace(pair, query=_nearer(pair.query, pair.candidate, of_candidate, pair.inside))
    return pair


def _nearer(image: np.ndarray, goal: np.ndarray, palette: np.ndarray, inside: np.ndarray) -> np.ndarray:
    red, green, blue = (image[..., channel].astype(np.int32) >> 8 - _BITS for channel in range(3))
    cells = (red << 2 * _BITS) + (green << _BITS) + blue
    present = np.flatnonzero(np.bincount(cells.ravel(), minlength=1 << 3 * _BITS))
    sides = np.stack([present >> 2 * _BITS, present >> _BITS, present], axis=1) & (1 << _BITS) - 1
    centers = ((sides << 8 - _BITS) + (1 << 7 - _BITS)).astype(np.float32)
    colors = palette.astype(np.float32)
    # Squared distances, up to a constant: sums of integers below 2 ** 24, which are exact.
    nearest = np.zeros((1 << 3 * _BITS, 3), np.uint8)
    nearest[present] = palette[np.argmin((colors * colors).sum(axis=1) - 2 * centers @ colors.T, axis=1)]
    quantized = nearest[cells]
    distance = cv2.absdiff(image, quantized)
    if float((distance.max(axis=2) > _FAR).mean()) > _MOST_FAR:  # a palette suits the image that it was made for
        return image
    allowed = cv2.dilate(distance, np.ones((_REACH, _REACH), np.uint8)).astype(np.float32)
    allowed = np.minimum(np.rint(_DITHERED * allowed), _MOST).astype(np.int16)
    change = goal.astype(np.int16) - image
    mean, banded = _mean(change, inside), _mean(quantized.astype(np.int16) - image, inside)
    shift = mean - np.clip(mean, np.minimum(banded, 0), np.maximum(banded, 0))
    change -= np.where(np.abs(shift) > _SHIFTED, np.rint(shift), 0).astype(np.int16)
    return np.clip(image + np.clip(change, -allowed, allowed), 0, 255).astype(np.uint8)


def _mean(change: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the mean around each pixel, float32 `[h, w, 3]`, of levels, int16 `[h, w, 3]`; 0 counts outside."""
    # Sums of integers below 2 ** 24: exact in float32, in any order.
    square = (_KEPT_PX, _KEPT_PX)
    sums = cv2.boxFilter(np.where(inside[..., None], change, 0).astype(np.float32), -1, square, normalize=False)
    return sums / np.float32(_KEPT_PX * _KEPT_PX)
