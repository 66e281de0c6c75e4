"""The common part of two aligned images in one small frame, and how far it agrees, block by block."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict

import cv2
import numpy as np

from simimg.determinism import ordered_sum
from simimg.similarity.affine import (
    area,
    compose,
    covered,
    determinant,
    inverse,
    part_in_unit_square,
    scaling,
    transform,
    translation,
)
from simimg.similarity.drawing_evidence import without_planes
from simimg.similarity.fingerprint import PLAIN, luma

_FRAME_PX = 128  # longer side of the frame, at most
_BLOCKS = 8  # per side of the frame
# Of images that are aligned as a whole: blocks with structure, and its mean correlation. Blurred copies of 60 photos
# had 14 blocks and more, and 0.61 and more; drawn gradients and blank pages under one lamp had at most 4, and 0.36.
_MIN_STRUCTURED, _STRUCTURE_CORRELATION = 8, 0.5
_STRUCTURE = 1.5  # deviation in gray levels of a block without its plane
_COVERED = 0.35  # blocks with a lower correlation show something else


def common_part(matrix: np.ndarray) -> tuple[np.ndarray, float, float] | None:
    """Return the polygon in the candidate's unit square that the query shows, and its share of either image's area."""
    polygon = part_in_unit_square(transform(matrix, np.array([[0, 0], [1, 0], [1, 1], [0, 1]])))
    common, own = area(polygon), abs(determinant(matrix))
    if common < 1e-3 or own < 1e-6:
        return None
    return polygon, min(1.0, common), min(1.0, common / own)


def frame(
    query: np.ndarray, candidate: np.ndarray, matrix: np.ndarray, polygon: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the common part of both images in one frame: float32 `[h, w, 3]` twice, and bool `[h, w]`: both valid."""
    query, candidate = query.astype(np.float32), candidate.astype(np.float32)
    size = np.array([candidate.shape[1], candidate.shape[0]], np.float64)
    low, high = polygon.min(axis=0) * size, polygon.max(axis=0) * size
    extent = np.maximum(high - low, 1e-3)
    factor = _FRAME_PX / extent.max()
    width, height = (max(_BLOCKS, round(side)) for side in extent * factor)
    # From pixels of the frame to the candidate's unit square.
    place = compose(scaling(*(1 / size)), translation(*low), scaling(extent[0] / width, extent[1] / height))
    own_place = compose(inverse(matrix), place)
    theirs, has_theirs = _warped(candidate, place, (width, height))
    ours, has_ours = _warped(query, own_place, (width, height))
    return ours, theirs, has_ours & has_theirs


def _warped(image: np.ndarray, unit: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image under a map from pixels of the frame to its unit square, smoothed to the frame's resolution, and
    where it is.
    """
    height, width = image.shape[:2]
    full = compose(scaling(width, height), unit)
    reduction = math.sqrt(abs(determinant(full)))  # pixels of the image per pixel of the frame
    if reduction > 1.2:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(reduction**2 - 1))
    # OpenCV's coordinates start at the center of a pixel, those of the unit square at its corner.
    full = compose(translation(-0.5, -0.5), full, translation(0.5, 0.5))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, full, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return warped, covered(full, (width, height), size)


def block_agreement(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return the agreement of the common part, the share of blocks that disagree, both 0..1, and the agreeing pixels.

    The agreement is the mean correlation of the frame's blocks, weighted by their contrast. A block that something
    covers counts as disagreeing, however well the other blocks agree.
    """
    a, b = (cv2.GaussianBlur(luma(image), (0, 0), 1.0) for image in (ours, theirs))
    blocks = block_of_pixels(*inside.shape)
    num_blocks = _BLOCKS * _BLOCKS
    at = blocks[inside]
    counts = np.bincount(at, minlength=num_blocks)
    count = np.maximum(1, counts)

    def means(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, minlength=num_blocks) / count

    x, y = a[inside].astype(np.float64), b[inside].astype(np.float64)
    x, y = x - means(x)[at], y - means(y)[at]
    spread_x, spread_y = np.sqrt(means(x * x)), np.sqrt(means(y * y))
    correlations = means(x * y) / np.maximum(spread_x * spread_y, PLAIN)
    there = counts >= 0.5 * _block_sizes(*inside.shape)
    there &= np.maximum(spread_x, spread_y) >= PLAIN
    agreeing = inside & ~(there & (correlations < _COVERED))[blocks]
    values, weights = correlations[there], spread_y[there] + PLAIN
    if not len(values):
        # No block has contrast: plain images agree as far as the whole frame does.
        x, y = a[inside], b[inside]
        if len(x) < 2 or min(float(x.std()), float(y.std())) < 0.5:
            return 0.0, 0.0, inside
        x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
        xx, xy, yy = (float(ordered_sum(product)) for product in (x * x, x * y, y * y))
        return max(0.0, xy / math.sqrt(xx * yy)), 0.0, inside
    clipped = np.clip(values, 0, 1)
    return float(ordered_sum(clipped * weights) / ordered_sum(weights)), float(np.mean(clipped < _COVERED)), agreeing


def structure_agrees(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray) -> bool:
    """Whether more agrees in the frame than slow changes of brightness: blocks are compared without their planes."""
    by_shape = defaultdict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]](list)
    a, b = luma(ours), luma(theirs)
    for number, (rows, columns) in enumerate(itertools.product(*(_parts(side) for side in inside.shape))):
        if inside[rows, columns].all():
            one, other = a[rows, columns], b[rows, columns]
            by_shape[one.shape].append((number, one, other))
    found: dict[int, float] = {}
    for shape, blocks in by_shape.items():
        numbers, *sides = zip(*blocks, strict=True)
        x, y = (without_planes(np.stack(side)).reshape(len(blocks), -1) for side in sides)
        xx, xy, yy = (ordered_sum(product) / math.prod(shape) for product in (x * x, x * y, y * y))
        there = np.minimum(xx, yy) >= _STRUCTURE**2
        values = xy[there] / np.sqrt(xx[there] * yy[there])
        found.update(zip(np.array(numbers)[there].tolist(), values.tolist(), strict=True))
    correlations = [found[number] for number in sorted(found)]
    return len(correlations) >= _MIN_STRUCTURED and sum(correlations) / len(correlations) >= _STRUCTURE_CORRELATION


@functools.lru_cache(maxsize=32)
def _parts(side: int) -> list[slice]:
    """Return the rows or columns of each of the blocks."""
    parts = np.array_split(np.arange(side), _BLOCKS)
    return [slice(part[0], part[-1] + 1) for part in parts]


@functools.lru_cache(maxsize=32)
def _block_sizes(height: int, width: int) -> np.ndarray:
    return np.bincount(block_of_pixels(height, width).ravel(), minlength=_BLOCKS * _BLOCKS)


@functools.lru_cache(maxsize=32)
def block_of_pixels(height: int, width: int) -> np.ndarray:
    """Return the block of each pixel of a frame, int64 `[height, width]`, 0 to 63; blocks are of equal size."""
    blocks = np.empty((height, width), np.int64)
    for number, block in enumerate(itertools.product(_parts(height), _parts(width))):
        blocks[block] = number
    return blocks
