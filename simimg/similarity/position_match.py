"""Aligns whole images without keypoints: in the best of eight positions (turned by quarters, mirrored), block by block.

That decides most copies: those that were only turned, mirrored, stretched, resized and compressed. Images with few
keypoints are aligned by their correlation. Blocks are compared without the plane that fits them best, because any two
smooth images agree otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np

from simimg.determinism import ordered_sum
from simimg.similarity.affine import compose, scaling
from simimg.similarity.drawing_evidence import without_planes
from simimg.similarity.fingerprint import WHOLE_PX, Fingerprint, luma

QUARTER_TURN = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
"""The map of the unit square that np.rot90 applies."""

_LEVELS = 1024  # per standard deviation, to which correlations are rounded
_CORRELATION = 0.97  # of the whole images, blurred; that of the second best position does not matter
_POSE_CORRELATION = 0.8  # below it, an orientation is not refined
_FEW_KEYPOINTS = 150  # if both images have more and do not align by keypoints, they are not aligned as a whole
_WHOLE_CORRELATION = 0.93  # required of whole images that are aligned without keypoints
_FRAME_PX, _BLOCKS = 64, 8
_STRUCTURE = 1.5  # deviation in gray levels of a block without its plane
# Blocks with structure, at least, and their mean correlation. Turned and mirrored copies of 300 photos had 0.98 and up
# as JPEGs of quality 75, and 0.86 and up at quality 30; crops to 97 % of each side, which have to be aligned first,
# had less than 0.9.
_MIN_STRUCTURED, _STRUCTURE_CORRELATION = 12, 0.9


def best_position(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, int, bool]:
    """Return the largest correlation of two normalized images, `[n, n]`, in eight positions of `ours`.

    The position follows: the number of quarter turns, as of `np.rot90`, and whether it was mirrored before.
    """
    a, b = (np.rint(side * np.float32(_LEVELS)).astype(np.float64) for side in (ours, theirs))
    # Sums of products of integers, so their order does not matter. Instead of one image, the other one is turned back.
    turned = np.stack([b, b.T[:, ::-1], b[::-1, ::-1], b.T[::-1]])
    products = turned.reshape(4, -1) @ np.stack([a, a[:, ::-1]]).reshape(2, -1).T
    values = products.T.ravel() / (_LEVELS**2 * theirs.size)
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
    gray = luma(square.astype(np.float32)).reshape(_BLOCKS, side, _BLOCKS, side)
    return without_planes(gray.transpose(0, 2, 1, 3).reshape(-1, side, side)).reshape(_BLOCKS**2, -1)


def between_sizes(matrix: np.ndarray, query: tuple[int, int], candidate: tuple[int, int]) -> np.ndarray:
    """Convert a map between px of two images to a map between their unit squares."""
    return compose(scaling(1 / candidate[0], 1 / candidate[1]), matrix, scaling(*query))


def align_whole(query: Fingerprint, candidate: Fingerprint, num_keypoints: int) -> tuple[np.ndarray, bool] | None:
    """Return the map of the whole query onto the whole candidate, in the orientation of best correlation."""
    ours, theirs = query.whole, candidate.whole
    if ours is None or theirs is None or num_keypoints > _FEW_KEYPOINTS:
        return None
    correlation, turns, mirrored = best_position(ours, theirs)
    if correlation < _POSE_CORRELATION:
        return None
    pose = np.rot90(ours[:, ::-1] if mirrored else ours, turns)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        value, refined = cv2.findTransformECC(
            np.ascontiguousarray(pose), np.ascontiguousarray(theirs), np.eye(2, 3, dtype=np.float32),
            cv2.MOTION_AFFINE, criteria, None, 1,
        )  # fmt: skip
    except cv2.error:  # the query was moved out of the frame
        return None
    if value < _WHOLE_CORRELATION:
        return None
    between = between_sizes(refined.astype(np.float64), (WHOLE_PX,) * 2, (WHOLE_PX,) * 2)
    return compose(between, *[QUARTER_TURN] * turns), mirrored
