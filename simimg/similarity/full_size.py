"""Images at the size at which copies are compared, and verifications with what differs there."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

import numpy as np
from PIL import Image

from simimg.similarity.affine import inverse
from simimg.similarity.common_frame import common_part
from simimg.similarity.copy_reasons import Reasons, add_geometry, exact_limits, is_coverage
from simimg.similarity.differences import Differences, find_differences
from simimg.similarity.edits import BLUR, COLOR, CONTENT, CROP, EDITS, EXCHANGE, MIRROR, OVERLAY, PASTE, STRETCH, TURN
from simimg.similarity.match_verification import SAME_PIXELS, Verification
from simimg.similarity.reduced_image import reduced_pixels
from simimg.similarity.transparency import background_of, laid_on
from tfrecords.convert.image.color import WHITE, contrasting

Color = tuple[int, int, int]
_GEOMETRY = frozenset({CROP, MIRROR, PASTE, STRETCH, TURN})


@dataclasses.dataclass(frozen=True, slots=True)
class FullImage:
    """An image whose longer side has at most `MOST_PX`.

    Attributes:
        pixels: uint8 `[h, w, 3]`, sRGB, upright, on `background`.
        contrast: the same on the contrasting background; None if the image is opaque.
        jpeg_quality: 1..100; None for other formats.
    """

    pixels: np.ndarray
    contrast: np.ndarray | None = None
    background: Color = WHITE
    jpeg_quality: int | None = None

    def on(self, color: Color) -> np.ndarray:
        """Return the image on another background."""
        if self.contrast is None:
            return self.pixels
        return laid_on((self.pixels, self.contrast), (self.background, contrasting(self.background)), color)


def full_image(
    image: Image.Image, contrast: Image.Image | None = None, background: Color = WHITE, quality: int | None = None
) -> FullImage:
    """Return an image, mode RGB, upright, at the size at which copies are compared; see `FullImage`."""
    pixels, laid = (None if one is None else reduced_pixels(one) for one in (image, contrast))
    assert pixels is not None
    return FullImage(pixels, laid, background, quality)


def compared(
    found: Verification, query: FullImage, candidate: FullImage, within: Set[str] = frozenset(EDITS)
) -> Verification:
    """Return a verification with what differs at full size, which is added to its reasons and edits.

    Where content or a color was exchanged, the similarity is lower by the share of the area. As in `verify`, the
    smaller image counts as the query. For `within`, see `find_differences`.
    """
    if SAME_PIXELS in found.reasons:
        return found
    if _is_swapped(query.pixels, candidate.pixels):
        return compared(found.reversed(), candidate, query, within).reversed()
    color, qualities = background_of(found), (query.jpeg_quality, candidate.jpeg_quality)
    ours, theirs = (image.pixels if color is None else image.on(color) for image in (query, candidate))
    differs = find_differences(ours, theirs, found.place, qualities, within)
    if not differs.places and query.contrast is not None and candidate.contrast is not None:
        known = differs.kinds
        differs = find_differences(query.contrast, candidate.contrast, found.place, qualities, within)
        differs = dataclasses.replace(differs, kinds=differs.kinds | known)
    more = []
    if EXCHANGE in differs.kinds:
        more.append(f"other colors in {differs.area:.0%} of the area")
    if COLOR in differs.kinds and COLOR not in found.edits:
        more.append("recoloured")
    if differs.kinds - {EXCHANGE, BLUR, COLOR}:
        more.append(differs.text)
    if BLUR in differs.kinds and BLUR not in found.edits:
        more.append("of another sharpness")
    lost = differs.area if differs.kinds & {EXCHANGE, CONTENT} else 0.0
    similarity = 0.5 + (found.similarity - 0.5) * (1 - lost)
    found, (geometry, undone) = _without_coverage(found), _exact_geometry(found, differs, ours, theirs)
    edits, back = (differs.kinds | reasons.edits for reasons in (geometry, undone))
    differs = dataclasses.replace(differs, kinds=edits | back)
    return dataclasses.replace(
        found,
        similarity=similarity,
        reasons=(*found.reasons, *geometry.texts, *more),
        reversed_reasons=(*found.reversed_reasons, *undone.texts, *more),
        edits=found.edits | edits,
        reversed_edits=found.reversed_edits | back,
        differs=differs,
    )


def _exact_geometry(
    found: Verification, differs: Differences, query: np.ndarray, candidate: np.ndarray
) -> tuple[Reasons, Reasons]:
    """Return small crops, turns and stretches, which only pixels show, and what undoes them."""
    reasons, undone = Reasons(), Reasons()
    common = None if differs.place is None else common_part(np.reshape(differs.place, (2, 3)))
    if differs.place is None or common is None:
        return reasons, undone
    place, (_, of_candidate, of_query) = np.reshape(differs.place, (2, 3)), common
    size, other = ((image.shape[1], image.shape[0]) for image in (query, candidate))
    limits = exact_limits(size, other)
    if not found.edits & _GEOMETRY:
        add_geometry(reasons, size, other, place, False, of_candidate, of_query, limits)
    if not found.reversed_edits & _GEOMETRY:
        add_geometry(undone, other, size, inverse(place), False, of_query, of_candidate, limits)
    return reasons, undone


def _is_swapped(query: np.ndarray, candidate: np.ndarray) -> bool:
    ours, theirs = (query.size, query.shape), (candidate.size, candidate.shape)
    return ours > theirs or (ours == theirs and query.tobytes() > candidate.tobytes())


def alike(found: Verification) -> Verification:
    """Return a verification of two images of which it is known that nothing differs at full size."""
    return dataclasses.replace(_without_coverage(found), differs=Differences())


def _without_coverage(found: Verification) -> Verification:
    """Return a verification without what the thumbnails showed as covered: it is shown better at full size."""
    reasons, back = (
        tuple(reason for reason in side if not is_coverage(reason)) for side in (found.reasons, found.reversed_reasons)
    )
    edits, reversed_edits = found.edits - {OVERLAY}, found.reversed_edits - {OVERLAY}
    return dataclasses.replace(
        found, reasons=reasons, reversed_reasons=back, edits=edits, reversed_edits=reversed_edits
    )
