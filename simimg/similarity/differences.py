"""What differs between two images that show the same picture, at full size.

1. Both are brought into one frame (`simimg.similarity.registration`).
2. What concerns all pixels alike is no difference: sharpness, and colors (`simimg.similarity.color_fit`;
   `simimg.similarity.color_models`).
3. Compression and resampling are noise: a pixel differs only if no pixel next to it in the other image is like it, by
   more levels than the noise of the two files. Whole images on each other are compared pixel by pixel as well, with
   noise that is learned from the pair (`simimg.similarity.pixel_noise`), and palettes are noise, too
   (`simimg.similarity.palette_noise`). Where nothing differs so, the means of 9 x 9 px are compared, which noise
   hardly changes: other X-ray images differ by few levels, but over many pixels. What differs by less than these may
   have other grain (`simimg.similarity.grain`).
4. Pixels that differ and are close together are a place. Where the outlines of both images agree and only the color
   does not, a color was exchanged. Where only one image has outlines, or the place begins at the border, something was
   laid over it: text, a logo, a bar. Where both have outlines of their own, the content is another one.
5. The pair differs in content if a large part of what differs is such places, or if some places were laid over the
   one image and some over the other: other numbers, a frown instead of a smile. In a drawing or a document, whose areas
   are plain and without noise, everything that is laid over it is content as well: a badge, a spade instead of a club.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence, Set

import cv2
import numpy as np

from simimg.determinism import plain_opencv
from simimg.similarity.affine import inverse_place
from simimg.similarity.color_fit import Fitted, fit_either, local_range, other_hue
from simimg.similarity.color_models import Modeled, has_other_colors, modeled
from simimg.similarity.difference_places import (
    MIN_PIXELS,
    Change,
    Place,
    Places,
    Seen,
    broad_places,
    level_sum,
    line_places,
    moved_places,
)
from simimg.similarity.edits import BLUR, COLOR, CONTENT, EDITS, EXCHANGE, OVERLAY
from simimg.similarity.grain import grain_places
from simimg.similarity.palette_noise import palette_of, within_palettes
from simimg.similarity.pixel_noise import chroma_outliers, luma_outliers, outliers
from simimg.similarity.registration import Registered, Registration, eroded

MOST_PX = 1024
"""Longer side of the images that are compared, at most."""

_SMALL_PX, _MOST_ENLARGED, _SMALL_NOISE = 128, 8.0, -10  # levels that count more, as icons are drawn pixel by pixel
# Levels of 255. Of 3 x 3 px around, the nearest level counts, which hides the noise of a JPEG of quality 25 and more.
_LUMA, _CHROMA = 24, 36
_MOST_NOISE, _NOISY = 4, 96  # times the median of what is left, in noisy images, and levels at most
_WORST_QUALITY, _PER_QUALITY = 25, 2  # below this JPEG quality, levels that are added per step
_UNLIKE = 16  # levels of chroma that are no other color, whatever the fit of colors would be
_FEW_UNLIKE = 0.02  # share of the pixels of a photo
_PLAIN_LUMA, _PLAIN_CHROMA = 12, 10  # levels that count where drawings are plain
_DETAILED = 0.002  # fine detail, below which an image has none to lose
_BLURRED = 0.2  # ratio of the fine detail; JPEGs, WebP and AVIF of photos at usual qualities keep more
_CLIPPED = 0.35  # share of the chroma
_HUE = 12  # levels by which another hue differs
_MOST_CELLS, _CELL_PX = 8, 8  # cells of the longer side whose mean color is compared, and px of such a cell, at least
_SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # px, of blur
_CONTENT, _CONTENT_OF_DRAWING = 0.5, 0.2  # share of what differs
_MIXED = 20  # levels within 3 x 3 px; at such edges, colors are mixed
_MIN_ON_BOTH, _ON_BOTH = 2, 0.3  # places on either image, and the ratio of their levels
_DEGRADED = 0.3  # share of the outlines: in images of squares of 8 px at most 0.25, in other playing cards 0.4 and more
_FLAT, _DRAWING = 2, 0.68  # levels within 3 x 3 px, and the share of such pixels: 99 % of photos have at most 0.66


@dataclasses.dataclass(frozen=True, slots=True)
class Differences:
    """What differs.

    Attributes:
        places: the places that differ, largest first.
        kinds: the kinds of changes they amount to.
        on_query: the share of them that was laid over the query rather than the candidate, 0..1, by levels.
        place: how the query lies in the candidate, corrected to fractions of a pixel; None if that is not known.
    """

    places: tuple[Place, ...] = ()
    kinds: frozenset[str] = frozenset()
    on_query: float = 0.5
    place: tuple[float, ...] | None = dataclasses.field(default=None, compare=False)

    @property
    def area(self) -> float:
        """The share of the part that both images show that differs, 0..1."""
        return min(1.0, sum(place.area for place in self.places))

    def reversed(self, place: np.ndarray) -> Differences:
        """Return them with the query as the candidate, in which it lies as `place` says, see `Verification.place`."""
        return dataclasses.replace(
            self,
            places=tuple(one.moved(place) for one in self.places),
            on_query=1 - self.on_query,
            place=None if self.place is None else inverse_place(self.place),
        )

    def boxes(self) -> list[list[float]]:
        """Return the boxes of the places, for JSON."""
        return [[round(side, 4) for side in place.box] for place in self.places]

    @property
    def text(self) -> str:
        """The differences as text for people, or ""."""
        if not self.places:
            return ""
        count = len(self.places)
        share = f"{self.area:.1%}" if self.area >= 0.001 else "less than 0.1%"
        return f"{count} {'place differs' if count == 1 else 'places differ'}, {share} of the area"


@plain_opencv()
def find_differences(
    query: np.ndarray,
    candidate: np.ndarray,
    place: Sequence[float],
    qualities: Sequence[int | None] = (),
    within: Set[str] = frozenset(EDITS),
) -> Differences:
    """Return what differs between two images that show the same picture.

    Args:
        query: uint8 `[h, w, 3]`, sRGB; its sides are at most `MOST_PX`.
        candidate: the same.
        place: how the query lies in the candidate, as `Verification.place`.
        qualities: of the JPEG files, 1..100, or None for other formats.
        within: kinds of edits that matter; once another one is known, no more is looked for.
    """
    known = [quality for quality in qualities if quality is not None]
    is_small = _side_of_smaller((query, candidate)) < _SMALL_PX
    noise = (_SMALL_NOISE if is_small else 0) + _PER_QUALITY * max([0, *(_WORST_QUALITY - one for one in known)])
    originals = query, candidate
    query, candidate = _enlarged(query, candidate)
    try:
        registration = Registration(query, candidate, np.array(place, np.float64).reshape(2, 3))
    except ValueError:
        return Differences()
    is_drawing = _is_drawing(query) and _is_drawing(candidate)
    is_plain, blur = is_drawing or is_small, frozenset[str]()
    by_pixel = registration.is_whole and (registration.is_upright or is_drawing)  # no other photos are planned
    by_mean = registration.is_straight and registration.is_upright  # also if it is a little off, or cropped a little
    pair = registration.images() if registration.is_straight else None
    if pair is not None:
        blur = _blur(pair) if registration.is_exact else blur  # resampling blurs, too
        if not blur <= within:
            return Differences(kinds=blur)
        num_unlike = _num_unlike(pair, is_plain, by_pixel)
        if num_unlike < MIN_PIXELS:
            return _completed(Differences(kinds=blur), pair, registration, originals, noise, by_mean)
    # A drawing of the same size is where it is: what was changed must not pull it.
    if pair is None or blur or not (is_drawing and registration.is_exact):
        registration.correct()
        pair = registration.images()
        num_unlike = _num_unlike(pair, is_plain, by_pixel)
        if num_unlike < MIN_PIXELS:
            return _completed(Differences(kinds=blur), pair, registration, originals, noise, by_mean)
    palettes, aligned = [palette_of(image) for image in originals], pair
    if (palettes[0] is None) is not (palettes[1] is None):
        pair, blur = within_palettes(pair, (palettes[0], palettes[1])), frozenset()  # dithering is no sharpness
        num_unlike = _num_unlike(pair, is_plain, by_pixel)
        if num_unlike < MIN_PIXELS:
            return _completed(Differences(), aligned, registration, originals, noise, by_mean)
    # In photos of which few pixels differ, these may be noise, whatever the fit of colors would be.
    may_be_noise = not is_drawing and num_unlike < _FEW_UNLIKE * pair.inside.size
    seen, changes = _compared(pair, noise, is_drawing, by_pixel, may_be_noise)
    found = _judged(changes, is_drawing, _shared_outlines(seen))
    found = dataclasses.replace(found, kinds=found.kinds | blur | ({COLOR} if seen.is_recolored else set()))
    return _completed(found, aligned, registration, originals, noise, by_mean and found.kinds <= within)


def _completed(
    found: Differences, pair: Registered, registration: Registration, originals: Sequence[np.ndarray], noise: int,
    is_upright: bool,
) -> Differences:  # fmt: skip
    """Return what was found, with the alignment at full size and with what only many pixels together show.

    That is told of upright images alone: no others are planned.
    """
    if not registration.is_upright:
        return found
    found = dataclasses.replace(found, place=tuple(registration.place.ravel().tolist()))
    if not is_upright or found.places:
        return found
    noise, side = max(0, noise), _side_of_smaller(originals)
    places, num_cells = broad_places(pair, noise), min(_MOST_CELLS, side // _CELL_PX)
    recolored = num_cells > 1 and not places and has_other_colors(pair, num_cells, noise)
    if (places or recolored) and len({palette_of(image) is None for image in originals}) > 1:
        places, recolored = (), False  # a palette has few levels
    if not places and registration.is_corrected and side >= _SMALL_PX:
        places = moved_places(pair, registration.moved())
    if not (places or recolored or found.kinds or noise):
        places = grain_places(pair, registration) if registration.is_whole and side >= _SMALL_PX else ()
        places = places or line_places(originals[0], originals[1], registration.place)
    kinds = found.kinds | ({OVERLAY} if places else set()) | ({COLOR} if recolored else set())
    return dataclasses.replace(found, places=places, kinds=kinds, place=tuple(registration.place.ravel().tolist()))


def _side_of_smaller(images: Sequence[np.ndarray]) -> int:
    """Return the longer side of the smaller image, in px."""
    return min(max(image.shape[:2]) for image in images)


def _enlarged(*images: np.ndarray) -> list[np.ndarray]:
    """Return images, enlarged by one factor if one is small: within 3 px, an icon of 22 px has an arrow."""
    factor = min(_MOST_ENLARGED, _SMALL_PX / _side_of_smaller(images))
    if factor <= 1:
        return list(images)
    return [cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR) for image in images]


def _num_unlike(pair: Registered, is_plain: bool, is_whole: bool) -> int:
    """Return the number of pixels that differ without a fit of sharpness and colors; with fewer, nothing does."""
    if cv2.countNonZero(pair.inside.view(np.uint8)) < 64:
        return 0
    ours, theirs = pair.colors
    levels = (_PLAIN_LUMA, _PLAIN_CHROMA, _PLAIN_CHROMA, 0.0) if is_plain else (_LUMA, _UNLIKE, _UNLIKE, 0.0)
    found = 0
    # A pixel that is like the one in its place is like one of the nine around it.
    if _num_beyond(cv2.absdiff(ours, theirs), levels, pair.core_mask):
        found = _num_beyond(_beyond(ours, theirs, 3), levels, pair.core_mask)
    if found >= MIN_PIXELS or not is_whole:
        return found
    luma, other = (cv2.extractChannel(side, 0) for side in (ours, theirs))
    return found + cv2.countNonZero(luma_outliers(luma, other, pair.core).view(np.uint8))


def _num_beyond(difference: np.ndarray, levels: tuple[float, ...], mask: np.ndarray | None) -> int:
    """Return the number of pixels in a mask that differ by more than some levels; each channel counts."""
    more = cv2.subtract(difference, levels)
    if mask is not None:
        more = cv2.bitwise_and(more, more, mask=mask)
    return cv2.countNonZero(more.reshape(len(more), -1))


def _compared(
    pair: Registered, noise: int, is_drawing: bool, is_whole: bool, may_be_noise: bool
) -> tuple[Seen, list[Change]]:
    core, (ours, theirs) = pair.core, _equally_sharp(pair)
    ranges = cv2.max(*(local_range(cv2.extractChannel(side, 0)) for side in (ours, theirs)))
    if may_be_noise:
        unchanged = Modeled(False, Fitted(theirs, theirs))
        seen = _seen(ours, theirs, unchanged, ranges, core, pair.inside, noise, is_drawing, is_whole)
        if not _changes(seen, pair):
            return seen, []
    colors = Modeled(*fit_either(ours, theirs, pair.inside, ranges < _MIXED))
    seen = _seen(ours, theirs, colors, ranges, core, pair.inside, noise, is_drawing, is_whole)
    changes = _changes(seen, pair)
    if changes and (better := modeled(ours, theirs, colors, pair.inside)):
        seen = _seen(ours, theirs, better, ranges, core, pair.inside, noise, is_drawing, is_whole)
        changes = _changes(seen, pair)
    return seen, changes


def _changes(seen: Seen, pair: Registered) -> list[Change]:
    places = (seen.differs, seen.beyond_noise), (seen.faintly, seen.faintly_beyond_noise)
    return [
        change
        for mask, beyond in places
        if cv2.countNonZero(mask.view(np.uint8)) >= MIN_PIXELS
        for change in Places(seen, mask, beyond, pair).changes()
    ]


def _seen(
    ours: np.ndarray, theirs: np.ndarray, colors: Modeled, ranges: np.ndarray, core: np.ndarray, inside: np.ndarray,
    noise: int, is_drawing: bool, is_whole: bool,
) -> Seen:  # fmt: skip
    """Return where two images, YCrCb, differ, once one of them has the colors of the other one."""
    swapped, fitted = colors.swapped, colors.fitted
    ours = theirs if swapped else ours
    a, b = (cv2.split(cv2.GaussianBlur(side, (3, 3), 0.6)) for side in (ours, fitted.image))
    tinted = b if fitted.tinted is fitted.image else cv2.split(cv2.GaussianBlur(fitted.tinted, (3, 3), 0.6))
    mask = core.view(np.uint8)
    luma = cv2.bitwise_and(difference := _beyond(a[0], b[0], 3), difference, mask=mask)
    chroma = cv2.max(*(_beyond(one, other, 5) for one, other in zip(a[1:], b[1:], strict=True)))
    chroma = cv2.bitwise_and(chroma, chroma, mask=mask)
    counts = np.cumsum(cv2.calcHist([luma], [0], mask, [256], [0, 256]).ravel().astype(np.int64))
    median = int(np.searchsorted(counts, counts[-1] / 2))
    in_color = eroded(other_hue(a, tinted, _HUE + noise)) & core
    if chroma.max() > _CHROMA + noise:
        strongest = functools.reduce(cv2.max, (cv2.absdiff(plane, 128) for plane in (*a[1:], *b[1:])))
        clipped = cv2.multiply(strongest, _CLIPPED, dtype=cv2.CV_8U)  # a stronger color loses more where it is clipped
        in_color |= chroma > clipped + (_CHROMA + noise)
    differs = (luma > max(_LUMA + noise, min(_NOISY, _MOST_NOISE * median))) | in_color
    faintly = np.zeros_like(core)
    if is_drawing:
        faintly = core & ~differs & (ranges <= _FLAT)
        faintly &= (luma > _PLAIN_LUMA + noise) | (chroma > _PLAIN_CHROMA + noise)
    levels = cv2.add(luma, chroma, dtype=cv2.CV_16S)
    edges, others = (
        local_range(cv2.extractChannel(side, 0)) for side in ((fitted.image, ours) if swapped else (ours, fitted.image))
    )
    seen = Seen(differs, faintly, in_color, levels, edges, others, inside, noise, is_drawing, colors.is_recolored)
    return _with_noise(seen, ours, fitted, core) if is_whole else seen


def _with_noise(seen: Seen, ours: np.ndarray, fitted: Fitted, core: np.ndarray) -> Seen:
    """Return the same with what the comparison pixel by pixel adds, and what it shows to be noise."""
    beyond = outliers(ours, fitted.image, core)
    in_color = (
        beyond.chroma if fitted.tinted is fitted.image else beyond.chroma | chroma_outliers(ours, fitted.tinted, core)
    )
    luma, *chroma = cv2.split(cv2.absdiff(ours, fitted.image))
    color = cv2.max(*chroma)
    darker, recolored = beyond.luma & (luma > _LUMA), beyond.chroma & (color > _UNLIKE + max(0, seen.noise))
    added = darker | recolored
    straight = np.maximum(np.where(darker, luma, 0), np.where(recolored, color, 0))
    return dataclasses.replace(
        seen,
        differs=seen.differs | added,
        faintly=seen.faintly & ~added,
        in_color=seen.in_color | recolored,
        levels=np.maximum(seen.levels, straight),
        beyond_noise=beyond.luma | in_color,
        faintly_beyond_noise=beyond.faintly,
    )


def _blur(pair: Registered) -> frozenset[str]:
    """Return whether one of the images is a blurred one, as a set of kinds."""
    if cv2.countNonZero(pair.core.view(np.uint8)) < 64:
        return frozenset()
    lesser, larger = sorted(_fine_detail(gray, pair.core_mask) for gray in pair.grays)
    return frozenset({BLUR} if lesser < _BLURRED * larger and larger > _DETAILED else ())


def _is_drawing(image: np.ndarray) -> bool:
    """Whether most of an image is plain and without noise."""
    flat = local_range(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) <= _FLAT
    return cv2.countNonZero(flat.view(np.uint8)) >= _DRAWING * flat.size


def _beyond(image: np.ndarray, other: np.ndarray, size: int) -> np.ndarray:
    """Return by how many levels a pixel is beyond all within `size` px in the other image, in either direction."""
    square = np.ones((size, size), np.uint8)
    parts = []
    for one, two in ((image, other), (other, image)):
        parts += [cv2.subtract(one, cv2.dilate(two, square)), cv2.subtract(cv2.erode(two, square), one)]
    return cv2.max(cv2.max(parts[0], parts[1]), cv2.max(parts[2], parts[3]))


def _equally_sharp(pair: Registered) -> list[np.ndarray]:
    """Return both images, YCrCb, the sharper one blurred until it has no more fine detail than the other one."""
    details = [_fine_detail(gray, pair.core_mask) for gray in pair.grays]
    sharper = 0 if details[0] > details[1] else 1
    sigma = 0.0
    for more in _SIGMAS:
        if _fine_detail(cv2.GaussianBlur(pair.grays[sharper], (0, 0), more), pair.core_mask) < min(details):
            break
        sigma = more
    images = list(pair.colors)
    if sigma:
        blurred = cv2.GaussianBlur((pair.query, pair.candidate)[sharper], (0, 0), sigma)
        images[sharper] = cv2.cvtColor(blurred, cv2.COLOR_RGB2YCrCb)
    return images


def _fine_detail(gray: np.ndarray, mask: np.ndarray | None) -> float:
    """Return the energy of the Laplacian, relative to the variance of the levels, in a mask or everywhere."""
    count = gray.size if mask is None else cv2.countNonZero(mask)
    energy = cv2.norm(cv2.Laplacian(gray, cv2.CV_16S), cv2.NORM_L2SQR, mask) / max(1, count)
    return energy / max(1.0, float(cv2.meanStdDev(gray, mask=mask)[1][0, 0]) ** 2)


def _judged(changes: Sequence[Change], is_drawing: bool, shared_outlines: float) -> Differences:
    """Return the differences that changes amount to."""
    changed = sum(change.levels for change in changes if change.place.kind != EXCHANGE)
    possible = [change for change in changes if change.place.kind != EXCHANGE and change.may_be_content]
    sides = [[change.levels for change in possible if change.on_query is side] for side in (True, False)]
    on_both = min(map(len, sides)) >= _MIN_ON_BOTH and min(map(sum, sides)) >= _ON_BOTH * max(map(sum, sides))
    content = sum(change.levels for change in possible if is_drawing or on_both or change.place.kind == CONTENT)
    kinds = {EXCHANGE} if any(change.place.kind == EXCHANGE for change in changes) else set()
    if changed:
        least = _CONTENT_OF_DRAWING if is_drawing else _CONTENT
        is_content = content >= least * changed and shared_outlines >= _DEGRADED
        kinds.add(CONTENT if is_content else OVERLAY)
    places = [
        change.place
        if change.place.kind == EXCHANGE
        else dataclasses.replace(change.place, kind=CONTENT if change.may_be_content and CONTENT in kinds else OVERLAY)
        for change in changes
    ]
    on_query = sum(change.levels for change in changes if change.on_query) / max(1, sum(one.levels for one in changes))
    return Differences(tuple(sorted(places, key=lambda place: -place.area)), frozenset(kinds), on_query)


def _shared_outlines(seen: Seen) -> float:
    """Return the share of the strength of all outlines that both images have, 0..1; little of a pixelated one."""
    both, either = (
        level_sum(function(seen.query_edges, seen.candidate_edges), seen.inside) for function in (cv2.min, cv2.max)
    )
    return both / max(1, either)
