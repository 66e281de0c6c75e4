"""Evidence that simple drawings need: most of one is plain, and what is left often occurs in others, turned as well.

A figure that holds its flags to the left is no copy of one that holds them to the right, and b is no copy of d. So a
turned or mirrored copy of a drawing needs as much detail as a photo has.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from simimg.determinism import ordered_sum
from simimg.similarity.affine import compose, scaling
from simimg.similarity.color_fit import local_range
from simimg.similarity.fingerprint import Fingerprint, luma

# Drawings of signals had at most 32 blocks with detail, and at least 0.74 of their thumbnails were without noise. Of
# photos, 99.5 % have at least 34 blocks, and the others at most 0.69.
_NUM_BLOCKS, _MIN_BLOCKS, _DETAIL = 64, 34, 1.5  # detail in levels
_PLAIN_SHARE = 0.72
# Levels of fine detail from which it should be the same, and its correlation. Of unlike papers it is at most 0.05.
_NOISE, _SAME_NOISE = 0.7, 0.3
_TAN_OF_15_DEGREES = 0.2679491924311227


def is_upright(matrix: np.ndarray, mirrored: bool, query: tuple[int, int], candidate: tuple[int, int]) -> bool:
    """Whether a map between the unit squares of images of these sizes turns by less than 15 degrees, mirroring none."""
    (a, b, _), (c, d, _) = compose(scaling(*candidate), matrix, scaling(1 / query[0], 1 / query[1])).tolist()
    return not mirrored and a > 0 and d > 0 and abs(c) < _TAN_OF_15_DEGREES * a and abs(b) < _TAN_OF_15_DEGREES * d


def is_plain(*images: Fingerprint) -> bool:
    """Whether most of each image has no noise at all, as in a simple drawing."""
    for image in images:
        red, green, blue = (local_range(image.thumbnail[..., channel]) for channel in range(3))
        if float((cv2.max(cv2.max(red, green), blue) <= 1).mean()) < _PLAIN_SHARE:
            return False
    return True


def have_detail(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray, blocks: np.ndarray) -> bool:
    """Whether both images have detail in enough blocks of the frame.

    `ours` and `theirs` are float32 `[h, w, 3]`, and `inside`, bool, tells where both are. `blocks` has the number of
    the block of each pixel, 0 to 63.
    """
    at = blocks[inside]
    counts = np.bincount(at, minlength=_NUM_BLOCKS)
    there = counts >= 0.5 * np.bincount(blocks.ravel(), minlength=_NUM_BLOCKS)
    for gray in (luma(ours), luma(theirs)):
        detail = (gray - cv2.GaussianBlur(gray, (0, 0), 4.0))[inside].astype(np.float64)
        there &= np.bincount(at, detail * detail, minlength=_NUM_BLOCKS) >= _DETAIL**2 * np.maximum(1, counts)
    return int(there.sum()) >= _MIN_BLOCKS


def without_planes(blocks: np.ndarray) -> np.ndarray:
    """Return blocks, `[n, h, w]`, each minus the plane that fits it best: float64 `[n, h, w]`."""
    count, *sides = blocks.shape
    rest = blocks.astype(np.float64)
    rest = rest - (ordered_sum(rest.reshape(count, -1)) / math.prod(sides))[:, None, None]
    for axis, side in enumerate(sides):
        slope = np.expand_dims(np.arange(side) - (side - 1) / 2, 1 - axis)
        weights = np.broadcast_to(slope, sides)
        total = float(ordered_sum((weights * weights).ravel()))
        if total:
            rest = rest - weights * (ordered_sum((weights * rest).reshape(count, -1)) / total)[:, None, None]
    return rest


def is_other_noise(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether both images have fine detail, but not the same: paper or film of the same color."""
    a, b = (luma(image) - cv2.GaussianBlur(luma(image), (0, 0), 2.0) for image in (ours, theirs))
    aa, ab, bb = (
        float(ordered_sum((product).ravel().astype(np.float64))) / a.size for product in (a * a, a * b, b * b)
    )
    return min(aa, bb) >= _NOISE**2 and ab < _SAME_NOISE * math.sqrt(aa * bb)
