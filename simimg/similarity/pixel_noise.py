"""Which pixels of two images in one frame differ by more than compression and resampling change them.

What a codec or a resampling filter does, it does to all parts that have as much contrast. So the noise is
learned from the pair itself: parts are sorted by the contrast around them, and a pixel differs if it does so by much
more than nine in ten of the pixels of its sort. Unlike the comparison with the nearest level of nine pixels (see
`simimg.similarity.differences`), this tells a 5 from a 6 in text that is a few pixels high.

The filter with which one of the images was resampled or sharpened is fitted first: five by five weights, the same in
all eight positions, by least squares.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from simimg.determinism import ordered_sum, solved

_SAMPLE = 8_000  # pixels, at most, for the fit of the filter
_FEWEST, _FEWEST_OF_SORT = 200, 64
_ONE = 256  # a weight of 1, in integers
_FAR = 24  # levels; what differs by more shows something else
_KEPT = 0.95  # share of the sample that is kept for the second fit
_CLASSES = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))  # offsets; all that mirroring and turning makes of them
_LUMA_WINDOW, _CHROMA_WINDOW = 3, 5  # px over which differences are averaged
_LUMA_REACH, _CHROMA_REACH = 9, 17  # px within which the contrast counts; chroma is stored at half the resolution
_SORTS = np.array([4, 7, 11, 16, 23, 32, 45, 64, 91, 128, 182])  # levels of contrast
_FLOOR, _CLEAN_FLOOR = 12, 5  # levels, of the noise, and where there is none
_MOST_NOISE, _MOST_SHARE = 10, 0.1  # levels, and share of the contrast: JPEGs of quality 10 have no more
_WEAK = 16  # levels of contrast
_COMMON, _SPREAD = 0.9, 4  # share of the pixels of a sort whose difference is noise, and its ratio to the median
_FACTOR = 10  # of the square of the noise. Copies at JPEG quality 10, WebP 5 and AVIF 25 had at most 9.6
_SAME = 0.9  # share of the pixels with contrast that do not differ at all, if there was no codec
_FAINT_FLOOR = 4  # levels, of the noise of plain parts


@dataclasses.dataclass(frozen=True, slots=True)
class Outliers:
    """Where two images differ by more than their noise: masks, bool `[h, w]`.

    Attributes:
        luma: in luma.
        chroma: in color.
        faintly: in either, by few levels; it counts where a drawing is plain.
    """

    luma: np.ndarray
    chroma: np.ndarray
    faintly: np.ndarray


def outliers(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> Outliers:
    """Return where two images, uint8 `[h, w, 3]`, YCrCb, in one frame, differ by more than their noise."""
    sides = _plane(ours, 0), _plane(theirs, 0)
    luma, faintly = _outliers(filtered_difference(*sides), *sides, inside, _LUMA_WINDOW, _LUMA_REACH)
    chroma, faintly_in_color = _chroma_outliers(ours, theirs, inside)
    return Outliers(luma, chroma, faintly | faintly_in_color)


def chroma_outliers(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the mask of color alone."""
    return _chroma_outliers(ours, theirs, inside)[0]


def _chroma_outliers(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chroma, faintly = np.zeros(inside.shape, bool), np.zeros(inside.shape, bool)
    for channel in (1, 2):
        sides = _plane(ours, channel), _plane(theirs, channel)
        far, near = _outliers(cv2.absdiff(*sides), *sides, inside, _CHROMA_WINDOW, _CHROMA_REACH)
        chroma, faintly = chroma | far, faintly | near
    return chroma, faintly


def _plane(image: np.ndarray, channel: int) -> np.ndarray:
    return np.ascontiguousarray(image[..., channel])


def luma_outliers(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return where two planes of luma, uint8 `[h, w]`, differ by more than their noise: bool `[h, w]`."""
    return _outliers(filtered_difference(ours, theirs), ours, theirs, inside, _LUMA_WINDOW, _LUMA_REACH)[0]


def _outliers(
    difference: np.ndarray, ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray, window: int, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks for the floors of the noise, that of all parts and that of plain ones."""
    square = np.ones((reach, reach), np.uint8)
    contrasts = [cv2.subtract(cv2.dilate(side, square), cv2.erode(side, square)) for side in (ours, theirs)]
    contrast = cv2.max(*contrasts)
    # What only one of the images has is no sample of noise.
    shared = inside & ((cv2.min(*contrasts) >= contrast // 2) | (contrast < _WEAK))
    # Sums of integers below 2 ** 24: exact in float32, in any order.
    error = cv2.sqrBoxFilter(difference, cv2.CV_32F, (window, window), normalize=False)
    noise = _noise(np.sqrt(error / np.float32(window * window)).astype(np.uint8), contrast, shared)
    # What differs fills a sort that is rare elsewhere.
    if _is_lossless(difference, (shared & (contrast >= _SORTS[0])).view(np.uint8)):
        noise = np.zeros(256)
    limits = (
        np.rint(window * window * _FACTOR * (noise * noise + floor * floor)).astype(np.float32)
        for floor in (min(_FLOOR, _CLEAN_FLOOR + float(noise.max())), _FAINT_FLOOR)
    )
    far, near = ((error > cv2.LUT(contrast, limit)) & inside for limit in limits)
    return far, near


def _is_lossless(difference: np.ndarray, mask: np.ndarray) -> bool:
    """Whether nearly all pixels in a mask are the same: of those with contrast, a codec changes most."""
    count = cv2.countNonZero(mask)
    return count >= _FEWEST and cv2.countNonZero(cv2.min(difference, mask)) <= (1 - _SAME) * count


def _noise(levels: np.ndarray, contrast: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the noise for each contrast, float64 `[256]`, of the chosen pixels, which differ by these levels."""
    num_sorts = len(_SORTS) + 1
    sort = np.searchsorted(_SORTS, np.arange(256), side="right").astype(np.uint8)
    mask = chosen.view(np.uint8)
    counts = cv2.calcHist([cv2.LUT(contrast, sort), levels], [0, 1], mask, [num_sorts, 256], [0, num_sorts, 0, 256])
    noise, last = np.zeros(num_sorts), 0
    for number, count in enumerate(np.cumsum(counts.astype(np.int64), axis=1)):
        if count[-1] >= _FEWEST_OF_SORT:
            most, half = (int(np.searchsorted(count, count[-1] * share)) for share in (_COMMON, 0.5))
            last = max(last, min(most, _SPREAD * half + 2))
        noise[number] = last
    return np.minimum(noise[sort], _MOST_NOISE + _MOST_SHARE * np.arange(256))


def filtered_difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return by how much two planes, uint8 `[h, w]`, differ after the filter that makes the sharper like the other."""
    if _sharpness(ours) > _sharpness(theirs):
        ours, theirs = theirs, ours
    kernel, offset = _fitted_filter(ours, theirs)
    straight = cv2.absdiff(ours, theirs)
    filtered = cv2.filter2D(theirs, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)  # integers, exact
    difference = cv2.absdiff(cv2.multiply(ours, _ONE, dtype=cv2.CV_32F), filtered + np.float32(offset))
    found = cv2.min(np.rint(difference * np.float32(1 / _ONE)), 255).astype(np.uint8)
    # A filter that was fitted to outlines that differ may suit nothing else.
    return min(found, straight, key=lambda levels: cv2.norm(cv2.min(levels, _FAR), cv2.NORM_L1))


def _sharpness(luma: np.ndarray) -> float:
    return cv2.norm(cv2.Laplacian(luma, cv2.CV_16S), cv2.NORM_L1)  # an integer


def _fitted_filter(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the weights, float32 `[5, 5]`, integers of which `_ONE` stands for 1, and what is added, as well."""
    kernel = np.zeros((5, 5), np.float32)
    kernel[2, 2] = _ONE
    width = ours.shape[1]
    around = cv2.absdiff(theirs, cv2.blur(theirs, (5, 5)))
    around[:2] = around[-2:] = around[:, :2] = around[:, -2:] = 0
    chosen = np.flatnonzero(around > 3)
    if len(chosen) < _FEWEST:
        return kernel, 0
    chosen = chosen[:: -(-len(chosen) // _SAMPLE)]
    flat = theirs.ravel()
    rows = [sum(flat[chosen + y * width + x].astype(np.int64) for y, x in _turned(offset)) for offset in _CLASSES]
    have = np.stack([*rows, np.full(len(chosen), 256, np.int64)])
    want = ours.ravel()[chosen].astype(np.int64)
    weights = least_squares(have, want)
    error = np.abs(sum(weight * row for weight, row in zip(weights, have, strict=True)) - want)
    kept = error <= max(2.0, float(np.partition(error, int(_KEPT * len(error)))[int(_KEPT * len(error))]))
    weights = least_squares(have[:, kept], want[kept])
    for offset, weight in zip(_CLASSES, weights, strict=False):
        for y, x in _turned(offset):
            kernel[2 + y, 2 + x] = round(_ONE * weight)
    return kernel, round(_ONE * 256 * weights[-1])


def _turned(offset: tuple[int, int]) -> set[tuple[int, int]]:
    a, b = offset
    return {(sign * y, other * x) for y, x in ((a, b), (b, a)) for sign in (-1, 1) for other in (-1, 1)}


def least_squares(have: np.ndarray, want: np.ndarray, ridge: float = 1.0) -> list[float]:
    """Return the weights of the rows of `have`, `[k, n]`, whose sum is nearest to `want`, `[n]`.

    Sums of integers, which have to be below 2 ** 53, are exact, those of floats in a fixed order; the equations are
    solved by elimination, written out as in `simimg.similarity.affine`. `ridge` keeps weights small that nothing
    determines.
    """
    if have.dtype.kind == "i":
        factors = have.astype(np.float64)
        rows = (factors @ np.vstack([factors, want]).T).tolist()
    else:
        rows = ordered_sum(have[:, None] * np.vstack([have, want])).tolist()
    for place, row in enumerate(rows):
        row[place] = 1.0001 * row[place] + ridge
    return solved(rows)
