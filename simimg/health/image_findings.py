"""Findings about single images: what their measures say, alone and beside those of the other images.

The thresholds were chosen on 2,387 photos of Caltech 101 and edited copies of them; docs/audit.md has the figures. Each
score is 0.5 at the threshold and 1 at the clearest case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simimg.health.finding import OF_IMAGES, Finding
from simimg.health.image_measures import ImageMeasures
from simimg.similarity.image_table import IndexedImage

_SHARP, _BLURRED = 0.3, 0.15  # steepness; photos: 1 % are below 0.32; blurred by 1.5 px: 5 % are above 0.27
_DARK = 110  # gray level of the 99th percentile; photos: 1 % are below 148
_LIGHT = 170  # gray level that 0.1 % reach in a night sky with a moon, or a small logo on black
_BRIGHT_LOW, _BRIGHT_DARKEST = 190, 90  # gray levels of the percentiles 5 and 0.5; a drawing on white has dark lines
_PLAIN_CONTRAST, _PLAIN_DETAIL = 12, 0.02
_ALL_LEVELS = 16  # black or white, as far as that can be told
_FILLED = 0.1  # share of blocks
_BORDER, _ALL_BORDER = 0.2, 0.75  # share of the area
_TEXT = 0.25
_GRAY, _MOSTLY_COLOR = 1.0, 0.75  # levels between channels, and the share of images in color among which gray is odd
_FENCE = 3.0  # interquartile ranges beyond the quartiles (Tukey's "far out")
_LEAST_RANGE = 0.35  # of the logarithm: images of one size are not odd because of a few pixels
_MIN_IMAGES = 10  # fewer have no usual size


def find_bad_images(images: Sequence[IndexedImage], measures: Sequence[ImageMeasures | None]) -> list[Finding]:
    """Return findings of `OF_IMAGES` about images; measures are None for images that could not be read."""
    known = [(image, measured) for image, measured in zip(images, measures, strict=True) if measured is not None]
    odd = _odd([measured for _, measured in known])
    findings = []
    for (image, measured), more in zip(known, odd, strict=True):
        for kind, (score, reason) in (_alone(measured) | more).items():
            findings.append(
                Finding(
                    kind=kind,
                    path=image.path,
                    score=round(min(1.0, score), 4),
                    reason=reason,
                    suggestion="drop" if kind in ("blurred", "dark", "bright", "plain") else "look",
                    label=image.label,
                    split=image.split,
                )
            )
    assert {one.kind for one in findings} <= set(OF_IMAGES)
    return findings


def _alone(one: ImageMeasures) -> dict[str, tuple[float, str]]:
    """Return the score and the reason of each kind that the image itself shows."""
    found: dict[str, tuple[float, str]] = {}
    if one.contrast <= _PLAIN_CONTRAST:
        found["plain"] = _between(one.contrast, _PLAIN_CONTRAST, 0), f"its levels differ by {one.contrast} of 255"
    elif one.detail <= _PLAIN_DETAIL:
        found["plain"] = _between(one.detail, _PLAIN_DETAIL, 0), "nothing in it has an outline"
    elif one.filled < _FILLED:
        found["low_information"] = _between(one.filled, _FILLED, 0), f"{1 - one.filled:.0%} of it are empty"
    if one.high < _DARK and one.lightest < _LIGHT and not _is_flat(one, one.high, "plain" in found):
        found["dark"] = 1 - 0.5 * one.high / _DARK, f"99% of it are darker than level {one.high} of 255"
    if one.low >= _BRIGHT_LOW and one.darkest >= _BRIGHT_DARKEST and not _is_flat(one, 255 - one.low, "plain" in found):
        found["bright"] = _between(one.low, _BRIGHT_LOW, 255), f"95% of it are lighter than level {one.low} of 255"
    if one.sharpness < _SHARP and "plain" not in found:
        width = 1 / max(one.sharpness, 1e-3)
        found["blurred"] = _between(one.sharpness, _SHARP, _BLURRED), f"its sharpest edges are {width:.0f} px wide"
    if one.border >= _BORDER:
        found["bordered"] = _between(one.border, _BORDER, _ALL_BORDER), f"{one.border:.0%} of it are border"
    if one.text >= _TEXT:
        found["text"] = _between(one.text, _TEXT, 0.75), f"lines of text cover {one.text:.0%} of it"
    return found


def _is_flat(one: ImageMeasures, levels: int, is_plain: bool) -> bool:
    """Whether a plain image has a dark or light color of its own. A photo that is too dark uses the levels it has."""
    return is_plain and levels > _ALL_LEVELS and (one.contrast < 0.5 * levels or one.sharpness != one.sharpness)


def _odd(measures: Sequence[ImageMeasures]) -> list[dict[str, tuple[float, str]]]:
    """Return the score and the reason of each kind that shows beside the other images."""
    found: list[dict[str, tuple[float, str]]] = [{} for _ in measures]
    if len(measures) < _MIN_IMAGES:
        return found
    gray = np.array([one.colorfulness < _GRAY for one in measures])
    if gray.mean() <= 1 - _MOSTLY_COLOR:
        for row in np.flatnonzero(gray).tolist():
            found[row]["grayscale"] = 1.0, f"gray, as {gray.mean():.1%} of the images"
    pixels = np.log([one.width * one.height for one in measures]) / 2
    shapes = np.log([one.width / one.height for one in measures])
    size = f"{np.exp(np.median(pixels)):,.0f} px"
    for kind, values, told in (
        ("odd_size", pixels, lambda one: f"{one.width} x {one.height} px, while a side has {size} at the median"),
        ("odd_shape", shapes, lambda one: f"{one.width} x {one.height} px, an unusual shape"),
    ):
        for row, score in _far_out(values).items():
            tell: Callable[[ImageMeasures], str] = told
            found[row][kind] = score, tell(measures[row])
    return found


def _far_out(values: np.ndarray) -> dict[int, float]:
    """Return the scores of the values beyond Tukey's outer fences, by row."""
    low, high = np.percentile(values, (25, 75))
    reach = _FENCE * max(high - low, _LEAST_RANGE)
    beyond = np.maximum(low - values, values - high) / reach
    return {int(row): 1 - 0.5 / float(beyond[row]) for row in np.flatnonzero(beyond > 1)}


def _between(value: float, threshold: float, clearest: float) -> float:
    return 0.5 + 0.5 * min(1.0, (value - threshold) / (clearest - threshold))
