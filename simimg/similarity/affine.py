"""Affine maps of the plane, float64 `[2, 3]`: `(x, y)` goes to `(a x + b y + c, d x + e y + f)`.

The formulas are written out because NumPy's products and solvers call BLAS and LAPACK, whose last bits depend on the
processor; see `simimg.determinism`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simimg.determinism import ordered_sum

_AT_CENTER = 1 / 64  # px beside the center of a pixel at which interpolation takes nothing from its neighbors


def scaling(x: float, y: float) -> np.ndarray:
    """Return the map that scales both axes."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0]])


def translation(x: float, y: float) -> np.ndarray:
    """Return the map that shifts every point by `(x, y)`."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def compose(*maps: np.ndarray) -> np.ndarray:
    """Return the map that applies the last given map first, like a matrix product."""
    (a, b, x), (c, d, y) = maps[0].tolist()
    for other in maps[1:]:  # numbers of Python: arrays of six elements take several times as long
        (e, f, u), (g, h, v) = other.tolist()
        a, b, x, c, d, y = (
            a * e + b * g, a * f + b * h, a * u + b * v + x, c * e + d * g, c * f + d * h, c * u + d * v + y
        )  # fmt: skip
    return np.array([[a, b, x], [c, d, y]])


def determinant(matrix: np.ndarray) -> float:
    """Return the factor by which areas grow; it is negative for a mirror image."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return a * d - b * c


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a map whose determinant is not 0."""
    (a, b, x), (c, d, y) = matrix.tolist()
    by = a * d - b * c
    return np.array([[d / by, -b / by, (b * y - d * x) / by], [-c / by, a / by, (c * x - a * y) / by]])


def inverse_place(place: Sequence[float]) -> tuple[float, ...]:
    """Return the inverse of a map `(a, b, c, d, e, f)`, see `Verification.place`, in the same form."""
    return tuple(inverse(np.reshape(place, (2, 3))).ravel().tolist())


def singular_values(matrix: np.ndarray) -> tuple[float, float]:
    """Return the largest and the smallest factor by which the map stretches a vector."""
    (a, b, _), (c, d, _) = matrix.tolist()
    # The singular values of [[a, b], [c, d]] are half the sum and half the difference of these two lengths.
    first = math.sqrt((a + d) * (a + d) + (b - c) * (b - c))
    second = math.sqrt((a - d) * (a - d) + (b + c) * (b + c))
    return (first + second) / 2, abs(first - second) / 2


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the images of points, float `[n, 2]`, under a map: float64 `[n, 2]`."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return np.stack([row[0] * x + row[1] * y + row[2] for row in matrix.tolist()], axis=1)


def fit(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the least-squares map from `start` to `goal`, float64 `[n, 2]` each.

    If all points lie on one line, the map is undetermined, and the zero map (determinant 0) is returned.
    """
    points = np.concatenate([start.T, goal.T])
    centers = ordered_sum(points) / len(start)
    x, y, goal_x, goal_y = points - centers[:, None]
    # All sums at once: each is computed as if alone.
    products = np.stack([x * x, x * y, y * y, goal_x * x, goal_x * y, goal_y * x, goal_y * y])
    xx, xy, yy, *sums = ordered_sum(products).tolist()
    by = xx * yy - xy * xy
    if by <= 1e-12 * max(xx, yy) ** 2:
        return np.zeros((2, 3))
    left, top, *goals = centers.tolist()
    rows = []
    for with_x, with_y, center in zip(sums[::2], sums[1::2], goals, strict=True):
        a, b = (with_x * yy - with_y * xy) / by, (with_y * xx - with_x * xy) / by
        rows.append([a, b, center - a * left - b * top])
    return np.array(rows)


def covered(matrix: np.ndarray, image: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return which pixels of a frame a map leads between the centers of an image's pixels: bool `[h, w]`.

    In each row of the frame these are the pixels from one column to another one.
    """
    rows = np.arange(size[1], dtype=np.float64)
    first, last = np.zeros(size[1]), np.full(size[1], size[0] - 1.0)
    for (slope, down, offset), side in zip(matrix.tolist(), image, strict=True):
        start = down * rows + offset
        least, most = -_AT_CENTER - start, side - 1 + _AT_CENTER - start
        if abs(slope) < 1e-9:
            last[(least > 0) | (most < 0)] = -1
        else:
            ends = np.minimum(least / slope, most / slope), np.maximum(least / slope, most / slope)
            first, last = np.maximum(first, ends[0]), np.minimum(last, ends[1])
    columns = np.arange(size[0])
    return (columns >= np.ceil(first)[:, None]) & (columns <= np.floor(last)[:, None])


def part_in_unit_square(polygon: np.ndarray) -> np.ndarray:
    """Return the part of a convex polygon that is in the unit square, float64 `[m, 2]`; m is 0 if there is none.

    `polygon` is float `[n, 2]`, in either order. The polygon is cut at one side of the square after the other
    (Sutherland and Hodgman, "Reentrant polygon clipping", CACM 1974). OpenCV's `intersectConvexConvex` has a tolerance
    that suits pixels: of squares that differ by 0.00001, it returns nothing, or half.
    """
    corners = [(float(x), float(y)) for x, y in polygon]
    for axis, sign in ((0, 1.0), (1, 1.0), (0, -1.0), (1, -1.0)):
        least = 0.0 if sign > 0 else -1.0
        kept = []
        for here, there in zip(corners, corners[1:] + corners[:1], strict=True):
            inside_here, inside_there = sign * here[axis] >= least, sign * there[axis] >= least
            if inside_here:
                kept.append(here)
            if inside_here != inside_there:
                share = (sign * least - here[axis]) / (there[axis] - here[axis])
                cut = [a + share * (b - a) for a, b in zip(here, there, strict=True)]
                cut[axis] = sign * least
                kept.append((cut[0], cut[1]))
        corners = kept
    return np.array(corners, np.float64).reshape(-1, 2)


def area(polygon: np.ndarray) -> float:
    """Return the area of a polygon, float `[n, 2]`."""
    x, y = polygon.astype(np.float64).T
    return abs(float(ordered_sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2 if len(polygon) > 2 else 0.0
