"""Whether two images in one frame have the same grain: the noise of a sensor, of film or of an echo, fibers of paper.

Two X-ray images of the same part of the body differ by fewer levels than compression changes, but each has noise of its
own. In a copy, what is left of the grain is still that of its original. So grain is evidence where both images have
some, and none where a codec, a filter or a reduction took it from one of them. A band of sizes is compared that
codecs keep longer than single pixels, in squares, as text and outlines that both images share are in some of these
only.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from simimg.similarity.difference_places import Place
from simimg.similarity.edits import OVERLAY
from simimg.similarity.registration import Registered, Registration

_FINE_PX, _COARSE_PX = 3, 7  # of the means whose difference is the band
_UNIT = 8  # of a level; the sum of the products of such numbers in a square is below 2 ** 31
_SIDE, _MOST_ROWS = 16, 8  # px of a square, and rows of squares that are compared
_MOST_SHIFT = 2  # px; an alignment that is off by as much shows no other grain
# Root mean square of the band, in levels, in both images, and its least ratio. Codecs and dithering leave less where
# they destroy grain, from JPEG quality 25 and WebP 5 on.
_LEAST_LEVELS, _LEAST_RATIO = 0.8, 0.5
_FEWEST, _LEAST_SHARE = 24, 0.25  # squares with grain, and their share of all
# A quarter of the squares of other grain has a lower correlation than this. Of 15,000 copies of photos, of drawings and
# of grainy images, at most twice compressed, it was at least 0.12 in all that have no JPEG below quality 25.
_UNLIKE, _SHARE = 0.05, 0.25


def grain_places(pair: Registered, registration: Registration) -> tuple[Place, ...]:
    """Return the frame as one place if two images, whole and upright, have grain, but not the same; else nothing.

    Before that is said, the `registration` that `pair` is from is corrected: of a copy that was cropped by some px and
    enlarged again, no single shift brings all grain together.
    """
    found = _places(pair)
    if found and not registration.is_corrected:
        registration.correct()
        found = _places(registration.images())
    return found


def _places(pair: Registered) -> tuple[Place, ...]:
    reach = _COARSE_PX // 2 + _MOST_SHIFT
    height, width = pair.inside.shape
    rows, columns = min(_MOST_ROWS, (height - 2 * reach) // _SIDE), (width - 2 * reach) // _SIDE
    if rows * columns < _FEWEST:
        return ()
    tops = [(height - 2 * reach - _SIDE) * row // max(1, rows - 1) for row in range(rows)]
    ours, theirs = (
        _band(np.concatenate([side[top : top + _SIDE + 2 * reach, :, 0] for top in tops])).reshape(rows, -1, width)
        for side in pair.colors
    )

    def squares(band: np.ndarray, down: int = 0, right: int = 0) -> np.ndarray:
        top, left = reach + down, reach + right
        return band[:, top : top + _SIDE, left : left + columns * _SIDE]

    share = _share_of_other_grain(squares(ours), squares(theirs))
    shifts = range(-_MOST_SHIFT, _MOST_SHIFT + 1)
    if not share or not all(
        _share_of_other_grain(squares(ours), squares(theirs, *shift)) for shift in itertools.product(shifts, shifts)
    ):
        return ()
    return (Place((0, 0, width, height), share, OVERLAY).moved(pair.to_query),)


def _band(luma: np.ndarray) -> np.ndarray:
    """Return the detail of some px of luma, uint8 `[h, w]`, in units of a level: int16 `[h, w]`."""
    fine, coarse = (cv2.boxFilter(luma, cv2.CV_16S, (size, size), normalize=False) for size in (_FINE_PX, _COARSE_PX))
    return cv2.addWeighted(fine, _UNIT / _FINE_PX**2, coarse, -_UNIT / _COARSE_PX**2, 0, dtype=cv2.CV_16S)


def _share_of_other_grain(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of squares with grain in both bands, `[rows, side, width]`, if that is another one, or 0."""
    energy, other, common = _sums(ours, ours), _sums(theirs, theirs), _sums(ours, theirs)
    lesser, larger = np.minimum(energy, other), np.maximum(energy, other)
    grainy = (lesser >= (_UNIT * _LEAST_LEVELS * _SIDE) ** 2) & (lesser >= _LEAST_RATIO**2 * larger)
    count = np.count_nonzero(grainy)
    if count < max(_FEWEST, _LEAST_SHARE * grainy.size):
        return 0.0
    unlike = np.count_nonzero(grainy & (common < _UNLIKE * np.sqrt(energy * other)))
    return float(count / grainy.size) if unlike >= _SHARE * count else 0.0


def _sums(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the sum of the products in each square: float64 `[rows, columns]`, integers below 2 ** 31."""
    by_column = np.multiply(one, other, dtype=np.int32).sum(axis=1, dtype=np.int32)
    return by_column.reshape(len(by_column), -1, _SIDE).sum(axis=2, dtype=np.int32).astype(np.float64)
