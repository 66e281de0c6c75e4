"""Verifies images with transparent pixels, which look like the color that they are laid on.

Such an image has two composites: on the background, by default white, and on a contrasting one, by default black. White
logos on white show nothing, so that all of them would be equal; on black they show what they are.

both transparent    They are copies if they are on both backgrounds. Where both show nothing, the other one decides.
one transparent     Another program may have laid it on any color, so either composite may be a copy of the opaque
                    image. The reason names the color.

A composite that shows nothing is no evidence: neither that two transparent images are copies, nor that a blank page is
a copy of white logos. Images that show nothing on both backgrounds, such as fully transparent ones, are copies of no
other image.
"""

from __future__ import annotations

import dataclasses

from simimg.similarity.fingerprint import Fingerprint
from simimg.similarity.match_verification import Verification, verify
from tfrecords.convert.image.decoder import shows_nothing


def verify_composites(query: Fingerprint, candidate: Fingerprint) -> Verification | None:
    """Return the same as `verify`, for images that may have transparent pixels, on the same backgrounds; see above."""
    if query.on_contrast is None and candidate.on_contrast is None:
        return verify(query, candidate)
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


def _verify_flattened(query: Fingerprint, candidate: Fingerprint) -> Verification | None:
    """Return the best verification of an opaque image and either composite of a transparent one."""
    best = None
    transparent = candidate if query.on_contrast is None else query
    for composite in (transparent, transparent.on_contrast):
        if composite is None or shows_nothing(composite.thumbnail):
            continue
        if transparent is candidate:
            found, reason = verify(query, composite), f"laid on {composite.laid_on}"
        else:
            found, reason = verify(composite, candidate), f"transparent instead of {composite.laid_on}"
        if found is not None and (best is None or found.similarity > best.similarity):
            best = dataclasses.replace(found, reasons=(reason, *found.reasons))
    return best
