"""Gives one image the brightness, contrast, tint and saturation of another one that shows the same picture.

What a photo program or a filter does to all pixels alike is fitted; a color that was exchanged is not. So brightness is
learned from pixels without color: a red shirt that became black next to an unchanged white wall was not darkened.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

_NEUTRAL = 14  # chroma, in levels of 255, below which a pixel has no color
_BINS = 16  # of luma
_SAMPLE = 16_000  # pixels, at most
_OTHER = 24  # levels
_GRAY = 4  # ratio of the chroma of two images from which one of them is gray
_MOST_TINT = 40.0  # levels
_MOST_SATURATION = 2.5
_COLORED, _COSINE = 24, 0.5  # chroma from which a hue counts, and the cosine below which it is another
_EVEN = 0.6  # ratio of the factors of both channels; farther apart, the hue was changed instead


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """An image with the colors of another one, both uint8 `[h, w, 3]`, YCrCb: with its saturation, and without."""

    image: np.ndarray
    tinted: np.ndarray


def local_range(luma: np.ndarray) -> np.ndarray:
    """Return the range of levels within 3 x 3 px of each pixel, uint8: large at edges, 0 where an image is flat."""
    square = np.ones((3, 3), np.uint8)
    return cv2.subtract(cv2.dilate(luma, square), cv2.erode(luma, square))


def other_hue(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], levels: int) -> np.ndarray:
    """Return where both images, planes Y, Cr, Cb, have color, but of another hue, by more than `levels`: bool."""
    apart = cv2.max(*(cv2.absdiff(one, other) for one, other in zip(ours[1:], theirs[1:], strict=True))) > levels
    found = np.zeros(apart.shape, bool)
    at = np.flatnonzero(apart)  # few of the pixels
    if len(at):
        a, b, c, d = (plane.ravel()[at].astype(np.int32) - 128 for plane in (*ours[1:], *theirs[1:]))
        size, other_size, product = a * a + b * b, c * c + d * d, a * c + b * d
        is_other = (product < 0) | (product.astype(np.float64) ** 2 < _COSINE**2 * size * other_size.astype(np.float64))
        found.ravel()[at] = is_other & (np.minimum(size, other_size) >= _COLORED**2)
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Curves:
    """How colors change: luma by luma, uint8 `[256]`; chroma is scaled, and gets more by luma, int16 `[2, 256]`."""

    tone: np.ndarray
    tint: np.ndarray
    saturation: tuple[float, float]

    def apply(self, image: np.ndarray) -> Fitted:
        """Return an image, YCrCb, with changed colors."""
        luma, *chroma = cv2.split(image)
        tone = cv2.LUT(luma, self.tone)
        fitted, tinted = [tone], [tone]
        for channel, own in enumerate(chroma):
            shift = cv2.LUT(luma, self.tint[channel])
            tinted.append(cv2.add(own, shift, dtype=cv2.CV_8U))
            scaled = np.rint(128 + self.saturation[channel] * (np.arange(256) - 128.0)).astype(np.int16)
            fitted.append(cv2.add(cv2.LUT(own, scaled), shift, dtype=cv2.CV_8U))
        return Fitted(cv2.merge(fitted), cv2.merge(tinted))


def fit_colors(image: np.ndarray, goal: np.ndarray, inside: np.ndarray, flat: np.ndarray) -> Fitted:
    """Return `image` with the colors of `goal`, learned where both are `inside`, and if possible only where `flat`.

    Both images are uint8 `[h, w, 3]`, YCrCb, in one frame; the masks are bool `[h, w]`.
    """
    plain = _plain_sample(inside, flat)
    return _fit(_pixels(image, plain), _pixels(goal, plain)).apply(image)


def fit_either(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray, flat: np.ndarray) -> tuple[bool, Fitted]:
    """Return `theirs` with the colors of `ours`, or the other way round (True) if that suits better; see `fit_colors`.

    Colors can be taken from an image, but not given to it, and what was too bright is lost as well.
    """
    everywhere, plain = _sample(inside), _plain_sample(inside, flat)
    chroma = [int(cv2.absdiff(_pixels(side, everywhere)[:, 1:], 128).sum(dtype=np.int64)) for side in (ours, theirs)]
    ways = [False, True]
    if max(chroma) > _GRAY * min(chroma):
        ways = [chroma[0] > chroma[1]]
    found = []
    for swapped in ways:
        goal, image = (theirs, ours) if swapped else (ours, theirs)
        curves = _fit(_pixels(image, plain), _pixels(goal, plain))
        seen = curves.apply(_pixels(image, everywhere)[:, None]).image[:, 0]
        found.append((misfit(seen, _pixels(goal, everywhere)), swapped, curves))
    _, swapped, curves = min(found, key=lambda one: one[:2])
    return swapped, curves.apply(ours if swapped else theirs)


def _sample(mask: np.ndarray) -> np.ndarray:
    """Return the indices of some pixels that are in a mask, spread evenly."""
    chosen = np.flatnonzero(mask)
    return chosen[:: max(1, len(chosen) // _SAMPLE)]


def _plain_sample(inside: np.ndarray, flat: np.ndarray) -> np.ndarray:
    plain = inside & flat
    return _sample(plain if np.count_nonzero(plain) > 0.1 * np.count_nonzero(inside) else inside)


def _pixels(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return image.reshape(-1, 3).take(chosen, axis=0)  # in a third of the time of an index


def _fit(image: np.ndarray, goal: np.ndarray) -> _Curves:
    """Return how the colors of pixels change to those of the same pixels of another image; both uint8 `[n, 3]`."""
    have, want = image.astype(np.int32), goal.astype(np.int32)
    neutral = np.maximum(np.abs(have[:, 1] - 128), np.abs(have[:, 2] - 128)) < _NEUTRAL
    bin_of = have[:, 0] * _BINS >> 8
    bins = [np.flatnonzero(bin_of == one) for one in range(_BINS)]
    least = max(8, len(have) // 1000)
    neutrals = [one for one in (rows[neutral[rows]] for rows in bins) if len(one) >= least]
    tone = _tone(have, want, bins, neutral, least)
    if misfit(tone[have[:, 0]], want[:, 0]) >= misfit(have[:, 0], want[:, 0]):  # misled by what covers a part
        tone = np.arange(256, dtype=np.uint8)
    tint = _tint(have, want, neutrals)
    saturation = _saturation(have, want, tint)
    changed = [128 + saturation[c] * (have[:, 1 + c] - 128) + tint[c][have[:, 0]] for c in (0, 1)]
    better = (
        sum(misfit(np.rint(changed[c]), want[:, 1 + c]) - misfit(have[:, 1 + c], want[:, 1 + c]) for c in (0, 1)) < 0
    )
    if not better or not _suits_most(np.rint(np.stack(changed, axis=1)), have[:, 1:], want[:, 1:]):
        tint, saturation = np.zeros_like(tint), (1.0, 1.0)
    return _Curves(tone, tint, saturation)


def misfit(levels: np.ndarray, goal: np.ndarray) -> int:
    """Return the sum of the differences, of which large ones count as `_OTHER`: they show something else."""
    return int(np.minimum(np.abs(levels.astype(np.int32) - goal), _OTHER).sum())


def _suits_most(changed: np.ndarray, have: np.ndarray, want: np.ndarray) -> bool:
    """Whether most pixels that a change concerns are nearer to what is wanted, not only those that cover a part."""
    before, after = (np.abs(side - want).sum(axis=1) for side in (have, changed))
    return int((after < before).sum()) > int((after > before).sum())


def _tone(have: np.ndarray, want: np.ndarray, bins: list[np.ndarray], neutral: np.ndarray, least: int) -> np.ndarray:
    """Return the luma to have for each luma, uint8 `[256]`: a curve that never falls, through the medians of bins."""
    anywhere = any(neutral[rows].sum() >= least for rows in bins)
    places, goals, weights = [], [], []
    for all_rows in bins:
        rows, weight = all_rows[neutral[all_rows]], 1.0
        if len(rows) < least:
            rows, weight = all_rows, 0.25
            if len(rows) < least:
                continue
            changed = (_median(want[rows, channel] - have[rows, channel]) for channel in (1, 2))
            if anywhere and max(map(abs, changed)) > 20:  # an exchanged color tells nothing about brightness
                continue
        places.append(_median(have[rows, 0]))
        goals.append(_median(want[rows, 0]))
        weights.append(weight * math.sqrt(min(1.0, 8 * len(rows) / len(have))))
    levels = np.arange(256)
    if not places:
        return levels.astype(np.uint8)
    rising = _rising(goals, weights)
    # Beyond the first and the last bin, the curve is as steep as that of an unchanged image, or black and white stay.
    inner = np.interp(levels, places, rising)
    steep = np.where(levels < places[0], rising[0] + levels - places[0], inner)
    steep = np.where(levels > places[-1], rising[-1] + levels - places[-1], steep)
    curves = [steep, np.interp(levels, [-1, *places, 256], [0, *rising, 255])]
    tones = [np.clip(np.rint(curve), 0, 255).astype(np.uint8) for curve in curves]
    return min(tones, key=lambda tone: misfit(tone[have[:, 0]], want[:, 0]))


def _median(levels: np.ndarray) -> float:
    """Return the median of integers, `[n]`: for up to some thousands, in a fraction of the time of `np.median`."""
    low, high = (len(levels) - 1) // 2, len(levels) // 2
    ordered = np.partition(levels, (low, high))
    return (int(ordered[low]) + int(ordered[high])) / 2


def _rising(values: list[float], weights: list[float]) -> list[float]:
    """Return the nearest values that never fall, by pooling adjacent violators (Ayer and others, 1955)."""
    pooled: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pooled.append((value, weight, 1))
        while len(pooled) > 1 and pooled[-2][0] > pooled[-1][0]:
            (first, first_weight, count), (last, last_weight, more) = pooled[-2:]
            both = first_weight + last_weight
            pooled[-2:] = [((first * first_weight + last * last_weight) / both, both, count + more)]
    return [value for value, _, count in pooled for _ in range(count)]


def _tint(have: np.ndarray, want: np.ndarray, neutrals: list[np.ndarray]) -> np.ndarray:
    """Return the chroma that pixels without color get, by their luma: int16 `[2, 256]`."""
    if not neutrals:
        return np.zeros((2, 256), np.int16)
    places = [_median(have[rows, 0]) for rows in neutrals]
    shifts = [
        np.interp(np.arange(256), places, [_median(want[rows, c] - have[rows, c]) for rows in neutrals]) for c in (1, 2)
    ]
    return np.rint(np.clip(shifts, -_MOST_TINT, _MOST_TINT)).astype(np.int16)


def _saturation(have: np.ndarray, want: np.ndarray, tint: np.ndarray) -> tuple[float, float]:
    """Return the factor of each chroma channel, 0 to 2.5; a pair that differs much would be another hue."""
    own = have[:, 1:] - 128
    goal = want[:, 1:] - 128 - tint[:, have[:, 0]].T
    colored = np.abs(own).max(axis=1) >= _NEUTRAL
    if colored.sum() < 50:
        return 1.0, 1.0
    products = [int((own[colored] * side[colored]).sum(dtype=np.int64)) for side in (goal, own)]
    common = min(_MOST_SATURATION, max(0.0, products[0] / products[1]))
    factors = []
    for channel in (0, 1):
        rows = np.abs(own[:, channel]) >= _NEUTRAL
        ratios = goal[rows, channel] / own[rows, channel]
        middle = len(ratios) // 2
        factor = float(np.partition(ratios, middle)[middle]) if len(ratios) >= 50 else common
        factors.append(min(_MOST_SATURATION, max(0.0, factor)))
    if max(factors) > 0.25 and min(factors) < _EVEN * max(factors):
        return common, common
    return factors[0], factors[1]
