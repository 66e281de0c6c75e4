"""The places at which two images in one frame differ, and what kind of change each one is.

Pixels that differ and are close together are a place. Where the outlines of both images agree and only the color does
not, a color was exchanged. Where only one image has outlines, or the place begins at the border, something was laid
over it: text, a logo, a bar. Where both have outlines of their own, the content is another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from simimg.similarity.affine import transform
from simimg.similarity.color_fit import fit_either, local_range
from simimg.similarity.color_models import Modeled, modeled
from simimg.similarity.edits import CONTENT, EXCHANGE, OVERLAY
from simimg.similarity.palette_noise import are_unlike_palettes
from simimg.similarity.registration import Registered

_JOINED = 0.012  # of the longer side: pixels that are closer belong to one place
MIN_PIXELS = 6
"""Of a place, at least."""

_MIN_LEVELS = 400  # of a place: the sum of levels by which its pixels differ
_FAINT, _LARGE = 45, 200  # levels per pixel; a faint place counts if it has 200 px and outlines of its own
_EDGE, _CLEAR_EDGE = 12, 30  # levels within 3 x 3 px
_SAME_OUTLINES = 0.9  # share of outlines that the other image has within a pixel
_SAME_STRENGTH = 0.4  # share of the strength of the outlines that both have
_ONE_SIDED, _ONE_SIDED_OUTLINE = 0.5, 0.3  # ratio of the lesser to the larger strength
_STRONG, _CLEAR_OUTLINE = 50, 12  # levels
# A small place in a drawing whose pixels differ by a lower share of the outlines there is the ringing of a JPEG: at
# most 0.25 in sheets of music at quality 60. Digits of five pixels had 0.65 and up.
_RINGING = 0.35
# Px over which means are compared, levels by which they differ, beyond a share of the range of levels around, and the
# number of such pixels. Of 30 photos, at JPEG quality 10, WebP 5 and AVIF 25, none had one beyond 8 levels.
_MEAN_PX, _MEAN_LEVELS, _PER_RANGE, _MIN_BROAD, _MIXED = 9, 10, 12, 25, 20
# Drawings without noise: levels within 3 x 3 px of strong outlines, and within how many px of them; levels that a codec
# leaves there, and their ratio to what is plain. Drawings that were resampled or saved as WebP, JPEG 2000 or JPEG (from
# quality 20) have a higher ratio. In AVIF files and palettes, at most 0.015 of the pixels near outlines differ by more
# than so many levels, in stars with other numbers of points 0.14 and more.
_OUTLINE, _NEAR_PX, _TRACES, _CLEAN = 48, 9, 10, 0.2
_OTHER_LEVELS, _OTHER_SHARE = 24, 0.02
_OFF = 0.03  # of the sides
_BAR = 0.5  # share of a side at which pixels differ, if there is a bar

_Box = tuple[slice, slice]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place that differs.

    Attributes:
        box: left, top, right and bottom in the unit square of the query.
        area: its share of the part that both images show, 0..1.
        kind: `OVERLAY`, `CONTENT` or `EXCHANGE`.
    """

    box: tuple[float, float, float, float]
    area: float
    kind: str

    def moved(self, matrix: np.ndarray) -> Place:
        """Return the place in the unit square to which a map leads."""
        return dataclasses.replace(self, box=_moved_box(self.box, matrix))


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Where both images differ, and their outlines: maps of the frame, `[h, w]`."""

    differs: np.ndarray  # bool
    faintly: np.ndarray  # bool, where plain parts of drawings differ by few levels
    in_color: np.ndarray  # bool, where it does because of its color
    levels: np.ndarray  # int16, by which each pixel differs
    query_edges: np.ndarray  # uint8, see `local_range`
    candidate_edges: np.ndarray
    inside: np.ndarray  # bool
    noise: int  # levels
    is_drawing: bool
    is_recolored: bool = False  # in hue or in light, see `simimg.similarity.color_models`
    beyond_noise: np.ndarray | None = None  # bool, where `differs` cannot be noise; None if that is not known
    faintly_beyond_noise: np.ndarray | None = None  # the same for `faintly`


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A place, the sum of its levels, whether it may be content, and whether more of it is seen in the query."""

    place: Place
    levels: int
    may_be_content: bool
    on_query: bool


class Places:
    """The places of a frame that differ, and the maps of it that tell what kind of change each one is."""

    def __init__(self, seen: Seen, differs: np.ndarray, beyond_noise: np.ndarray | None, pair: Registered) -> None:
        self._seen, self._differs, self._beyond_noise, self._to_query = seen, differs, beyond_noise, pair.to_query
        self._height, self._width = differs.shape
        self._reach = max(3, round(max(self._height, self._width) * _JOINED)) | 1
        square = np.ones((self._reach, self._reach), np.uint8)
        joined = cv2.dilate(differs.astype(np.uint8), square)
        self._outline = _outline(cv2.erode(joined, square)) & seen.inside
        self._outside = cv2.dilate((~seen.inside).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
        self._weaker = cv2.min(seen.query_edges, seen.candidate_edges)
        self._stronger = cv2.max(seen.query_edges, seen.candidate_edges)
        self._only_ours = cv2.subtract(seen.query_edges, seen.candidate_edges)
        self._only_theirs = cv2.subtract(seen.candidate_edges, seen.query_edges)
        ours, theirs = seen.query_edges >= _EDGE, seen.candidate_edges >= _EDGE
        near_ours, near_theirs = _dilated(ours, 3), _dilated(theirs, 3)
        self._shared = (ours & near_theirs) | (theirs & near_ours)
        ours, theirs = seen.query_edges >= _CLEAR_EDGE, seen.candidate_edges >= _CLEAR_EDGE
        self._clear, self._clear_shared = ours | theirs, (ours & near_theirs) | (theirs & near_ours)
        _, self._labels, self._boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        reach = self._reach
        ends = (joined[:, :reach], joined[:reach].T, joined[:, -reach:], joined[-reach:].T)
        self._bars = [float(end.max(axis=1).mean()) >= _BAR for end in ends]  # left, top, right and bottom

    def changes(self) -> list[Change]:
        """Return the places that differ by more than noise."""
        found = (self._change(label) for label in range(1, len(self._boxes)))
        return [change for change in found if change is not None]

    def _change(self, label: int) -> Change | None:
        seen = self._seen
        left, top, width, height, _ = self._boxes[label].tolist()
        box = slice(top, top + height), slice(left, left + width)
        mine = (self._labels[box] == label) & seen.inside[box]
        hit = mine & self._differs[box]
        size, levels = int(hit.sum()), level_sum(seen.levels[box], hit)
        if size < MIN_PIXELS or levels < _MIN_LEVELS:
            return None
        is_certain = self._beyond_noise is not None and (self._beyond_noise[box] & hit).any()
        if self._beyond_noise is not None and not is_certain:
            return None
        near, contour = _dilated(hit, 5) & mine, mine & self._outline[box]
        any_edge = near & (self._stronger[box] >= _EDGE)
        agreeing = int((near & self._shared[box]).sum()) / max(1, int(any_edge.sum()))
        largest = float(seen.levels[box][hit].max())
        if seen.is_drawing and size < _LARGE and largest < _RINGING * float(self._stronger[box][hit].max()):
            return None
        is_faint = not is_certain and levels < (_FAINT + seen.noise) * size
        if is_faint and (size < _LARGE or 0.5 < agreeing < _SAME_OUTLINES):
            return None
        margins = left, top, self._width - left - width, self._height - top - height
        ends = [margin <= self._reach for margin in margins]
        is_bar = any(end and bar for end, bar in zip(ends, self._bars, strict=True))
        at_border = is_bar if seen.is_drawing else any(ends)
        may_be_content = (is_certain or levels >= _STRONG * size) and not (
            at_border or (mine & self._outside[box]).any()
        )
        ours, theirs = level_sum(self._only_ours[box], near), level_sum(self._only_theirs[box], near)
        around = level_sum(self._only_ours[box], contour), level_sum(self._only_theirs[box], contour)
        has_clear_outline = max(around) > _CLEAR_OUTLINE * int(contour.sum())
        is_laid = has_clear_outline and min(around) < _ONE_SIDED_OUTLINE * max(around)
        if size >= _LARGE and not is_bar and self._is_exchanged(box, hit, near, contour):
            kind = EXCHANGE
        elif may_be_content and min(ours, theirs) >= _ONE_SIDED * max(ours, theirs) and not is_laid:
            kind = CONTENT
        else:
            kind = OVERLAY
        in_query = _moved_box((left, top, left + width, top + height), self._to_query)
        place = Place(in_query, size / int(seen.inside.sum()), kind)
        # What covers textured parts has an outline around it, and little within.
        on_query = around[0] > around[1] if has_clear_outline else ours > theirs
        return Change(place, levels, may_be_content, on_query)

    def _is_exchanged(self, box: _Box, hit: np.ndarray, near: np.ndarray, contour: np.ndarray) -> bool:
        """Whether what is within outlines differs, but not they: sharpening changes outlines."""
        clear = int((near & self._clear[box]).sum())  # without noise, which compression takes from one of the images
        if int((near & self._clear_shared[box]).sum()) < _SAME_OUTLINES * max(1, clear):
            return False
        # An object has an outline around it; a filter that darkens the corners of a photo has none.
        has_outline = level_sum(self._weaker[box], contour) >= _EDGE * int(contour.sum())
        shared = level_sum(self._weaker[box], near) >= _SAME_STRENGTH * level_sum(self._stronger[box], near)
        within = hit & (self._seen.in_color[box] | (self._stronger[box] < _EDGE))
        return has_outline and shared and int(within.sum()) >= 0.5 * int(hit.sum())


def broad_places(pair: Registered, noise: int) -> tuple[Place, ...]:
    """Return where two images differ in the mean of many pixels, once one has the other's colors; largest first.

    Noise of any kind hardly changes these means, so they tell images whose pixels differ by no more than noise does.
    `noise` are the levels by which a JPEG of a quality below 25 changes them.
    """
    ours, theirs = pair.colors
    if cv2.countNonZero(_broadly(ours, theirs, pair.inside, noise)) < _MIN_BROAD:
        return ()
    ranges = cv2.max(*(local_range(cv2.extractChannel(side, 0)) for side in (ours, theirs)))
    colors = Modeled(*fit_either(ours, theirs, pair.inside, ranges < _MIXED))
    colors = modeled(ours, theirs, colors, pair.inside) or colors
    differs = _broadly(theirs if colors.swapped else ours, colors.fitted.image, pair.inside, noise)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(differs, connectivity=8)
    found = [boxes[label].tolist() for label in range(1, count) if boxes[label][4] >= _MIN_BROAD]
    total = int(pair.inside.sum())
    return tuple(
        Place(_moved_box((left, top, left + width, top + height), pair.to_query), size / total, OVERLAY)
        for left, top, width, height, size in sorted(found, key=lambda box: -box[4])
    )


def line_places(query: np.ndarray, candidate: np.ndarray, place: np.ndarray) -> tuple[Place, ...]:
    """Return as one place where two drawings of one size and without noise differ, uint8 `[h, w, 3]`; else nothing.

    In a raster or a star, each line has one that is like it next to it. But between such drawings lies no codec. They
    lie on each other as a whole, even if another `place`, see `Verification.place`, fits the lines better.
    """
    if query.shape != candidate.shape or np.abs(place - np.eye(2, 3)).max() > _OFF:
        return ()
    lumas = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (query, candidate)]
    ranges = [local_range(luma) for luma in lumas]
    square = np.ones((_NEAR_PX, _NEAR_PX), np.uint8)
    near = cv2.dilate((cv2.max(*ranges) > _OUTLINE).view(np.uint8), square).view(bool)
    for levels in ranges:
        is_plain = near & (levels == 0)
        if np.count_nonzero(near & (levels <= _TRACES) & ~is_plain) > _CLEAN * np.count_nonzero(is_plain):
            return ()
    differs = near & (cv2.absdiff(*lumas) > _OTHER_LEVELS)
    count = np.count_nonzero(differs)
    if count < max(MIN_PIXELS, _OTHER_SHARE * np.count_nonzero(near)) or are_unlike_palettes(query, candidate):
        return ()
    left, top, width, height = cv2.boundingRect(differs.view(np.uint8))
    down, across = differs.shape
    box = (left / across, top / down, (left + width) / across, (top + height) / down)
    return (Place(box, float(count) / differs.size, OVERLAY),)


def moved_places(pair: Registered, cells: Sequence[tuple[float, float, float, float]]) -> tuple[Place, ...]:
    """Return cells of the frame whose content lies elsewhere, see `Registration.moved`, as places."""
    height, width = pair.inside.shape
    return tuple(
        Place(_moved_box(cell, pair.to_query), (cell[2] - cell[0]) * (cell[3] - cell[1]) / (width * height), OVERLAY)
        for cell in cells
    )


def _broadly(ours: np.ndarray, theirs: np.ndarray, inside: np.ndarray, noise: int) -> np.ndarray:
    """Return where the means of luma of two images, YCrCb, differ: uint8 `[h, w]`, 1 and 0."""
    lumas, square = [cv2.extractChannel(side, 0) for side in (ours, theirs)], np.ones((_MEAN_PX, _MEAN_PX), np.uint8)
    difference = cv2.absdiff(*(cv2.blur(luma, (_MEAN_PX, _MEAN_PX)) for luma in lumas))
    spread = cv2.max(*(cv2.subtract(cv2.dilate(luma, square), cv2.erode(luma, square)) for luma in lumas))
    beyond = difference.astype(np.int16) * _PER_RANGE - spread >= (_MEAN_LEVELS + noise) * _PER_RANGE
    core = cv2.erode(inside.view(np.uint8), square, borderValue=0)
    return (beyond & core.view(bool)).astype(np.uint8)


def _moved_box(box: tuple[float, float, float, float], matrix: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box around a box under a map to a unit square, cut at its sides."""
    left, top, right, bottom = box
    corners = transform(matrix, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))
    (left, top), (right, bottom) = np.clip([corners.min(axis=0), corners.max(axis=0)], 0, 1).tolist()
    return left, top, right, bottom


def _dilated(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)).astype(bool)


def level_sum(values: np.ndarray, chosen: np.ndarray) -> int:
    """Return the sum of levels where a mask is set."""
    return int(values[chosen].sum(dtype=np.int64))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the outlines of the parts of a mask, uint8, without those of their holes: bool, 5 px wide."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    height, width = padded.shape
    cv2.floodFill(padded, np.zeros((height + 2, width + 2), np.uint8), (0, 0), 2)
    filled = (padded[1:-1, 1:-1] != 2).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    return (cv2.dilate(filled, square) - cv2.erode(filled, square)).astype(bool)
