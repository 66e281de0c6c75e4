"""Brings two images of the same picture into one frame, pixel on pixel, once it is known how one lies in the other.

The finer image is warped onto the pixels of the coarser one. The map that keypoints found is off by a pixel or two of a
large image, so it is corrected: each cell of the frame is shifted to where it fits best (Lucas and Kanade, "An
Iterative Image Registration Technique with an Application to Stereo Vision", IJCAI 1981), and an affine map is fitted
to the shifts that agree. What covers a part of one image moves some cells, but not the map.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np

from simimg.similarity.affine import compose, covered, determinant, fit, inverse, scaling, transform, translation

_SNAP = 0.006  # share of a side; a whole image that is nearly in one of the eight positions is in it
_STRETCHED = 1.05  # ratio of the sides, beyond which it is told
_CORRECT_PX = 400  # longer side at which the map is corrected
_CELLS = 8  # per side of the frame
# Root mean square of the slopes, in Sobel's units, that fixes where a cell belongs; less in an image of low contrast: a
# share of that of all cells, but at least what noise has.
_TEXTURE, _SHARE_OF_TEXTURE, _NOISE = 16.0, 0.3, 4.0
_MOST_SHIFT = 4.0  # px per round, at the size at which the map is corrected
_CORRECTIONS = 4
_AGREEING = (3.0, 1.5, 0.75, 0.75)  # px by which the shift of a cell may be off, in each round of the fit
_MIN_CELLS = 6
_MOVED_PX, _EXPLAINED, _MIN_MOVED = 0.7, 0.5, 3  # px, share of the error that the shift explains, and cells
# A correction is kept if it reduces the error at least to this share. Whole images on each other are rarely off.
_CLOSER, _CLOSER_THAN_WHOLE = 0.998, 0.8


@dataclasses.dataclass(frozen=True)
class Registered:
    """Two images in one frame.

    Attributes:
        query: uint8 `[h, w, 3]`, sRGB.
        candidate: uint8 `[h, w, 3]`, sRGB.
        inside: bool `[h, w]`, where both are.
        to_query: the map from px of the frame to the unit square of the query.
    """

    query: np.ndarray
    candidate: np.ndarray
    inside: np.ndarray
    to_query: np.ndarray

    @functools.cached_property
    def colors(self) -> tuple[np.ndarray, np.ndarray]:
        """Both images, uint8 `[h, w, 3]`, YCrCb."""
        ours, theirs = (cv2.cvtColor(side, cv2.COLOR_RGB2YCrCb) for side in (self.query, self.candidate))
        return ours, theirs

    @functools.cached_property
    def grays(self) -> tuple[np.ndarray, np.ndarray]:
        """Both images in gray, uint8 `[h, w]`."""
        ours, theirs = (cv2.cvtColor(side, cv2.COLOR_RGB2GRAY) for side in (self.query, self.candidate))
        return ours, theirs

    @functools.cached_property
    def core(self) -> np.ndarray:
        """`inside` without what is within 2 px of the outside, bool `[h, w]`."""
        return eroded(self.inside)

    @functools.cached_property
    def core_mask(self) -> np.ndarray | None:
        """The same, uint8, for OpenCV; None if it is the whole frame, as most functions are faster without a mask."""
        mask = self.core.view(np.uint8)
        return None if cv2.countNonZero(mask) == mask.size else mask


def eroded(mask: np.ndarray) -> np.ndarray:
    """Return a mask, bool `[h, w]`, without what is within 2 px of where it is not set."""
    return cv2.erode(mask.view(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).view(bool)


class Registration:
    """The frame of two images, and how the finer one, `other`, lies in it.

    Attributes:
        base: the coarser image, cut to what the other one covers.
        to_other: the map from px of the frame to px of the other image.
        is_corrected: whether `correct` was called.
    """

    def __init__(self, query: np.ndarray, candidate: np.ndarray, place: np.ndarray) -> None:
        """Take two images, uint8 `[h, w, 3]`, and the map from the query's unit square to the candidate's.

        Raises:
            ValueError: they have less than 8 px in common.
        """
        to_candidate = compose(scaling(*_size(candidate)), place, inverse(scaling(*_size(query))))
        self._query_is_base = abs(determinant(to_candidate)) >= 1
        base, self._other = (query, candidate) if self._query_is_base else (candidate, query)
        to_other = to_candidate if self._query_is_base else inverse(to_candidate)
        snapped = _snapped(to_other, _size(base), _size(self._other))
        is_snapped, to_other = snapped is not to_other, snapped
        corners = transform(inverse(to_other), _corners(_size(self._other)))
        left, top = np.maximum(0, np.floor(corners.min(axis=0) + 0.01)).astype(int).tolist()
        right, bottom = np.minimum(_size(base), np.ceil(corners.max(axis=0) - 0.01)).astype(int).tolist()
        if min(right - left, bottom - top) < 8:
            raise ValueError("the images have less than 8 px in common")
        self.base = np.ascontiguousarray(base[top:bottom, left:right])
        self.to_other = compose(to_other, translation(left, top))
        self.is_corrected = False
        self._to_base = compose(inverse(scaling(*_size(base))), translation(left, top))  # its unit square
        (a, b), (c, d) = np.abs(to_other[:, :2]).tolist()
        across, down = (a, d) if a > b else (b, c)
        self._is_whole = is_snapped and max(across, down) < _STRETCHED * min(across, down)
        self._is_reduced = self._is_whole and min(across, down) >= 1 and not self.is_exact

    @property
    def place(self) -> np.ndarray:
        """The map from the query's unit square to the candidate's, float64 `[2, 3]`."""
        to_query, to_candidate = self._to_units()
        return compose(to_candidate, inverse(to_query))

    @property
    def is_exact(self) -> bool:
        """Whether every pixel of one image is a pixel of the other one."""
        return _exact_position(_size(self._other), self.to_other, _size(self.base)) is not None

    @property
    def is_whole(self) -> bool:
        """Whether each image is the whole other one in one of the eight positions, of any size, but not stretched."""
        return self._is_whole

    @property
    def is_upright(self) -> bool:
        """Whether no image is turned by quarters or mirrored."""
        return bool(self.to_other[0, 0] > abs(self.to_other[0, 1]) and self.to_other[1, 1] > abs(self.to_other[1, 0]))

    @property
    def is_straight(self) -> bool:
        """Whether one image is turned by quarters at most, so that the map is often right as it is."""
        (a, b), (c, d) = np.abs(self.to_other[:, :2]).tolist()
        return max(b, c) < 0.01 * min(a, d) or max(a, d) < 0.01 * min(b, c)

    def images(self) -> Registered:
        """Return both images in the frame."""
        reduced = _reduced if self._is_reduced else _warped
        warped, inside = reduced(self._other, self.to_other, _size(self.base))
        ours, theirs = (self.base, warped) if self._query_is_base else (warped, self.base)
        return Registered(ours, theirs, inside, self._to_units()[0])

    @functools.cached_property
    def _grays(self) -> tuple[np.ndarray, np.ndarray]:
        base, other = (cv2.cvtColor(side, cv2.COLOR_RGB2GRAY) for side in (self.base, self._other))
        return base, other

    def _to_units(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps from px of the frame to the unit squares of the query and of the candidate."""
        to_other = compose(inverse(scaling(*_size(self._other))), self.to_other)
        return (self._to_base, to_other) if self._query_is_base else (to_other, self._to_base)

    def correct(self) -> None:
        """Correct the map, as far as this makes the images more alike."""
        self.is_corrected, low = True, self._at_low_resolution()
        best = tried = start = low.to_other
        least = math.inf
        for _ in range(_CORRECTIONS):
            error, mask = low.error(tried)
            total = int(cv2.norm(cv2.min(np.abs(error), 24), cv2.NORM_L1, mask))  # a sum of integers
            if total > (_CLOSER_THAN_WHOLE if self._is_whole and best is start else _CLOSER) * least:
                break
            best, least = tried, total
            cells = _shifts(error, *low.slopes, mask)
            if cells is None:
                break
            tried = compose(tried, _agreeing(cells.centers, cells.shifts))
        if best is not start:
            self.to_other, self._is_reduced = compose(low.other_down, best, inverse(low.down)), False

    def moved(self) -> list[tuple[float, float, float, float]]:
        """Return the cells that lie elsewhere in the other image than the map says: left, top, right, bottom, in px.

        No copy has such cells, but a photo that was taken from another place, or bent, has.
        """
        low = self._at_low_resolution()
        error, mask = low.error(low.to_other)
        cells = _shifts(error, *low.slopes, mask)
        if cells is None:
            return []
        far = (np.abs(cells.shifts).max(axis=1) >= _MOVED_PX) & (cells.explained >= _EXPLAINED)
        if far.sum() < _MIN_MOVED:
            return []
        half = np.array(low.size) / (2 * _CELLS)
        corners = np.concatenate([cells.centers[far] - half, cells.centers[far] + half], axis=1)
        scale = np.array(_size(self.base)) / np.array(low.size)
        return [(left, top, right, bottom) for left, top, right, bottom in (corners * np.tile(scale, 2)).tolist()]

    def _at_low_resolution(self) -> _Low:
        factor = min(1.0, _CORRECT_PX / max(_size(self.base)))
        size = _reduced_size(self.base, factor)
        gray, other = self._grays
        goal = _detail(_resized(gray, size))
        slopes = cv2.Sobel(goal, cv2.CV_16S, 1, 0), cv2.Sobel(goal, cv2.CV_16S, 0, 1)
        down = _between(size, _size(self.base))
        # The other image at about the same resolution, and the map between these two.
        other_size = _reduced_size(self._other, min(1.0, factor / math.sqrt(abs(determinant(self.to_other)))))
        other, other_down = _resized(other, other_size), _between(other_size, _size(self._other))
        return _Low(size, goal, slopes, other, down, other_down, compose(inverse(other_down), self.to_other, down))


@dataclasses.dataclass(frozen=True, slots=True)
class _Low:
    """Both images at the size at which the map is corrected; `to_other` is the map between these."""

    size: tuple[int, int]
    goal: np.ndarray  # see `_detail`
    slopes: tuple[np.ndarray, np.ndarray]
    other: np.ndarray  # luma
    down: np.ndarray  # to px of the frame
    other_down: np.ndarray
    to_other: np.ndarray

    def error(self, to_other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return by how much the detail differs under a map, int16 `[h, w]`, and the mask of what both show."""
        warped, inside = _interpolated(self.other, to_other, self.size)
        detail = _detail(warped)
        mask = cv2.erode(inside.view(np.uint8), np.ones((5, 5), np.uint8))
        gain = min(4.0, _strength(self.goal, mask) / max(1e-6, _strength(detail, mask)))
        return np.rint(detail * np.float32(gain)).astype(np.int16) - self.goal, mask


@dataclasses.dataclass(frozen=True, slots=True)
class _Cells:
    """Cells with texture: centers and shifts, px, `[n, 2]`, and the share of the error that the shift explains."""

    centers: np.ndarray
    shifts: np.ndarray
    explained: np.ndarray


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _corners(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _snapped(to_other: np.ndarray, size: tuple[int, int], other: tuple[int, int]) -> np.ndarray:
    """Return the map of one whole image onto the other in one of the eight positions, if it is nearly that."""
    corners = _corners(size)
    unit = transform(compose(scaling(1 / other[0], 1 / other[1]), to_other), corners)
    nearest = np.rint(unit)
    if float(np.abs(unit - nearest).max()) > _SNAP or len(set(map(tuple, nearest.tolist()))) != 4:
        return to_other
    return fit(corners, nearest * np.array(other))


def _warped(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image under a map from px of the frame, smoothed to the frame's resolution, and where it is."""
    position = _exact_position(_size(image), matrix, size)
    if position is not None:
        return _in_position(image, *position), np.ones(size[::-1], bool)
    reduction = math.sqrt(abs(determinant(matrix)))
    if reduction > 1.2:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(reduction**2 - 1))
    return _interpolated(image, matrix, size)


def _reduced(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a whole image in one of the eight positions, reduced to the size of the frame, and where it is."""
    is_turned = abs(matrix[0, 0]) < abs(matrix[0, 1])
    image = cv2.resize(image, size[::-1] if is_turned else size, interpolation=cv2.INTER_AREA)
    across, down = (bool(row.sum() < 0) for row in (matrix[::-1, :2] if is_turned else matrix[:, :2]))
    return _in_position(image, is_turned, across, down), np.ones(size[::-1], bool)


def _interpolated(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the same without smoothing."""
    # OpenCV's coordinates start at the center of a pixel, those of the frame at its corner.
    full = compose(translation(-0.5, -0.5), matrix, translation(0.5, 0.5))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, full, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped, covered(full, _size(image), size)


def _exact_position(
    size_of_image: tuple[int, int], matrix: np.ndarray, size: tuple[int, int]
) -> tuple[bool, bool, bool] | None:
    """Return what `_in_position` does to give one of the eight positions; None if the map is no such one, or the size
    another.
    """
    for transposed in (False, True):
        linear = matrix[::-1, :2] if transposed else matrix[:, :2]
        if size_of_image[:: -1 if transposed else 1] == size and np.abs(np.abs(linear) - np.eye(2)).max() < 1e-6:
            return transposed, bool(linear[0, 0] < 0), bool(linear[1, 1] < 0)
    return None


def _in_position(image: np.ndarray, transposed: bool, mirrored: bool, upside_down: bool) -> np.ndarray:
    """Return an image that is transposed first, and then mirrored or turned upside down, as a new array or as it is."""
    image = cv2.transpose(image) if transposed else image
    if mirrored or upside_down:
        return cv2.flip(image, -1 if mirrored and upside_down else int(mirrored))
    return image


def _reduced_size(image: np.ndarray, factor: float) -> tuple[int, int]:
    width, height = (max(16, round(side * factor)) for side in _size(image))
    return width, height


def _between(size: tuple[int, int], other: tuple[int, int]) -> np.ndarray:
    """Return the map from px of an image of one size to px of the same image of another size."""
    return scaling(other[0] / size[0], other[1] / size[1])


def _resized(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def _detail(gray: np.ndarray) -> np.ndarray:
    """Return the luma without slow changes of brightness and without the finest noise, int16 `[h, w]`."""
    gray = gray.astype(np.int16)
    return cv2.subtract(cv2.GaussianBlur(gray, (3, 3), 0.8), cv2.blur(gray, (21, 21)))


def _strength(detail: np.ndarray, mask: np.ndarray) -> float:
    # A sum of integers, so its order does not matter.
    return math.sqrt(cv2.norm(detail, cv2.NORM_L2SQR, mask) / max(1, cv2.countNonZero(mask)))


def _shifts(error: np.ndarray, slope_x: np.ndarray, slope_y: np.ndarray, mask: np.ndarray) -> _Cells | None:
    """Return where the cells of the frame belong; None if too few of them have texture."""
    height, width = error.shape
    rows, columns = height // _CELLS, width // _CELLS
    if min(rows, columns) < 4:
        return None
    cut = slice(0, rows * _CELLS), slice(0, columns * _CELLS)
    x, y, e = (
        cv2.bitwise_and(side, side, mask=mask[cut])
        for side in (slope_x[cut], slope_y[cut], np.clip(error[cut], -60, 60))
    )

    def sums(one: np.ndarray, other: np.ndarray) -> np.ndarray:  # of integers, so that their order does not matter
        products = cv2.multiply(one, other, dtype=cv2.CV_32F).reshape(-1, columns)
        by_row = cv2.reduce(products, 1, cv2.REDUCE_SUM, dtype=cv2.CV_64F)
        return by_row.reshape(_CELLS, rows, _CELLS).sum(axis=1)

    xx, xy, yy, xe, ye, ee = (sums(*two) for two in ((x, x), (x, y), (y, y), (x, e), (y, e), (e, e)))
    by = xx * yy - xy * xy
    lesser = (xx + yy) / 2 - np.sqrt(np.maximum(0, (xx + yy) ** 2 / 4 - by))  # eigenvalue: texture in both directions
    slope = math.sqrt(float((xx + yy).sum()) / 2 / (rows * columns * _CELLS**2))  # sums of integers, so exact
    textured = lesser > rows * columns * min(_TEXTURE, max(_NOISE, _SHARE_OF_TEXTURE * slope)) ** 2
    if textured.sum() < _MIN_CELLS:
        return None
    by = np.where(textured, by, 1)
    # Sobel's slopes are eight times those per pixel.
    shift = np.stack([-8 * (yy * xe - xy * ye) / by, -8 * (xx * ye - xy * xe) / by], axis=-1)[textured]
    explained = -(shift[:, 0] * xe[textured] + shift[:, 1] * ye[textured]) / (8 * np.maximum(1, ee[textured]))
    shift = np.clip(shift, -_MOST_SHIFT, _MOST_SHIFT)
    centers = np.stack(np.meshgrid((np.arange(_CELLS) + 0.5) * columns, (np.arange(_CELLS) + 0.5) * rows), axis=-1)
    return _Cells(centers[textured], shift, explained)


def _agreeing(centers: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the affine map that moves the centers by their shifts, without those that do not agree."""
    ordered = np.sort(shift, axis=0)
    middle = (ordered[(len(shift) - 1) // 2] + ordered[len(shift) // 2]) / 2
    moved = translation(*middle.tolist())
    error = np.abs(shift - middle).max(axis=1)
    for tolerance in _AGREEING:
        kept = error < tolerance
        if kept.sum() < _MIN_CELLS:
            break
        fitted = fit(centers[kept], centers[kept] + shift[kept])
        if abs(determinant(fitted) - 1) > 0.2:
            break
        moved = fitted
        error = np.abs(transform(moved, centers) - centers - shift).max(axis=1)
    return moved
