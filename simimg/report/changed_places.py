"""Outlines on images of reports: the places where a copy differs, and the part that two images have in common.

What differs is found elsewhere (`simimg.similarity.differences`); here it is drawn, in orange with a dark rim on both
sides, which is visible on images of any color. An outline lies around a place, so that it covers nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

_COLOR, _RIM = (255, 90, 31), (20, 20, 22)
# In px of an image of 400 px; smaller images, which are shown enlarged, have thinner outlines.
_ROOM, _RIM_WIDTH, _LINE_WIDTH = 3.0, 0.8, 2.2
_FINE = 3  # outlines are drawn this many times as large, and then reduced


def mark_places(image: Image.Image, boxes: Iterable[Sequence[float]]) -> Image.Image:
    """Returns an image, mode RGB, with an outline around each box; boxes that overlap have one outline.

    A box is left, top, right and bottom in the unit square of the image.
    """
    unit = max(image.size) / 400
    more = 2 * _RIM_WIDTH + _LINE_WIDTH
    placed = []
    for left, top, right, bottom in boxes:
        # Also at the border, the outline is inside the image.
        (x0, x1), (y0, y1) = (
            (max(more * unit, low * size - _ROOM * unit), min(size - more * unit, high * size + _ROOM * unit))
            for low, high, size in ((left, right, image.width), (top, bottom, image.height))
        )
        if x0 < x1 and y0 < y1:
            placed.append((x0, y0, x1, y1))
    if not placed:
        return image
    marked = image.copy()
    for color, width in ((_RIM, _RIM_WIDTH), (_COLOR, _LINE_WIDTH), (_RIM, _RIM_WIDTH)):
        marked.paste(color, mask=_union(image.size, placed, more * unit, (_ROOM + more) * unit))
        more -= width
    marked.paste(image, mask=_union(image.size, placed, 0.0, _ROOM * unit))
    return marked


def mark_part(image: Image.Image, corners: Sequence[Sequence[float]]) -> Image.Image:
    """Returns an image, mode RGB, with the outline of a part; `corners` are points of the image's unit square."""
    unit = max(image.size) / 400
    inset = (_RIM_WIDTH + _LINE_WIDTH / 2) * unit
    points = [
        tuple(
            _FINE * min(max(inset, place * size), size - inset) for place, size in zip(corner, image.size, strict=True)
        )
        for corner in corners
    ]
    marked = image.copy()
    for color, width in ((_RIM, 2 * _RIM_WIDTH + _LINE_WIDTH), (_COLOR, _LINE_WIDTH)):
        mask = Image.new("L", (_FINE * image.width, _FINE * image.height))
        line = [*points, *points[:2]]
        ImageDraw.Draw(mask).line(line, 255, max(1, round(_FINE * width * unit)), joint="curve")
        marked.paste(color, mask=mask.reduce(_FINE))
    return marked


def _union(size: tuple[int, int], boxes: Iterable[Sequence[float]], more: float, radius: float) -> Image.Image:
    """Returns the mask of boxes, in px, that are enlarged by `more` px per side and have round corners."""
    mask = Image.new("L", (_FINE * size[0], _FINE * size[1]))
    draw = ImageDraw.Draw(mask)
    for left, top, right, bottom in boxes:
        corners = [_FINE * side for side in (left - more, top - more, right + more, bottom + more)]
        draw.rounded_rectangle(corners, radius=_FINE * radius, fill=255)
    return mask.reduce(_FINE)
