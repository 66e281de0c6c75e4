"""Compares the thumbnails of two images in the best of eight positions (turned by quarters, mirrored), block by block.

It needs no keypoints, so it decides most copies: those that were only turned, mirrored, stretched, resized and
compressed. Blocks are compared without the plane that fits them best, because any two smooth images agree otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np

from simimg.determinism import ordered_sum
from simimg.similarity.fingerprint import Fingerprint, luma

_CORRELATION = 0.97  # of the whole images, blurred; that of the second best position does not matter
_FRAME_PX, _BLOCKS = 64, 8
_STRUCTURE = 1.5  # deviation in gray levels of a block without its plane
# Blocks with structure, at least, and their mean correlation. Copies by flips of 300 photos had 0.95 and more; crops to
# 97 % of each side, which have to be aligned first, have less.
_MIN_STRUCTURED, _STRUCTURE_CORRELATION = 12, 0.9


def best_position(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, int, bool]:
    """Return the largest correlation of two images, `[n, n]`, in eight positions of `ours`.

    The position follows: the number of quarter turns, as of `np.rot90`, and whether it was mirrored before.
    """
    poses = np.stack([np.rot90(side, turns) for side in (ours, ours[:, ::-1]) for turns in range(4)])
    values = ordered_sum((poses * theirs).reshape(len(poses), -1)) / theirs.size
    best = int(np.argmax(values))
    return float(values[best]), best % 4, best >= 4


def match_position(query: Fingerprint, candidate: Fingerprint) -> tuple[int, bool, int] | None:
    """Return the position in which the query is the whole candidate; None if there is none, or it cannot be told.

    It is the number of quarter turns, whether it is mirrored before, and the number of blocks that show it.
    """
    if query.whole is None or candidate.whole is None:
        return None
    correlation, turns, mirrored = best_position(query.whole, candidate.whole)
    if correlation < _CORRELATION:
        return None
    ours = query.thumbnail[:, ::-1] if mirrored else query.thumbnail
    a, b = (_blocks(one) for one in (np.rot90(ours, turns), candidate.thumbnail))
    aa, ab, bb = (ordered_sum(product) for product in (a * a, a * b, b * b))
    structured = np.minimum(aa, bb) >= a.shape[-1] * _STRUCTURE**2
    count = int(structured.sum())
    if count < _MIN_STRUCTURED:
        return None
    correlations = ab[structured] / np.sqrt(aa[structured] * bb[structured])
    return (turns, mirrored, count) if float(ordered_sum(correlations)) >= _STRUCTURE_CORRELATION * count else None


def _blocks(thumbnail: np.ndarray) -> np.ndarray:
    """Return the luma of the blocks of an image, stretched to a square, without their planes: float64 `[64, n]`."""
    square = cv2.resize(np.ascontiguousarray(thumbnail), (_FRAME_PX, _FRAME_PX), interpolation=cv2.INTER_AREA)
    side = _FRAME_PX // _BLOCKS
    gray = luma(square.astype(np.float32)).astype(np.float64).reshape(_BLOCKS, side, _BLOCKS, side)
    blocks = gray.transpose(0, 2, 1, 3).reshape(_BLOCKS**2, -1)
    slope = np.arange(side) - (side - 1) / 2
    for plane in (np.ones((side, side)), np.tile(slope, (side, 1)), np.tile(slope, (side, 1)).T):
        weights = plane.ravel()
        share = ordered_sum(blocks * weights) / float(ordered_sum(weights * weights))
        blocks = blocks - share[:, None] * weights
    return blocks
