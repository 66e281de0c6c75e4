"""What is measured of an image: brightness, sharpness, detail, border, text and color, on its upright 8-bit RGB pixels.

Images are reduced to at most 512 px first, so that a photo of 24 megapixels is judged as it is seen on a screen, and
measuring takes 0.5 ms for a photo of 300 x 200. All measures are of the image alone; what is odd in a collection is
decided in `simimg.health.image_findings`.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from tfrecords.convert.image.jpeg import resize_pixels

MEASURED_PX = 512
"""The longer side at which images are measured; smaller ones are not enlarged."""

_COARSE_PX = 64
_LEAST_PX = 16  # of a side; smaller images have no edges, borders or lines that could be told
_WINDOW = 9  # px in which the contrast of an edge is measured; the edges of a blur of 2 px are that wide
_CONTRAST = 40  # gray levels; weaker edges are judged only where there are few strong ones
_LEAST_CONTRAST, _NUM_EDGES = 12, 100
_SHARPEST = 0.9  # quantile of the edges: of a portrait, the sharp tenth counts and not the background
_BLOCK = 8  # px
_DETAIL = 16  # gray levels between the darkest and the lightest pixel of a block
_SAME = 12  # levels by which the pixels of a border may differ: JPEG's noise
_EVEN = 0.99  # share of the pixels of a row or column of a border that have its color
_PICTURE = 0.2  # share of blocks with an outline in what has a border; photos: 1 % are below 0.23
_PAPER = 8  # levels to either side of the most frequent one that are the same paper
_INK = 64  # gray levels between text and its background
_MAX_GLYPH, _MIN_GLYPH = 40, 3  # px


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeasures:
    """Measures of an image.

    Attributes:
        width: px, of the whole upright image.
        height: px.
        darkest: gray level, 0..255, below which half a percent of the pixels are.
        low: gray level of the fifth percentile.
        middle: of the median.
        high: of the 99th percentile.
        lightest: gray level above which a tenth of a percent of the pixels are.
        contrast: levels between the first and the last percentile, of the channel where that is most, of an image that
            was reduced to about 64 px, which averages noise out.
        sharpness: how steep edges are, 0..1, in the direction in which they are less steep: the largest difference of
            two adjacent pixels relative to the contrast within 9 px. 1 is a step, 0.11 an even slope; NaN: no edges.
        detail: share of blocks of 8 x 8 px with an outline in them.
        filled: share of blocks that have one, or another level than most of the image.
        border: share of the image, 0..1, that is an even border around a rectangle.
        text: share of the image's area that is covered by lines of glyphs on an even background, 0..1.
        colorfulness: mean difference of the channels of a pixel, in levels.
    """

    width: int
    height: int
    darkest: int
    low: int
    middle: int
    high: int
    lightest: int
    contrast: int
    sharpness: float
    detail: float
    filled: float
    border: float
    text: float
    colorfulness: float


def measure(pixels: np.ndarray, width: int = 0, height: int = 0) -> ImageMeasures:
    """Return the measures of an upright image, uint8 `[h, w, 3]`; `width` and `height` are those of the whole image."""
    width, height = width or pixels.shape[1], height or pixels.shape[0]
    pixels = _reduced(pixels)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    is_small = min(gray.shape) < _LEAST_PX
    counts = _histogram(gray[::2])
    cumulated = np.cumsum(counts) / counts.sum()
    darkest, low, middle, high, lightest = np.searchsorted(cumulated, (0.005, 0.05, 0.5, 0.99, 0.999)).tolist()
    near = np.convolve(counts, np.ones(2 * _PAPER + 1), "same")
    paper = int(near.argmax())
    detail, filled = _detail(gray, paper)
    has_paper = near[paper] >= 0.5 * counts.sum()
    return ImageMeasures(
        width=width,
        height=height,
        darkest=darkest,
        low=low,
        middle=middle,
        high=high,
        lightest=lightest,
        contrast=_contrast(pixels),
        sharpness=float("nan") if is_small else _sharpness(gray),
        detail=detail,
        filled=filled,
        border=0.0 if is_small else _border(pixels, gray, paper),
        text=_text(gray, paper) if has_paper and not is_small else 0.0,
        colorfulness=_colorfulness(pixels),
    )


def _reduced(pixels: np.ndarray) -> np.ndarray:
    by = MEASURED_PX / max(pixels.shape[:2])
    pixels = np.ascontiguousarray(pixels)
    if by >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * by)), max(1, round(pixels.shape[0] * by)))
    return resize_pixels(pixels, size, (0, 0, pixels.shape[1], pixels.shape[0]))


def _contrast(pixels: np.ndarray) -> int:
    by = max(1, max(pixels.shape[:2]) // _COARSE_PX)
    height, width = (side // by for side in pixels.shape[:2])
    if height and width:  # whole blocks: OpenCV averages them four times as fast as parts of pixels
        pixels = cv2.resize(pixels[: height * by, : width * by], (width, height), interpolation=cv2.INTER_AREA)
    most = 0
    for channel in cv2.split(pixels):
        cumulated = np.cumsum(_histogram(channel))
        ends = np.searchsorted(cumulated / cumulated[-1], (0.01, 0.99))
        most = max(most, int(ends[1] - ends[0]))
    return most


def _histogram(channel: np.ndarray) -> np.ndarray:
    return cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel()


def _sharpness(gray: np.ndarray) -> float:
    """Both directions are measured, because a camera that moves blurs only one; every second row and column will do."""
    steepest = [_steepness(gray[::2]), _steepness(np.ascontiguousarray(gray[:, ::2].T))]
    known = [value for value in steepest if value == value]
    return min(known) if known else float("nan")


def _steepness(gray: np.ndarray) -> float:
    step = cv2.absdiff(gray[:, 1:], gray[:, :-1])
    window = np.ones((1, _WINDOW), np.uint8)
    contrast = cv2.subtract(cv2.dilate(gray, window), cv2.erode(gray, window))[:, 1:]
    for least in (_CONTRAST, _LEAST_CONTRAST):
        strong = cv2.compare(contrast, least, cv2.CMP_GE)
        number = cv2.countNonZero(strong)
        if number >= _NUM_EDGES:
            counts = _histogram(cv2.bitwise_and(cv2.divide(step, contrast, scale=255), strong))
            counts[0] -= strong.size - number  # a histogram with a mask takes three times as long
            cumulated = np.cumsum(counts)
            return float(np.searchsorted(cumulated, _SHARPEST * cumulated[-1])) / 255
    return float("nan")


def _detail(gray: np.ndarray, paper: int) -> tuple[float, float]:
    """Return the share of blocks with outlines, and of those that have outlines or another level than `paper`."""
    height, width = (side - side % _BLOCK for side in gray.shape)
    if not height or not width:
        outlined = float(int(gray.max()) - int(gray.min()) >= _DETAIL)
        return outlined, outlined
    window = np.ones((_BLOCK, _BLOCK), np.uint8)
    centers = np.s_[_BLOCK // 2 : height : _BLOCK, _BLOCK // 2 : width : _BLOCK]
    spread = cv2.subtract(cv2.dilate(gray, window), cv2.erode(gray, window))[centers]
    outlined = spread >= _DETAIL
    other = np.abs(gray[centers].astype(np.int16) - paper) > _DETAIL
    return float(outlined.mean()), float((outlined | other).mean())


def _border(pixels: np.ndarray, gray: np.ndarray, paper: int) -> float:
    """Return the share of the image outside of the rectangle that even rows and columns at the sides leave.

    A thing on an even background has no border: along the sides that were cut, about half of the pixels of the
    rectangle have to differ from the border, and it has to show something, unlike an arrow or a logo.
    """
    height, width = pixels.shape[:2]
    color = np.median(
        np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)]), axis=0
    ).astype(np.int16)
    low, high = (tuple(map(float, color + sign * _SAME)) for sign in (-1, 1))
    same = cv2.inRange(pixels, low, high)
    rows, columns = (
        cv2.reduce(same, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() < 255 * _EVEN * size
        for axis, size in ((1, width), (0, height))
    )
    if not rows.any() or not columns.any():
        return 0.0
    top, bottom = int(rows.argmax()), height - int(rows[::-1].argmax())
    left, right = int(columns.argmax()), width - int(columns[::-1].argmax())
    inner = same[top:bottom, left:right] == 0
    sides = [
        (top, inner[:2].any(axis=0)),
        (height - bottom, inner[-2:].any(axis=0)),
        (left, inner[:, :2].any(axis=1)),
        (width - right, inner[:, -2:].any(axis=1)),
    ]
    cut = [line.mean() for amount, line in sides if amount > 0]
    if len(cut) < 2 or max(cut) < 0.5 or sum(cut) < 0.4 * len(cut):
        return 0.0
    if _detail(gray[top:bottom, left:right], paper)[0] < _PICTURE:
        return 0.0
    return 1 - (bottom - top) * (right - left) / (height * width)


def _text(gray: np.ndarray, paper: int) -> float:
    """Return the share of the area in which glyphs of similar size stand side by side on the level `paper`."""
    ink = cv2.bitwise_not(cv2.inRange(gray, (max(0.0, paper - _INK + 1),), (min(255.0, paper + _INK - 1),)))
    num, _, boxes, _ = cv2.connectedComponentsWithStats(ink, connectivity=8, ltype=cv2.CV_16U)
    boxes = boxes[1:]
    heights, widths = boxes[:, cv2.CC_STAT_HEIGHT], boxes[:, cv2.CC_STAT_WIDTH]
    glyphs = boxes[(heights >= _MIN_GLYPH) & (heights <= _MAX_GLYPH) & (widths <= 6 * heights)]
    if num < 2 or len(glyphs) < 40:
        return 0.0
    covered = glyphs[:, cv2.CC_STAT_AREA].sum() / max(1, cv2.countNonZero(ink))
    if np.subtract(*np.percentile(glyphs[:, cv2.CC_STAT_HEIGHT], (75, 25))) > np.median(glyphs[:, cv2.CC_STAT_HEIGHT]):
        return 0.0
    lines = np.zeros(gray.shape[0], np.int64)
    for _, top, _, height, _ in glyphs.tolist():
        lines[top : top + height] += 1
    gaps = np.count_nonzero(np.diff((lines > 0).astype(np.int8)) == 1)
    if covered < 0.5 or gaps < 3:
        return 0.0
    left, top = glyphs[:, 0].min(), glyphs[:, 1].min()
    right, bottom = (glyphs[:, 0] + glyphs[:, 2]).max(), (glyphs[:, 1] + glyphs[:, 3]).max()
    return float((right - left) * (bottom - top) / gray.size)


def _colorfulness(pixels: np.ndarray) -> float:
    red, green, blue = cv2.split(pixels[::2])
    return float(cv2.mean(cv2.absdiff(red, green))[0] + cv2.mean(cv2.absdiff(green, blue))[0]) / 2
