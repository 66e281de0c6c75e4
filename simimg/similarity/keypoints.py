"""Keypoints of images, and the affine map that aligns one image with another, if there is one.

Embeddings show that two images look alike. Keypoints show whether one is the other, cropped, rotated, mirrored or
pasted somewhere, and how. Detection is OpenCV's SIFT (Lowe, "Distinctive Image Features from Scale-Invariant
Keypoints", IJCV 2004). Matching and geometry are computed here without random sampling, so a pair of images always
gives the same result:

1. Descriptors are RootSIFT (Arandjelović and Zisserman, CVPR 2012, section 2). A match is kept if it is clearly nearer
   than the second nearest (Lowe, section 7.1).
2. A single match determines a translation, a rotation and a scale, so each match is a hypothesis. The hypothesis that
   most other matches agree with is refined (Philbin et al., "Object retrieval with large vocabularies and fast spatial
   matching", CVPR 2007, section 4).
3. The affine map with six unknowns is fitted to the agreeing matches by least squares, with a tolerance that shrinks
   in each round.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from PIL import Image

from simimg.determinism import plain_opencv
from simimg.similarity.affine import determinant, fit, singular_values, transform

MIN_INLIERS = 8
"""Matches that agree on one map. Among 7,000 pairs of different photos of 25 categories, none had more than 5.

A wrong match agrees by chance with a probability of 0.00007: within 1.5 % of the side, 36 degrees, and a factor of two
in scale. So among the maps that 400 wrong matches propose, on two mirror images, 2e-12 are expected on which 8 agree
(Moisan, Moulon and Monasse, "Automatic Homographic Registration of a Pair of Images, with A Contrario Elimination of
Outliers", IPOL 2012). Pictures that share a template do have such matches, so agreement is only the first step.
"""

_CONTRAST = 0.02  # half of Lowe's threshold, for blurred and recompressed images
_GRID = 5  # cells per side that share the keypoints evenly, so that an image pasted onto a busy one keeps some
_BANDS = (4.0, 9.0)
"""Diameters in px that separate fine, medium and coarse keypoints, which also share each cell evenly: the strongest
keypoints of a noisy image are all fine, and all noise."""
_DISTANCE_RATIO = 0.8
# Largest error of an agreeing match in each fit, as a share of the longer side of the candidate.
_TOLERANCES = (0.08, 0.046, 0.026, 0.015)
_MAX_SCALE, _MAX_STRETCH = 8.0, 2.5
_COSINE_OF_36_DEGREES = 0.8090169943749475


@dataclasses.dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints of an image.

    Attributes:
        size: width and height in px of the image in which they were detected.
        points: float32 `[n, 2]`, x and y in px.
        scales: float32 `[n]`, diameter in px.
        angles: float32 `[n]`, in radians, clockwise in image coordinates.
        descriptors: uint8 `[n, 128]`, RootSIFT times 512.
    """

    size: tuple[int, int]
    points: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray

    def mirrored(self) -> Keypoints:
        """Return the keypoints of the mirrored image; detecting them there makes no noticeable difference."""
        flipped = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, (-np.arange(8)) % 8].reshape(-1, 128)
        points = self.points * np.array([-1, 1], np.float32) + np.array([self.size[0] - 1, 0], np.float32)
        return Keypoints(self.size, points, self.scales, np.float32(np.pi) - self.angles, flipped)


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
    """How a query lies in a candidate.

    Attributes:
        matrix: float64 `[2, 3]`, from px of the image of the query's keypoints (mirrored, if `mirrored`) to px of the
            candidate's.
        mirrored: whether the query is a mirror image.
        num_inliers: keypoints of the query that agree with the matrix.
    """

    matrix: np.ndarray
    mirrored: bool
    num_inliers: int


def gray_pixels(image: Image.Image, longer_side: int) -> np.ndarray:
    """Return an image of any mode and size as keypoints are detected in it: uint8 `[h, w]`, gray, resized.

    Small images are enlarged, as they have few keypoints.
    """
    factor = longer_side / max(image.size)
    size = (max(16, round(image.width * factor)), max(16, round(image.height * factor)))
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def detect_in(gray: np.ndarray, most: int) -> Keypoints:
    """Return the keypoints of a gray image, uint8 `[h, w]`: the strongest of each cell and each band of scales.

    `most` is their maximum number.
    """
    size = gray.shape[1], gray.shape[0]
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


@dataclasses.dataclass(frozen=True, slots=True)
class Matches:
    """Keypoints of a query, or of its mirror image, that are clearly nearer to one of a candidate's than to any other.

    Attributes:
        query: its keypoints, mirrored if `mirrored`.
        candidate: its keypoints.
        ours: int64 `[n]`, which of the query's.
        theirs: int64 `[n]`, which of the candidate's.
        mirrored: whether the query is mirrored.
    """

    query: Keypoints
    candidate: Keypoints
    ours: np.ndarray
    theirs: np.ndarray
    mirrored: bool


def match(query: Keypoints, candidate: Keypoints) -> tuple[Matches, Matches]:
    """Return the matches of the query and those of its mirror image."""
    mirrored = query.mirrored()
    return (
        Matches(query, candidate, *_matches(query, candidate), mirrored=False),
        Matches(mirrored, candidate, *_matches(mirrored, candidate), mirrored=True),
    )


def align(matches: tuple[Matches, Matches]) -> Alignment | None:
    """Return how the query lies in the candidate, or None if fewer than `MIN_INLIERS` keypoints agree."""
    return max(filter(None, map(_affine, matches)), key=lambda one: one.num_inliers, default=None)


def num_agreeing(matches: tuple[Matches, Matches]) -> int:
    """Return how many matches agree with the hypothesis that most of them support, before any map is fitted."""
    return max(int(_largest_agreement(one).sum()) if len(one.ours) else 0 for one in matches)


def _root(descriptors: np.ndarray) -> np.ndarray:
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return np.minimum(np.sqrt(descriptors / sums) * 512, 255).astype(np.uint8)


def _spread(
    points: np.ndarray, scales: np.ndarray, responses: np.ndarray, size: tuple[int, int], most: int
) -> np.ndarray:
    """Return the indices of the `most` keypoints: the strongest of each cell and band, then the second, and so on."""
    columns, rows = np.minimum((points / np.array(size, np.float32) * _GRID).astype(int), _GRID - 1).T
    shares = (np.searchsorted(_BANDS, scales) * _GRID + rows) * _GRID + columns
    order = np.lexsort((-responses, shares))
    starts = np.searchsorted(shares[order], np.arange((len(_BANDS) + 1) * _GRID**2))
    rank = np.arange(len(order)) - starts[shares[order]]
    return order[np.lexsort((-responses[order], rank))[:most]]


def _affine(matches: Matches) -> Alignment | None:
    """Return the map that most matches agree on, with the number of distinct keypoints that support it."""
    query, candidate, ours, theirs = matches.query, matches.candidate, matches.ours, matches.theirs
    if len(ours) < MIN_INLIERS:
        return None
    start, goal = query.points[ours].astype(np.float64), candidate.points[theirs].astype(np.float64)
    reach = float(max(candidate.size))
    agreeing = _largest_agreement(matches)
    matrix = None
    for tolerance in (share * reach for share in _TOLERANCES):
        if agreeing.sum() < MIN_INLIERS:
            return None
        matrix = fit(start[agreeing], goal[agreeing])
        x, y = (transform(matrix, start) - goal).T
        agreeing = x * x + y * y < tolerance * tolerance
    # Keypoints at the same place, in either image, count once. A first call of np.unique imports np.ma, for 20 ms.
    reached = min(len(set(map(tuple, np.round(side[agreeing]).tolist()))) for side in (start, goal))
    if matrix is None or reached < MIN_INLIERS or not _plausible(matrix):
        return None
    return Alignment(matrix, matches.mirrored, reached)


def _matches(query: Keypoints, candidate: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    if len(query.points) == 0 or len(candidate.points) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    a, b = query.descriptors.astype(np.float32) / 512, candidate.descriptors.astype(np.float32) / 512
    products = a @ b.T  # exact in any order: integers below 2**24 times a power of two
    nearest = products.argmax(axis=1)
    rows = np.arange(len(a))
    first = products[rows, nearest]
    products[rows, nearest] = -1
    second = products.max(axis=1)
    clear = (1 - first) < _DISTANCE_RATIO**2 * (1 - second)  # squared distances of unit vectors, halved
    return rows[clear], nearest[clear]


def _largest_agreement(matches: Matches) -> np.ndarray:
    """Return which matches agree with the best hypothesis, bool `[num_matches]`: the one that most matches support."""
    query, candidate, ours, theirs = matches.query, matches.candidate, matches.ours, matches.theirs
    tolerance = _TOLERANCES[0] * max(candidate.size)
    scale = (candidate.scales[theirs] / query.scales[ours]).astype(np.float64)
    turn = (candidate.angles[theirs] - query.angles[ours]).astype(np.float64)
    # Rounded, because the last bit of a cosine depends on the processor.
    cosine, sine = (function(turn).astype(np.float32).astype(np.float64) for function in (np.cos, np.sin))
    x, y = query.points[ours].astype(np.float64).T
    goal_x, goal_y = candidate.points[theirs].astype(np.float64).T
    # Hypothesis h maps start_h to goal_h, and rotates and scales offsets from start_h.
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
    """Whether a map is not a mirror image, and within the scales and stretches of real copies."""
    longest, shortest = singular_values(matrix)
    return (
        determinant(matrix) > 0
        and longest < _MAX_SCALE
        and shortest > 1 / _MAX_SCALE
        and longest < _MAX_STRETCH * shortest
    )
