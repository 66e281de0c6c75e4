"""The sizes and shapes of the originals, and what making squares of one size of them does."""

from __future__ import annotations

import numpy as np

from simimg.report.number_format import count_of, percent

__all__ = ["original_sizes"]

_BINS = 40  # a side
_SIDE = 380  # of the plot, in px
_LEFT, _TOP, _BOTTOM, _RIGHT = 52, 10, 44, 14
_FONT = 12
# How far from the originals the stored size may be and still be on the chart; beyond, the chart would be empty space.
_NEAR = 3.0
_RATIOS = (1.25, 1.5, 2.0)  # longer side over shorter; those of 5:4, 3:2 and 2:1
_SHAPES = (
    ("taller than 1:2", 0.4, 1.0), ("1:2 to 2:3", 0.57, 1.0), ("2:3 to 4:5", 0.72, 1.0), ("about square", 0.9, 0.9),
    ("5:4 to 3:2", 1.0, 0.72), ("3:2 to 2:1", 1.0, 0.57), ("wider than 2:1", 1.0, 0.4),
)  # fmt: skip
_DOES = {
    "stretch": "Each is stretched to a square, so that what is not square changes its proportions.",
    "crop": "Of what is not square, only the middle is stored.",
    "pad": "What is not square has background at two sides.",
}


def original_sizes(widths: np.ndarray, heights: np.ndarray, image_size: int, resize: str) -> str:
    """Returns the sizes of the originals as HTML: figures, a map of width by height, and shapes.

    Args:
        widths: int [n] px, of the originals that became examples, n > 0.
        heights: int [n] px.
        image_size: px, of the squares that are stored.
        resize: how they became squares.
    """
    sides = np.stack((widths, heights))
    # `pad` makes the longer side fit, the others need both sides to be there.
    decisive = sides.max(axis=0) if resize == "pad" else sides.min(axis=0)
    num, enlarged = len(widths), int((decisive < image_size).sum())
    pixels = widths.astype(np.int64) * heights
    least, most = int(pixels.argmin()), int(pixels.argmax())
    small = f"smaller than {image_size} px, so enlarged"
    if widths.min() == widths.max() and heights.min() == heights.max():
        alike = f"All {num:,} originals are" if num > 1 else "The one original is"
        return f"<p>{alike} {widths[0]:,} × {heights[0]:,} px{f', {small}' if enlarged else ''}.</p>"
    facts = [
        ("median", f"{np.median(widths):,.0f} × {np.median(heights):,.0f} px"),
        ("smallest", f"{widths[least]:,} × {heights[least]:,} px"),
        ("largest", f"{widths[most]:,} × {heights[most]:,} px"),
        (small, f"{enlarged:,} ({percent(enlarged / num)})" if enlarged else "none"),
    ]
    figures = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    chart = (
        '<div><h3>Width by height</h3><p class="quiet">The deeper, the more photos. Squares lie on the line.</p>'
        f"{_map(widths, heights, image_size)}</div>"
    )
    does = f'<p class="quiet">{_DOES[resize]}</p>' if resize in _DOES else ""
    shapes = f"<div><h3>Shapes</h3>{does}{_shapes(widths, heights)}</div>"
    return f'<dl class="facts">{figures}</dl><div class="originals">{chart}{shapes}</div>'


def _shapes(widths: np.ndarray, heights: np.ndarray) -> str:
    ratio = np.maximum(widths, heights) / np.minimum(widths, heights)
    # 5:4 counts as landscape, 3:2 and 2:1 as what they end.
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


def _map(widths: np.ndarray, heights: np.ndarray, image_size: int) -> str:
    """A map of how many originals have which width and height, both on one logarithmic scale."""
    low, high = (float(pick(pick(widths), pick(heights))) for pick in (min, max))
    if low / _NEAR <= image_size <= high * _NEAR:
        low, high = min(low, image_size), max(high, image_size)
    low, high = low * 0.93, high * 1.07
    if high < 2 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 2**0.5, middle * 2**0.5
    edges = np.geomspace(low, high, _BINS + 1)
    counts = np.histogram2d(heights, widths, (edges, edges))[0].astype(int)
    cell, deepest = _SIDE / _BINS, np.log1p(counts.max())

    def at(px: float) -> float:
        return float(np.log(px / low) / np.log(high / low)) * _SIDE

    parts = [f'<rect class="cells" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>']
    parts.append(f'<path class="square" d="M{_LEFT} {_TOP + _SIDE}l{_SIDE} -{_SIDE}"/>')
    for row, column in zip(*np.nonzero(counts), strict=True):
        depth = 0.18 + 0.82 * np.log1p(counts[row, column]) / deepest
        place = f'x="{_LEFT + cell * column:.1f}" y="{_TOP + _SIDE - cell * (row + 1):.1f}"'
        size = f'width="{cell:.1f}" height="{cell:.1f}" fill-opacity="{depth:.2f}"'
        title = f"{_span(edges, column)} × {_span(edges, row)} px: {count_of(counts[row, column], 'photo', 'photos')}"
        parts.append(f'<rect class="right" {place} {size}><title>{title}</title></rect>')
    for px in _round_sizes(low, high):
        x, y = _LEFT + at(px), _TOP + _SIDE - at(px)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP + _SIDE}v5M{_LEFT} {y:.1f}h-5"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_TOP + _SIDE + 18}" text-anchor="middle">{px:,}</text>')
        parts.append(f'<text class="tick" x="{_LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{px:,}</text>')
    if low < image_size < high:
        x, y = _LEFT + at(image_size), _TOP + _SIDE - at(image_size)
        parts.append(f'<path class="stored" d="M{x:.1f} {_TOP}v{_SIDE}M{_LEFT} {y:.1f}h{_SIDE}"/>')
        left = at(image_size) > _SIDE * 0.7
        place = f'x="{x + (-6 if left else 6):.1f}" y="{_TOP + 15}" text-anchor="{"end" if left else "start"}"'
        parts.append(f'<text class="stored" {place}>stored: {image_size} px</text>')
    parts.append(
        f'<text class="tick" x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 38}" text-anchor="middle">width, px</text>'
    )
    turned = f"translate(12 {_TOP + _SIDE / 2}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{turned}" text-anchor="middle">height, px</text>')
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    label = f"{len(widths):,} originals by width and height, in px"
    return (
        f'<svg class="sizes" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="font-size:{_FONT}px" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _span(edges: np.ndarray, number: int) -> str:
    """The whole numbers of px that a bin takes."""
    first, last = int(np.ceil(edges[number])), int(np.ceil(edges[number + 1])) - 1
    return f"{first:,}" if first >= last else f"{first:,}–{last:,}"


def _round_sizes(low: float, high: float) -> list[int]:
    """Round sizes within the range, few enough for an axis: 100, 200, 500, 1,000; or 250, 300, 350 in a short range."""
    decades = [factor * 10**power for power in range(8) for factor in (1, 2, 5)]
    inside = [px for px in decades if low <= px <= high]
    if len(inside) >= 3:
        return inside
    step = next(step for step in reversed(decades) if step == 1 or (high - low) / step >= 3)
    return list(range(int(np.ceil(low / step)) * step, int(high) + 1, step))
