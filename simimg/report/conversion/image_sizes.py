"""The sizes and shapes of the originals, and how the conversion to squares of one size changes them."""

from __future__ import annotations

import numpy as np

from simimg.report.chart_elements import Element, svg, text
from simimg.report.number_format import count_of, percent
from simimg.report.report_sections import facts
from tfrecords.format.image_size import ImageSize, width_height
from tfrecords.format.record_layout import OWN_SHAPES

_BINS = 40  # per side
_SIDE = 380  # of the plot, in px
_LEFT, _TOP, _BOTTOM, _RIGHT = 52, 10, 44, 14
_FONT = 12
# The chart includes the stored size if it is at most this factor outside the originals. Beyond, most would be empty.
_NEAR = 3.0
_RATIOS = (1.25, 1.5, 2.0)  # longer side over shorter; those of 5:4, 3:2 and 2:1
_SHAPES = (
    ("taller than 1:2", 0.4, 1.0), ("1:2 to 2:3", 0.57, 1.0), ("2:3 to 4:5", 0.72, 1.0), ("about square", 0.9, 0.9),
    ("5:4 to 3:2", 1.0, 0.72), ("3:2 to 2:1", 1.0, 0.57), ("wider than 2:1", 1.0, 0.4),
)  # fmt: skip
_DOES = {
    "stretch": "Each image is stretched to a square, which changes the proportions of those that were not square.",
    "crop": "Only the middle of an image that is not square is stored.",
    "pad": "An image that is not square gets background on two sides.",
    **dict.fromkeys(OWN_SHAPES, "Each image keeps its shape."),
}


def original_sizes(widths: np.ndarray, heights: np.ndarray, image_size: ImageSize, resize: str) -> str:
    """Returns the sizes of the originals as HTML: figures, a map of width by height, and shapes.

    Widths and heights, int [n] in px with n > 0, are those of the originals that became examples. They were stored as
    squares of `image_size` px by the option --resize, or in their own shapes.
    """
    width, height = width_height(image_size)
    shares = np.stack((widths / (width or 1), heights / (height or 1)))  # 0 px: images are not resized
    # `pad` and `longest` fit the whole image in; the others fill the stored size, so both sides have to be long enough.
    decisive = shares.max(axis=0) if resize in ("pad", "longest") else shares.min(axis=0)
    num, enlarged = len(widths), int((decisive < 1).sum())
    pixels = widths.astype(np.int64) * heights
    least, most = int(pixels.argmin()), int(pixels.argmax())
    small = f"smaller than {image_size} px, so {'not reduced' if resize in OWN_SHAPES else 'enlarged'}"
    if widths.min() == widths.max() and heights.min() == heights.max():
        alike = f"All {num:,} originals are" if num > 1 else "The one original is"
        return f"<p>{alike} {widths[0]:,} × {heights[0]:,} px{f', {small}' if enlarged else ''}.</p>"
    figures = {
        "median": f"{np.median(widths):,.0f} × {np.median(heights):,.0f} px",
        "smallest": f"{widths[least]:,} × {heights[least]:,} px",
        "largest": f"{widths[most]:,} × {heights[most]:,} px",
        **({small: f"{enlarged:,} ({percent(enlarged / num)})" if enlarged else "none"} if image_size else {}),
    }
    chart = (
        '<div><h3>Width by height</h3><p class="quiet">Deeper blue means more images. Squares lie on the line.</p>'
        f"{_map(widths, heights, image_size)}</div>"
    )
    does = f'<p class="quiet">{_DOES[resize]}</p>' if resize in _DOES else ""
    shapes = f"<div><h3>Shapes</h3>{does}{_shapes(widths, heights)}</div>"
    return f'{facts(figures)}<div class="originals">{chart}{shapes}</div>'


def _shapes(widths: np.ndarray, heights: np.ndarray) -> str:
    ratio = np.maximum(widths, heights) / np.minimum(widths, heights)
    # A ratio of exactly 5:4 counts as landscape; 3:2 and 2:1 belong to the range that they end.
    step = (ratio >= _RATIOS[0]).astype(int) + (ratio > _RATIOS[1]) + (ratio > _RATIOS[2])
    middle = len(_RATIOS)
    counts = np.bincount(middle + np.where(heights > widths, -step, step), minlength=2 * middle + 1)
    rows = []
    for (name, wide, high), count in zip(_SHAPES, counts.tolist(), strict=True):
        box = f'<i style="width:{20 * wide:.0f}px;height:{20 * high:.0f}px"></i>'
        line = f'<i class="split0" style="width:{100 * count / counts.max():.2f}%"></i>' if count else ""
        share = f'<span class="bar" aria-hidden="true">{line}</span>'
        rows.append(
            f'<tr><th><span class="shape" aria-hidden="true">{box}</span>{name}</th><td>{share}</td>'
            f'<td class="num{"" if count else " none"}">{count:,}</td></tr>'
        )
    return f'<table class="shape-counts"><tbody>{"".join(rows)}</tbody></table>'


def _map(widths: np.ndarray, heights: np.ndarray, image_size: ImageSize) -> str:
    """A map of the number of originals by width and height, both on the same logarithmic scale."""
    low, high = (float(pick(pick(widths), pick(heights))) for pick in (min, max))
    across, down = width_height(image_size)
    if low / _NEAR <= min(across, down) and max(across, down) <= high * _NEAR:
        low, high = min(low, across, down), max(high, across, down)
    low, high = low * 0.93, high * 1.07
    if high < 2 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 2**0.5, middle * 2**0.5
    edges = np.geomspace(low, high, _BINS + 1)
    counts = np.histogram2d(heights, widths, (edges, edges))[0].astype(int)
    cell, deepest = _SIDE / _BINS, np.log1p(counts.max())

    def at(px: float) -> float:
        return float(np.log(px / low) / np.log(high / low)) * _SIDE

    bottom, right = _TOP + _SIDE, _LEFT + _SIDE
    elements = [
        Element("rect", "cells", {"x": _LEFT, "y": _TOP, "width": _SIDE, "height": _SIDE}),
        Element("path", "square", strokes=[[(_LEFT, bottom), (right, _TOP)]]),
    ]
    for row, column in zip(*np.nonzero(counts), strict=True):
        depth = 0.18 + 0.82 * float(np.log1p(counts[row, column]) / deepest)
        place = {"x": _LEFT + cell * float(column), "y": bottom - cell * float(row + 1), "width": cell, "height": cell}
        title = f"{_span(edges, column)} × {_span(edges, row)} px: {count_of(counts[row, column], 'image', 'images')}"
        elements.append(Element("rect", "right", {**place, "fill-opacity": depth}, title=title))
    for px in _round_sizes(low, high):
        x, y = _LEFT + at(px), bottom - at(px)
        elements += [
            Element("path", "grid", strokes=[[(x, bottom), (x, bottom + 5)], [(_LEFT, y), (_LEFT - 5, y)]]),
            text("tick", x, bottom + 18, f"{px:,}", "middle"),
            text("tick", _LEFT - 9, y + 4, f"{px:,}", "end"),
        ]
    if low < min(across, down) and max(across, down) < high:
        x, y = _LEFT + at(across), bottom - at(down)
        left = at(across) > _SIDE * 0.7
        elements += [
            Element("path", "stored", strokes=[[(x, _TOP), (x, bottom)], [(_LEFT, y), (right, y)]]),
            text("stored", x + (-6 if left else 6), _TOP + 15, f"stored: {image_size} px", "end" if left else "start"),
        ]
    elements.append(text("tick", _LEFT + _SIDE / 2, bottom + 38, "width, px", "middle"))
    elements.append(text("tick", 12, _TOP + _SIDE / 2, "height, px", "middle", turn=-90))
    label = f"{len(widths):,} originals by width and height, in px"
    return svg(elements, "sizes", right + _RIGHT, bottom + _BOTTOM, label, font=_FONT)


def _span(edges: np.ndarray, number: int) -> str:
    """The range of px of a bin, as whole numbers."""
    first, last = int(np.ceil(edges[number])), int(np.ceil(edges[number + 1])) - 1
    return f"{first:,}" if first >= last else f"{first:,}–{last:,}"


def _round_sizes(low: float, high: float) -> list[int]:
    """Round sizes within the range for an axis: 100, 200, 500, 1,000, or in a short range 250, 300, 350."""
    decades = [factor * 10**power for power in range(8) for factor in (1, 2, 5)]
    inside = [px for px in decades if low <= px <= high]
    if len(inside) >= 3:
        return inside
    step = next(step for step in reversed(decades) if step == 1 or (high - low) / step >= 3)
    return list(range(int(np.ceil(low / step)) * step, int(high) + 1, step))
