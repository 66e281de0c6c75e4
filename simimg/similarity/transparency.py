"""Verifies images with transparent pixels, which look like the color that they are laid on.

Such an image has two composites: on the background, by default white, and on a contrasting one, by default black. White
logos on white show nothing, so that all of them would be equal; on black they show what they are.

both transparent    They are copies if they are on both backgrounds. Where both show nothing, the other one decides.
one transparent     Another program may have laid it on any color, so either composite may be a copy of the opaque
                    image, or one on the color of the opaque image's border. The reason names the color.

A composite that shows nothing is no evidence: neither that two transparent images are copies, nor that a blank page is
a copy of white logos. Images that show nothing on both backgrounds, such as fully transparent ones, are copies of no
other image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageColor

from simimg.similarity.edits import BACKGROUND
from simimg.similarity.fingerprint import Fingerprint, fingerprint
from simimg.similarity.match_verification import Verification, verify
from tfrecords.convert.image.color import color_name
from tfrecords.convert.image.decoder import shows_nothing

# Beginnings of reasons; the color follows, as `--background` takes it.
LAID_ON, TRANSPARENT = "laid on ", "transparent instead of "

_SAME_COLOR = 8  # levels by which pixels of one color differ in a JPEG, at most
_ONE_COLOR = 0.8  # share of a border


def verify_composites(query: Fingerprint, candidate: Fingerprint, *, thorough: bool = True) -> Verification | None:
    """Return the same as `verify`, for images that may have transparent pixels, on the same backgrounds; see above."""
    if query.on_contrast is None and candidate.on_contrast is None:
        return verify(query, candidate, thorough=thorough)
    if query.on_contrast is None or candidate.on_contrast is None:
        return _verify_flattened(query, candidate)
    found = []
    for ours, theirs in ((query, candidate), (query.on_contrast, candidate.on_contrast)):
        if shows_nothing(ours.thumbnail) and shows_nothing(theirs.thumbnail):
            continue
        if (one := verify(ours, theirs)) is None:
            return None
        found.append(one)
    return min(found, key=lambda one: one.similarity, default=None)


def background_of(found: Verification) -> tuple[int, int, int] | None:
    """Return the color on which a transparent image is a copy of an opaque one; None for other copies."""
    for reason in found.reasons[:1]:
        for begin in (LAID_ON, TRANSPARENT):
            if reason.startswith(begin):
                red, green, blue, *_ = ImageColor.getrgb(reason.removeprefix(begin))
                return red, green, blue
    return None


def laid_on(composites: Sequence[np.ndarray], colors: ArrayLike, color: ArrayLike) -> np.ndarray:
    """Return a transparent image on a color, uint8 `[h, w, 3]`, given two composites of it, on two other colors."""
    one, other = (composite.astype(np.float32) for composite in composites)
    first, second = np.asarray(colors, np.float32)
    # What is seen of the background, measured in the channel in which the two backgrounds differ most.
    channel = int(np.abs(first - second).argmax())
    seen = (one - other)[..., channel, None] / (first - second)[channel]
    return np.rint(np.clip(one + seen * (np.asarray(color, np.float32) - first), 0, 255)).astype(np.uint8)


def _verify_flattened(query: Fingerprint, candidate: Fingerprint) -> Verification | None:
    """Return the verification of an opaque image and the first composite of a transparent one that is a copy."""
    opaque, transparent = (query, candidate) if query.on_contrast is None else (candidate, query)
    for composite in _composites(transparent, opaque):
        if shows_nothing(composite.thumbnail):
            continue
        ways = [LAID_ON + composite.laid_on, TRANSPARENT + composite.laid_on]
        if transparent is candidate:
            found = verify(query, composite)
        else:
            found = verify(composite, candidate)
            ways.reverse()
        if found is not None:
            return dataclasses.replace(
                found,
                reasons=(ways[0], *found.reasons),
                reversed_reasons=(ways[1], *found.reversed_reasons),
                edits=found.edits | {BACKGROUND},
                reversed_edits=found.reversed_edits | {BACKGROUND},
            )
    return None


def _composites(transparent: Fingerprint, opaque: Fingerprint) -> Iterator[Fingerprint]:
    """Yield composites of a transparent image, first those on a color like that of the opaque image's border."""
    assert transparent.on_contrast is not None
    known = (transparent, transparent.on_contrast)
    sides = opaque.thumbnail[[0, -1]].reshape(-1, 3), opaque.thumbnail[:, [0, -1]].reshape(-1, 3)
    border = np.concatenate(sides).astype(np.float32)
    color = np.rint(np.median(border, axis=0))
    colors = np.array([ImageColor.getrgb(one.laid_on) for one in known], np.float32)
    distances = np.abs(colors - color).max(axis=1)
    if distances.min() > _SAME_COLOR and (np.abs(border - color) <= _SAME_COLOR).all(axis=1).mean() >= _ONE_COLOR:
        pixels = laid_on([composite.thumbnail for composite in known], colors, color)
        name = color_name((int(color[0]), int(color[1]), int(color[2])))
        yield dataclasses.replace(fingerprint(Image.fromarray(pixels)), size=transparent.size, laid_on=name)
    yield from (known[place] for place in np.argsort(distances, kind="stable").tolist())
