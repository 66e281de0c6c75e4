"""Marks where a copy differs from its original, once a verification has found how the copy lies in the original.

The original is brought into the frame of the copy, its colors are fitted to those of the copy, and what still differs
is outlined: text, logos, borders, covered parts. Colors, compression and a slight blur change the whole image, so they
are not outlined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

_WORK_PX = 256  # longest side of the images that are compared
_BLUR_PX = 2.5  # at that size: hides noise of JPEG, and an alignment that is off by a pixel or two
_CHANGED = 26.0  # levels of 255, mean over the channels
_MOST_CHANGED = 0.6  # share of the copy; more means that the fit failed
_FIT_ROUNDS, _FIT_KEPT = 4, 0.7  # a least-squares fit to the pixels that fit best, repeated
_COLOR = (255, 90, 31)


def mark_changes(copy: Image.Image, original: Image.Image, place: Sequence[float]) -> Image.Image:
    """Returns the copy with an outline around each place that differs from the original; both have mode RGB.

    `place` is how the copy lies in the original, as `Verification.place`: the affine map `(a, b, c, d, e, f)` from the
    unit square of the copy to that of the original.
    """
    small, whole = (_shrunk(image) for image in (copy, original))
    a, b, c, d, e, f = place
    (width, height), (own_width, own_height) = whole.size, small.size
    matrix = (
        width * a / own_width, width * b / own_height, width * c,
        height * d / own_width, height * e / own_height, height * f,
    )  # fmt: skip
    warped = whole.transform(small.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    there = Image.new("L", whole.size, 255).transform(small.size, Image.Transform.AFFINE, matrix)
    inside = np.asarray(there) > 0
    # A border, or what the image was pasted into; thin strips are from rounding.
    changed = _opened(~inside, 9)
    if inside.mean() > 0.05:
        ours, theirs = (
            np.asarray(image.filter(ImageFilter.GaussianBlur(_BLUR_PX)), np.float64) for image in (small, warped)
        )
        difference = np.abs(ours - _fitted(theirs, ours, inside)).mean(axis=2)
        changed |= _opened(inside & (difference > _CHANGED), 5)
    mask = Image.fromarray(changed.astype(np.uint8) * 255)
    mask = mask.filter(ImageFilter.MaxFilter(13)).filter(ImageFilter.MinFilter(5))  # neighbors joined, with some room
    if not mask.getbbox() or np.asarray(mask).mean() > 255 * _MOST_CHANGED:
        return copy
    mask = mask.resize(copy.size, Image.Resampling.BICUBIC).point(lambda level: 255 * (level > 127))
    outline = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(5)))
    marked = copy.copy()
    marked.paste((20, 20, 22), mask=outline.filter(ImageFilter.MaxFilter(3)))  # visible on bright orange, too
    marked.paste(_COLOR, mask=outline)
    return marked


def mark_part(original: Image.Image, place: Sequence[float]) -> Image.Image:
    """Returns the original, mode RGB, with an outline around the part that a copy shows, unless that is nearly all."""
    a, b, c, d, e, f = place
    if abs(a * e - b * d) > 0.97:  # the area of the part
        return original
    corners = [(a * x + b * y + c, d * x + e * y + f) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0))]
    points = [(x * (original.width - 1), y * (original.height - 1)) for x, y in corners]
    marked = original.copy()
    for color, width in (((20, 20, 22), 5), (_COLOR, 3)):
        ImageDraw.Draw(marked).line(points, color, width, joint="curve")
    return marked


def _opened(mask: np.ndarray, size: int) -> np.ndarray:
    """The parts of a mask, bool `[h, w]`, that a square of `size` px fits into; `size` is odd."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.MinFilter(size)).filter(ImageFilter.MaxFilter(size))) > 0


def _shrunk(image: Image.Image) -> Image.Image:
    scale = min(1.0, _WORK_PX / max(image.size))
    return image.resize([max(2, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def _fitted(theirs: np.ndarray, ours: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The colors of `theirs`, float64 `[h, w, 3]`, under the affine map of RGB that makes them most like `ours`."""
    inputs = np.concatenate([theirs, np.ones((*inside.shape, 1))], axis=2)
    rows, goals = inputs[inside], ours[inside]
    kept = np.ones(len(rows), bool)
    for _ in range(_FIT_ROUNDS):
        solution = np.linalg.lstsq(rows[kept], goals[kept], rcond=None)[0]
        errors = np.abs(rows @ solution - goals).mean(axis=1)
        kept = errors <= np.quantile(errors, _FIT_KEPT)
    return inputs @ solution
