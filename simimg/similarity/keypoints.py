"""Keypoints of pictures, and the affine map that lays one picture over another, where there is one.

An embedding says that two pictures look alike; keypoints say whether one *is* the other, cropped, turned, mirrored or
pasted somewhere, and how. Detection is OpenCV's SIFT (Lowe, "Distinctive Image Features from Scale-Invariant
Keypoints", IJCV 2004). Matching and geometry are done here, without chance, so that a pair of pictures has one answer:

1. descriptors as RootSIFT (Arandjelović and Zisserman, CVPR 2012, section 2); a match is kept where it is clearly
   nearer than the second (Lowe, section 7.1);
2. each match alone says how its keypoint was moved, turned and scaled: so each is a hypothesis, and the one that most
   others agree with is refined (Philbin et al., "Object retrieval with large vocabularies and fast spatial matching",
   CVPR 2007, section 4);
3. least squares over those that agree, with six unknowns, closer each time.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.affine import determinant, fit, move, singular_values

__all__ = ["MIN_INLIERS", "Alignment", "Keypoints", "align", "detect"]

MIN_INLIERS = 8
"""Matches that agree on one map. Of 7,000 pairs of different photos of 25 categories none had more than 5."""

_CONTRAST = 0.02  # half of Lowe's threshold, for blurred and recompressed pictures
_GRID = 5  # cells a side that share the keypoints evenly: what is pasted onto a busy picture needs its own
_BANDS = (4.0, 9.0)
"""Diameters in px between fine, middling and coarse keypoints, which each cell shares evenly, too: of a noisy picture
the strongest are all noise, and fine."""
_DISTANCE_RATIO = 0.8
# How far a match may be off, in parts of the longer side of the picture it falls in, each time a map is fitted.
_TOLERANCES = (0.08, 0.046, 0.026, 0.015)
_MOST_SCALE, _MOST_STRETCH = 8.0, 2.5
_COSINE_OF_36_DEGREES = 0.8090169943749475


@dataclasses.dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints of a picture.

    Attributes:
        size: width and height in px of the picture that they were found in.
        points: float32 `[n, 2]`, x and y in px.
        scales: float32 `[n]`, diameter in px.
        angles: float32 `[n]`, in radians, clockwise as rows go down.
        descriptors: uint8 `[n, 128]`, RootSIFT times 512.
    """

    size: tuple[int, int]
    points: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray

    def mirrored(self) -> Keypoints:
        """Returns the keypoints of the picture's mirror image, as near as makes no difference to finding them anew."""
        flipped = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, (-np.arange(8)) % 8].reshape(-1, 128)
        points = self.points * np.array([-1, 1], np.float32) + np.array([self.size[0] - 1, 0], np.float32)
        return Keypoints(self.size, points, self.scales, np.float32(np.pi) - self.angles, flipped)


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
    """How a query lies in a candidate.

    Attributes:
        matrix: float64 `[2, 3]`: px of the query's keypoints' picture (mirrored, if `mirrored`) to those of the
            candidate's.
        mirrored: the query is a mirror image.
        num_inliers: keypoints of the query that agree.
    """

    matrix: np.ndarray
    mirrored: bool
    num_inliers: int


def detect(image: Image.Image, *, longer_side: int, most: int) -> Keypoints:
    """Returns the keypoints of a picture.

    Args:
        image: of any mode and size.
        longer_side: px that the picture is brought to first, up or down: small pictures have few keypoints as they are.
        most: keypoints that are kept at most, the strongest of each part of the picture and each band of scales.
    """
    factor = longer_side / max(image.size)
    size = (max(16, round(image.width * factor)), max(16, round(image.height * factor)))
    gray = np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))
    with plain_opencv():
        found, descriptors = cv2.SIFT_create(contrastThreshold=_CONTRAST).detectAndCompute(gray, None)  # type: ignore[attr-defined]
    if descriptors is None:
        empty = np.zeros(0, np.float32)
        return Keypoints(size, np.zeros((0, 2), np.float32), empty, empty, np.zeros((0, 128), np.uint8))
    points = np.array([point.pt for point in found], np.float32)
    scales = np.array([point.size for point in found], np.float32)
    kept = _spread(points, scales, np.array([point.response for point in found]), size, most)
    return Keypoints(
        size,
        points[kept],
        scales[kept],
        np.deg2rad(np.array([found[k].angle for k in kept], np.float32)),
        _root(descriptors[kept]),
    )


def align(query: Keypoints, candidate: Keypoints) -> Alignment | None:
    """Returns how the query lies in the candidate, or None where fewer than `MIN_INLIERS` keypoints agree on it."""
    found = [
        (aligned, is_mirrored)
        for view, is_mirrored in ((query, False), (query.mirrored(), True))
        if (aligned := _affine(view, candidate)) is not None
    ]
    if not found:
        return None
    (matrix, num_inliers), is_mirrored = max(found, key=lambda pair: pair[0][1])
    return Alignment(matrix, is_mirrored, num_inliers)


def _root(descriptors: np.ndarray) -> np.ndarray:
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return np.minimum(np.sqrt(descriptors / sums) * 512, 255).astype(np.uint8)


def _spread(
    points: np.ndarray, scales: np.ndarray, responses: np.ndarray, size: tuple[int, int], most: int
) -> np.ndarray:
    """Indices of the strongest keypoints of each cell and band in turn: the first of each, the second, until enough."""
    columns, rows = np.minimum((points / np.array(size, np.float32) * _GRID).astype(int), _GRID - 1).T
    shares = (np.searchsorted(_BANDS, scales) * _GRID + rows) * _GRID + columns
    order = np.lexsort((-responses, shares))
    starts = np.searchsorted(shares[order], np.arange((len(_BANDS) + 1) * _GRID**2))
    rank = np.arange(len(order)) - starts[shares[order]]
    return order[np.lexsort((-responses[order], rank))[:most]]


def _affine(query: Keypoints, candidate: Keypoints) -> tuple[np.ndarray, int] | None:
    """The map that most matches agree on, and how many different keypoints of the candidate they reach."""
    ours, theirs = _matches(query, candidate)
    if len(ours) < MIN_INLIERS:
        return None
    start, goal = query.points[ours].astype(np.float64), candidate.points[theirs].astype(np.float64)
    reach = float(max(candidate.size))
    agreeing = _largest_agreement(query, candidate, ours, theirs, _TOLERANCES[0] * reach)
    matrix = None
    for tolerance in (share * reach for share in _TOLERANCES):
        if agreeing.sum() < MIN_INLIERS:
            return None
        matrix = fit(start[agreeing], goal[agreeing])
        x, y = (move(matrix, start) - goal).T
        agreeing = x * x + y * y < tolerance * tolerance
    # Two keypoints of one place are one witness, on either side.
    reached = min(len(np.unique(np.round(side[agreeing]), axis=0)) for side in (start, goal))
    if matrix is None or reached < MIN_INLIERS or not _plausible(matrix):
        return None
    return matrix, reached


def _matches(query: Keypoints, candidate: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    if len(query.points) == 0 or len(candidate.points) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    a, b = query.descriptors.astype(np.float32) / 512, candidate.descriptors.astype(np.float32) / 512
    products = a @ b.T  # exact, whoever adds: whole numbers below 2**24, by a power of two
    nearest = products.argmax(axis=1)
    rows = np.arange(len(a))
    first = products[rows, nearest]
    products[rows, nearest] = -1
    second = products.max(axis=1)
    clear = (1 - first) < _DISTANCE_RATIO**2 * (1 - second)  # squared distances of unit vectors, halved
    return rows[clear], nearest[clear]


def _largest_agreement(
    query: Keypoints, candidate: Keypoints, ours: np.ndarray, theirs: np.ndarray, tolerance: float
) -> np.ndarray:
    """Which matches agree with the one match's similarity transform that the most agree with: bool `[num_matches]`."""
    scale = (candidate.scales[theirs] / query.scales[ours]).astype(np.float64)
    turn = (candidate.angles[theirs] - query.angles[ours]).astype(np.float64)
    # Rounded, as the last bit of a cosine depends on the processor.
    cosine, sine = (function(turn).astype(np.float32).astype(np.float64) for function in (np.cos, np.sin))
    x, y = query.points[ours].astype(np.float64).T
    goal_x, goal_y = candidate.points[theirs].astype(np.float64).T
    # Hypothesis h moves a point from start_h by (x, y) to goal_h, turned and scaled.
    x, y = x - x[:, None], y - y[:, None]
    across, down = (scale * cosine)[:, None], (scale * sine)[:, None]
    off_x = across * x - down * y - (goal_x - goal_x[:, None])
    off_y = down * x + across * y - (goal_y - goal_y[:, None])
    ratio = scale / scale[:, None]
    similar = (ratio > 0.5) & (ratio < 2)
    facing = cosine * cosine[:, None] + sine * sine[:, None] > _COSINE_OF_36_DEGREES
    agreeing = (off_x * off_x + off_y * off_y < tolerance * tolerance) & similar & facing
    return agreeing[agreeing.sum(axis=1).argmax()]


def _plausible(matrix: np.ndarray) -> bool:
    """Not mirrored once more, and no narrower, wider or more slanted than copies are."""
    longest, shortest = singular_values(matrix)
    return (
        determinant(matrix) > 0
        and longest < _MOST_SCALE
        and shortest > 1 / _MOST_SCALE
        and longest < _MOST_STRETCH * shortest
    )
