"""What was done to a copy, as reasons for people and as kinds of edits: geometry, color, detail and compression."""

from __future__ import annotations

import dataclasses
import functools
import math

import cv2
import numpy as np

from simimg.similarity.affine import compose, determinant, scaling
from simimg.similarity.edits import BLUR, COLOR, COMPRESSION, CROP, MIRROR, OVERLAY, PASTE, SIZE, STRETCH, TURN
from simimg.similarity.fingerprint import PLAIN, Fingerprint, luma

GREY = "grey"
"""The reason of a copy without the colors of its original."""

POSITIONS = ("mirrored", "flipped", "turned")
"""Beginnings of the reasons of `MIRROR` and `TURN`."""

GEOMETRY = (*POSITIONS, "cropped", "pasted", "stretched")
"""Beginnings of the reasons that the alignment shows, but for the size."""

_LEAST_CROP, _LEAST_TURN, _LEAST_STRETCH = 0.01, 0.3, 0.02  # share, degrees, and ratio that pixels show
_ROUNDED = 1.5  # px
_FEW_PX = 64
_COVERAGE = "covered or changed"
_SHARE = "of the area"  # as in `Differences.text`


class Reasons:
    """Reasons, and the kinds of edits that they show."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.edits: set[str] = set()

    def add(self, edit: str, text: str) -> None:
        """Add a reason."""
        self.texts.append(text)
        self.edits.add(edit)


def is_coverage(reason: str) -> bool:
    """Whether a reason tells how much of an image is covered or changed."""
    return reason.endswith((_COVERAGE, _SHARE))


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """From when on a map shows an edit; by default, as exact as an alignment by keypoints is.

    Attributes:
        crop: least share of the candidate that the query shows.
        paste: least share of the query that the candidate shows.
        turn: degrees.
        stretch: ratio of the scales, less 1.
        size: factor, less 1.
    """

    crop: float = 0.97
    paste: float = 0.93
    turn: float = 1.5
    stretch: float = 0.05
    size: float = 0.05


def exact_limits(query: tuple[int, int], candidate: tuple[int, int]) -> Limits:
    """Return the limits for images of these sizes, in px, whose pixels lie on each other.

    A side of a resized copy is off by half a pixel of the smaller image, as it has a whole number of them, and some
    programs make it a multiple of 8 or 16.
    """
    width, height = min(query, candidate)
    share = 1 - max(_LEAST_CROP, _ROUNDED / width + _ROUNDED / height)
    turn = max(_LEAST_TURN, math.degrees(2 * _ROUNDED / max(width, height)))
    return Limits(share, share, turn, max(_LEAST_STRETCH, _ROUNDED / min(width, height)), math.inf)


def add_geometry(
    reasons: Reasons,
    query: tuple[int, int],
    candidate: tuple[int, int],
    matrix: np.ndarray,
    mirrored: bool,
    candidate_share: float,
    query_share: float,
    limits: Limits = Limits(),
) -> None:
    """Add the reasons that the map between images of these sizes shows.

    The map in px of both images is split into a rotation and two scales.
    """
    real = compose(scaling(*candidate), matrix, scaling(1 / query[0], 1 / query[1]))
    turn = math.degrees(math.atan2(real[1, 0], real[0, 0]))  # from the query's to the candidate's x axis, clockwise
    across = math.hypot(real[0, 0], real[1, 0])  # px of the candidate per px of the query
    down = abs(determinant(real)) / across
    # The map undoes the rotation of the query, so the query was rotated the other way. A mirrored query is mirrored
    # back first: it was rotated and then mirrored, which reverses the sign again.
    turned = turn if mirrored else -turn
    half_turned = abs(abs(turned) - 180) < 2
    if mirrored:
        reasons.add(MIRROR, "flipped upside down" if half_turned else "mirrored")
    if half_turned and not mirrored:
        reasons.add(TURN, "turned upside down")
    elif abs(turned) >= limits.turn and not half_turned:
        nearest = round(turned / 90) * 90
        angle = nearest if nearest and abs(turned - nearest) < 1 else round(turned, 0 if abs(turned) >= 1.5 else 1)
        reasons.add(TURN, f"turned by {abs(angle):g}° {'clockwise' if angle > 0 else 'counter-clockwise'}")
    if candidate_share < limits.crop:
        reasons.add(CROP, f"cropped to {candidate_share:.0%} of its area")
    if query_share < limits.paste * _share_of_its_box(candidate, turned):
        reasons.add(PASTE, f"pasted into a larger picture, of which it is {query_share:.0%}")
    stretch = down / across  # how much wider the query is than the candidate would be
    if not 1 / (1 + limits.stretch) < stretch < 1 + limits.stretch:
        reasons.add(
            STRETCH,
            f"stretched to {stretch:.2f} times its width"
            if stretch > 1
            else f"stretched to {1 / stretch:.2f} times its height",
        )
    size = 1 / (down if stretch > 1.05 else across if stretch < 0.95 else math.sqrt(across * down))
    if not 1 / (1 + limits.size) < size < 1 + limits.size:
        reasons.add(SIZE, f"resized to {size:.0%}")


def _share_of_its_box(size: tuple[int, int], turn: float) -> float:
    """Return the share that an image rotated by `turn` degrees has of its upright bounding box."""
    sine, cosine = abs(math.sin(math.radians(turn))), abs(math.cos(math.radians(turn)))
    width, height = size
    return width * height / ((width * cosine + height * sine) * (width * sine + height * cosine))


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Colors and detail of a part of an image.

    Attributes:
        colorful: mean range of the three channels, in levels of 255.
        bright: mean luma, in levels.
        tint: float `[3]`, the mean of each channel minus `bright`.
        sharp: see `_sharpness`.
    """

    colorful: float
    bright: float
    tint: np.ndarray
    sharp: float


def look(image: np.ndarray, inside: np.ndarray) -> Look | None:
    """Return how the part of an image in a mask looks, float32 `[h, w, 3]` and bool `[h, w]`; None if it is tiny."""
    if np.count_nonzero(inside) < _FEW_PX:
        return None
    channels = [np.ascontiguousarray(image[..., channel]) for channel in range(3)]
    spread = cv2.subtract(functools.reduce(cv2.max, channels), functools.reduce(cv2.min, channels))
    gray = luma(image)
    bright, colorful, *means = (float(side[inside].mean()) for side in (gray, spread, *channels))
    return Look(colorful, bright, np.array(means) - bright, _sharpness(gray, inside))


def add_color_and_detail(reasons: Reasons, ours: Look | None, theirs: Look | None, disagreeing: float) -> None:
    """Add the reasons that the frame shows: changes of color, sharpness, and covered parts."""
    if ours is None or theirs is None:
        return
    if ours.colorful < 3 and theirs.colorful > 9:
        reasons.add(COLOR, GREY)
    else:
        ratio = (ours.colorful + 3) / (theirs.colorful + 3)
        # Strong compression takes some levels of weak colors.
        faded = not 0.7 < ratio < 1.4 and abs(ours.colorful - theirs.colorful) > 6
        if float(np.abs(ours.tint - theirs.tint).max()) > 10 or faded:
            reasons.add(COLOR, "recoloured")
        elif abs(ours.bright - theirs.bright) > 12:
            reasons.add(COLOR, "brighter" if ours.bright > theirs.bright else "darker")
    if theirs.sharp > 1 and ours.sharp < 0.45 * theirs.sharp:
        reasons.add(BLUR, "blurred")
    if disagreeing > 0.04:
        reasons.add(OVERLAY, f"{disagreeing:.0%} {_COVERAGE}")


def _sharpness(gray: np.ndarray, inside: np.ndarray) -> float:
    """Return the deviation of the detail that a small blur removes, in percent of the image's own contrast."""
    detail = gray - cv2.GaussianBlur(gray, (0, 0), 1.5)
    core = cv2.erode(inside.view(np.uint8), np.ones((5, 5), np.uint8)).view(bool)
    if np.count_nonzero(core) < _FEW_PX:
        return 0.0
    return 100 * float(detail[core].std()) / max(float(gray[core].std()), PLAIN)


def add_compression(reasons: Reasons, query: Fingerprint, candidate: Fingerprint) -> None:
    """Add the reason that the JPEG quality shows, or only the edit if it is of no interest to people."""
    if query.jpeg_quality != candidate.jpeg_quality:
        reasons.edits.add(COMPRESSION)
    if query.jpeg_quality is None or query.jpeg_quality > 85:
        return
    if candidate.jpeg_quality is None or query.jpeg_quality <= candidate.jpeg_quality - 5:
        reasons.add(COMPRESSION, f"JPEG about quality {query.jpeg_quality}")
