"""Changes of color that `simimg.similarity.color_fit` does not know: of all hues, of clipped colors, of light by place.

    hue       all hues are turned by one angle. A red shirt that became blue has one hue alone, so it is no such change.
    channels  red, green and blue are mixed and clipped: a strong filter clips bright colors, which changes their hue.
    light     brightness that changes slowly from place to place: the dark corners of a vignette, a lamp on a page.

Sums are of integers, or in a fixed order, see `simimg.determinism`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import cv2
import numpy as np

from simimg.determinism import ordered_sum
from simimg.similarity.color_fit import Fitted, misfit
from simimg.similarity.pixel_noise import least_squares
from simimg.similarity.registration import Registered

_SAMPLE = 6_000  # pixels, at most
_BETTER, _BETTER_LIGHT = 0.8, 0.5  # share of the misfit that a model must reach
_ONE = 256  # a factor of 1, in integers
_CLIPPED = 6  # levels from black or white
_UNEVEN, _LEAST_OWN, _GRAY = 0.25, 0.25, 4  # shares of a channel; levels
_COLORED, _FEWEST_COLORED = 16, 0.02  # chroma, and share of the pixels
_SECTORS, _EVERY_HUE, _SAME_ANGLE = 12, 0.1, 0.85
_MOST_COLORED = 0.6  # share of colored pixels, with which one hue is enough
_CELLS, _MIN_CELL = 12, 0.85  # cells of light per side, and the share of them that must agree
# Levels of a mean, share of the cells, and standard errors. Of 25 photos with 8 cells per side, none at JPEG
# quality 20, WebP 20 or AVIF 25 and none of half the size had more than 0.02 of such cells; with 30 % more saturation
# or 3 % more light, four in five had 0.07 and more.
_MEAN_LEVELS, _SOME_MEANS, _ERRORS = 3, 0.06, 3
_DARKEST, _SAME_LIGHT, _LOCAL_LIGHT, _LIGHT_RANGE = 12, 0.12, 0.25, 0.08  # levels; ratios


@dataclasses.dataclass(frozen=True, slots=True)
class Modeled:
    """The colors of one of two images, given to the other one.

    Attributes:
        swapped: whether the first image has the second one's colors now, see `simimg.similarity.color_fit.fit_either`.
        fitted: the image with these colors.
        is_recolored: whether its hues or its light are other ones.
    """

    swapped: bool
    fitted: Fitted
    is_recolored: bool = False


def modeled(ours: np.ndarray, theirs: np.ndarray, known: Modeled, inside: np.ndarray) -> Modeled | None:
    """Return the colors that these models explain better than what is `known`; None if they do not.

    Images are uint8 `[h, w, 3]`, YCrCb, in one frame; the mask is bool `[h, w]`.
    """
    chosen = np.flatnonzero(inside)
    chosen = chosen[:: max(1, len(chosen) // _SAMPLE)]

    def error(one: Modeled) -> int:
        return misfit(one.fitted.image.reshape(-1, 3)[chosen], (theirs if one.swapped else ours).reshape(-1, 3)[chosen])

    least, found = error(known), list[Modeled]()
    for swapped in (known.swapped, not known.swapped):
        image, goal = (ours, theirs) if swapped else (theirs, ours)
        have, want = (side.reshape(-1, 3)[chosen] for side in (image, goal))
        if _is_other_hue(have, want):
            turned = _by_color(image, goal, inside)
            found.append(Modeled(swapped, Fitted(turned, turned), True))
        elif (mixed := _mixed(image, have, want)) is not None:
            found.append(Modeled(swapped, Fitted(mixed, mixed)))
    best = min((known, *(one for one in found if error(one) < _BETTER * least)), key=error)
    least = error(best)
    # The curve of brightness that was fitted may have been misled by the light.
    for swapped, fitted in ((best.swapped, best.fitted), (False, Fitted(theirs, theirs)), (True, Fitted(ours, ours))):
        light = _light(fitted.image[..., 0], (theirs if swapped else ours)[..., 0], inside)
        if light is not None:
            some = _lit(fitted.image.reshape(-1, 3)[chosen], light(chosen))
            error_lit = misfit(some, (theirs if swapped else ours).reshape(-1, 3)[chosen])
            if error_lit < min(_BETTER_LIGHT * least, error(best)):
                factors = light(np.arange(inside.size)).reshape(inside.shape)
                best = Modeled(swapped, Fitted(_lit(fitted.image, factors), _lit(fitted.tinted, factors)), True)
    return None if best is known else best


def has_other_colors(pair: Registered, num_cells: int, noise: int) -> bool:
    """Whether the means of some of the cells of two images differ, of which the longer side has `num_cells`.

    Compression hardly changes them, but a program that makes a photo a little warmer or brighter does, and the flags of
    Chad and Romania differ so. `noise` are the levels by which a JPEG of a quality below 25 changes them.
    """
    height, width = pair.inside.shape
    factor = num_cells / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    means = (cv2.resize(side, size, interpolation=cv2.INTER_AREA) for side in (pair.query, pair.candidate))
    difference = cv2.absdiff(*(cv2.cvtColor(side, cv2.COLOR_RGB2YCrCb) for side in means))
    inside = cv2.resize(pair.inside.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
    least = _SOME_MEANS * np.count_nonzero(inside)
    differs = difference > _MEAN_LEVELS + noise
    if np.count_nonzero(differs.any(axis=2) & inside) <= least:
        return False
    # The mean of pixels that differ at random, as those of an image that was resized without smoothing, does as well.
    luma = cv2.absdiff(*pair.grays)
    squares = cv2.resize(cv2.multiply(luma, luma, dtype=cv2.CV_16U), size, interpolation=cv2.INTER_AREA)
    error = np.sqrt(squares.astype(np.float64)) * factor  # a cell has 1 / factor ** 2 px
    differs &= difference > _MEAN_LEVELS + noise + _ERRORS * error[..., None]
    return bool(np.count_nonzero(differs.any(axis=2) & inside) > least)


def _lit(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    gray = np.array([0, 128, 128])
    return np.clip(np.rint((image - gray) * light[..., None] + gray), 0, 255).astype(np.uint8)


def _is_other_hue(have: np.ndarray, want: np.ndarray) -> bool:
    """Whether nearly all colored pixels have another hue, turned by one angle, and they are of several hues."""
    a, b = (side[:, 1:].astype(np.int32) - 128 for side in (have, want))
    in_ours, in_theirs = (np.abs(side).max(axis=1) >= _COLORED for side in (a, b))
    colored = in_ours & in_theirs
    if colored.sum() < _SAME_ANGLE * (in_ours | in_theirs).sum() or not _has_several_hues(a, colored):
        return False
    a, b = a[colored], b[colored]
    turned = np.stack([a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1], a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]], axis=1)
    angles = np.bincount(_sector(turned), minlength=_SECTORS)
    near = angles + np.roll(angles, 1) + np.roll(angles, -1)
    return int(near[2:-1].max()) >= _SAME_ANGLE * len(a)  # without those that are not turned


def _has_several_hues(chroma: np.ndarray, colored: np.ndarray) -> bool:
    """Whether colored pixels have several hues, or are most of all; chroma is int32 `[n, 2]`, the mask bool `[n]`."""
    if colored.sum() < _FEWEST_COLORED * len(chroma):
        return False
    hues = np.bincount(_sector(chroma[colored]), minlength=_SECTORS)
    # Two hues side by side may be one color in two lights.
    common = np.flatnonzero(hues >= _EVERY_HUE * hues.sum()).tolist()
    apart = any(min((x - y) % _SECTORS, (y - x) % _SECTORS) > 1 for x, y in itertools.combinations(common, 2))
    return apart or bool(colored.sum() >= _MOST_COLORED * len(chroma))


def _sector(vectors: np.ndarray) -> np.ndarray:
    """Return the sector of 30 degrees of vectors, int `[n, 2]`; sector 0 lies around the first axis."""
    angles = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0]))
    return np.rint(np.round(angles, 6) / (360 / _SECTORS)).astype(np.int64) % _SECTORS


def _by_color(image: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the image in which each color is replaced by the mean of what the goal has in its place."""
    fine, coarse = (
        (image[..., 0] >> 5).astype(np.int32) * size * size
        + (image[..., 1] >> shift).astype(np.int32) * size
        + (image[..., 2] >> shift)
        for size, shift in ((32, 3), (8, 5))
    )
    change = goal.astype(np.int32) - image
    number, number_coarse = (np.bincount(part[inside], minlength=8 * n * n) for part, n in ((fine, 32), (coarse, 8)))
    out = np.empty_like(image)
    for channel in range(3):
        here = change[..., channel][inside]
        means = np.bincount(fine[inside], here, minlength=len(number)) / np.maximum(1, number)
        rough = np.bincount(coarse[inside], here, minlength=len(number_coarse)) / np.maximum(1, number_coarse)
        moved = np.where((number >= 4)[fine], means[fine], rough[coarse])
        out[..., channel] = np.clip(np.rint(image[..., channel] + moved), 0, 255)
    return out


def _mixed(image: np.ndarray, have: np.ndarray, want: np.ndarray) -> np.ndarray | None:
    """Return the image with channels mixed and clipped as in the goal; None if too little is not clipped."""
    chroma = have[:, 1:].astype(np.int32) - 128
    have, want = (cv2.cvtColor(side[None], cv2.COLOR_YCrCb2RGB)[0].astype(np.int64) for side in (have, want))
    # Black and white by one channel: a red shirt becomes black, and so does all that is red.
    is_gray = int(np.ptp(want, axis=1).sum()) < _GRAY * len(want)
    is_gray = is_gray and _has_several_hues(chroma, np.abs(chroma).max(axis=1) >= _COLORED)
    rows = np.stack([*have.T, np.full(len(have), 256, np.int64)])
    matrix = np.zeros((3, 4))
    for channel in range(3):
        goal = want[:, channel]
        chosen = (goal >= _CLIPPED) & (goal < 256 - _CLIPPED)
        for _ in range(3):
            if chosen.sum() < max(200, 0.1 * len(goal)):
                return None
            weights = least_squares(rows[:, chosen], goal[chosen])
            error = np.abs(ordered_sum((rows * np.array(weights)[:, None]).T) - goal)
            chosen = (goal >= _CLIPPED) & (goal < 256 - _CLIPPED)
            chosen &= error <= max(4.0, float(np.sort(error[chosen])[int(0.8 * chosen.sum())]))
        if weights[channel] < _LEAST_OWN and not is_gray:
            return None
        matrix[channel] = [*weights[:3], 256 * weights[3]]
    # Saturation mixes a channel into both others alike; only an exchange of colors does not.
    uneven = (abs(matrix[(at + 1) % 3, at] - matrix[(at + 2) % 3, at]) for at in range(3))
    if not is_gray and max(uneven) > _UNEVEN:
        return None
    # Integers below 2 ** 24: exact in float32.
    red_green_blue = cv2.cvtColor(image, cv2.COLOR_YCrCb2RGB).astype(np.float32)
    mixed = cv2.transform(red_green_blue, np.rint(matrix * _ONE).astype(np.float32))
    return cv2.cvtColor(np.clip(np.rint(mixed / _ONE), 0, 255).astype(np.uint8), cv2.COLOR_RGB2YCrCb)


def _light(luma: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what gives the factors that make the light of one image that of the goal; None if it is not one light.

    It takes the numbers of pixels, counted by rows, int `[n]`, and gives float64 `[n]`: a polynomial of the place that
    is fitted to the ratios of the mean levels of cells.
    """
    height, width = luma.shape
    if min(height, width) < 2 * _CELLS:
        return None
    rows, columns = (np.linspace(0, side, _CELLS + 1).astype(int) for side in (height, width))
    mask = inside.view(np.uint8)

    def cell_sums(levels: np.ndarray) -> np.ndarray:  # where both images are; below 2 ** 31
        table = cv2.integral(cv2.bitwise_and(levels, levels, mask=mask))
        return np.diff(np.diff(table[np.ix_(rows, columns)], axis=0), axis=1)

    ours, theirs, count = (cell_sums(side) for side in (luma, goal, mask))
    chosen = (2 * count >= np.outer(np.diff(rows), np.diff(columns))) & (np.minimum(ours, theirs) >= _DARKEST * count)
    if np.count_nonzero(chosen) < _CELLS * _CELLS // 2:
        return None
    row, column = np.nonzero(chosen)
    want, at = theirs[chosen] / ours[chosen], (2 * np.stack([column, row]) + 1) / _CELLS - 1
    terms = _terms(*at)
    chosen = np.ones(len(want), bool)
    for _ in range(3):
        weights = least_squares(terms[:, chosen], want[chosen], 1e-6)
        fitted = ordered_sum((terms * np.array(weights)[:, None]).T)
        error = np.abs(fitted - want)
        chosen = error <= max(_SAME_LIGHT / 2, float(np.sort(error)[int(_MIN_CELL * len(error))]))
    if (error <= _SAME_LIGHT).sum() < _MIN_CELL * len(error) or float(np.ptp(fitted)) < _LIGHT_RANGE:
        return None
    # What a polynomial cannot follow: where the dark corners of a vignette begin.
    rest = np.ones((_CELLS, _CELLS), np.float32)
    rest[row, column] = np.clip(want / np.maximum(0.05, fitted), 1 - _LOCAL_LIGHT, 1 + _LOCAL_LIGHT)
    rest = cv2.resize(rest, (width, height), interpolation=cv2.INTER_LINEAR)

    def factors(pixels: np.ndarray) -> np.ndarray:
        y, x = ((2 * place + 1) / side - 1 for place, side in zip(np.divmod(pixels, width), luma.shape, strict=True))
        field = sum(weight * term for weight, term in zip(weights, _terms(x, y), strict=True))
        return np.maximum(field, 0.02) * np.rint(rest.ravel()[pixels] * 1024) / 1024

    return factors


def _terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    around = x * x + y * y
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, around * around, around * around * around])
