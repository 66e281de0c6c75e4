"""The style of a house, and its doors and windows: arches, sashes, shutters, flower boxes, awnings."""

from __future__ import annotations

import dataclasses

import numpy as np

from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.outlines import Points, box, ellipse, points
from tools.sample_drawing.palettes import Color, luminance, mix

_LAMP = (255, 190, 92)


@dataclasses.dataclass(frozen=True)
class Style:
    """The colors and the parts of one house."""

    wall: Color
    roof: Color
    trim: Color
    door: Color
    glass: Color
    gable: str
    window: str
    cover: str  # what the wall is made of
    snow: bool


def random_style(c: Canvas, snow: bool) -> Style:
    """Returns a random style in the colors of the palette."""
    p = c.palette
    order = c.rng.permutation(5)
    wall, roof, door = (p.accents[k] for k in order[:3])
    if c.chance(0.4):
        wall = mix(p.light, p.accents[order[3]], c.between(0.05, 0.3))
    roof = mix(roof, p.deep, c.between(0.1, 0.5))
    if p.night:
        wall, roof, door = mix(wall, p.deep, 0.5), mix(roof, p.deep, 0.5), mix(door, p.deep, 0.3)
    lit = p.night or c.chance(0.12)
    return Style(
        wall=wall,
        roof=roof,
        trim=mix(p.light, wall, 0.15) if luminance(wall) < 0.72 else mix(wall, p.deep, 0.55),
        door=door,
        glass=mix(p.light, _LAMP, 0.6) if lit else mix(p.sky[0], p.deep, c.between(0.25, 0.6)),
        gable=c.pick(("gable", "gable", "steps", "hip", "flat")),
        window=c.pick(("cross", "cross", "sash", "arch", "wide", "round")),
        cover=c.pick(("plain", "plain", "bricks", "boards", "timber")),
        snow=snow,
    )


def openings(
    c: Canvas, x: float, top: float, foot: float, w: float, h: float, style: Style, door_in_middle: bool
) -> None:
    """Paints the door and the rows of windows into a wall from `x` to the right and from `foot` up to `top`."""
    columns = max(1, min(5, round(w / (c.u * 0.085)))) if w > c.u * 0.13 else 2 if w > c.u * 0.07 else 1
    if door_in_middle:
        columns = c.pick((2, 3, 3))
    size = min(w / columns * 0.52, c.u * (0.13 if door_in_middle else 0.075))
    story = size * c.between(1.9, 2.4)
    stories = max(1, int((h - size * 0.35) / story))
    door = columns // 2 if door_in_middle else int(c.rng.integers(columns))
    shutters, boxes = c.chance(0.3), c.chance(0.3)
    for row in range(stories):
        for column in range(columns):
            mx = x + w * (column + 0.5) / columns
            low = foot - row * story
            if row == 0 and column == door:
                _door(c, mx, foot, size * 0.95, min(size * 1.75, h * 0.8), style)
            else:
                mid = low - story * 0.55
                if mid - size * 0.6 > top:
                    window(c, mx, mid, size, style, shutters, boxes)


def window(c: Canvas, x: float, y: float, size: float, style: Style, shutters: bool, boxes: bool) -> None:
    """Paints one window around (x, y); `size` is about its height, the frame included."""
    p = c.palette
    w, h = size * (0.62 if style.window == "wide" else 0.45), size * (0.42 if style.window == "wide" else 0.6)
    glass = style.glass
    if luminance(glass) > 0.6 and c.chance(0.25):  # nobody at home
        glass = mix(p.sky[0], p.deep, 0.5)
    if style.window == "round":
        frame, pane = ellipse(x, y, w, w), ellipse(x, y, w * 0.78, w * 0.78)
    elif style.window == "arch":
        frame, pane = _arch(x, y, w, h), _arch(x, y + w * 0.06, w * 0.76, h * 0.84)
    else:
        frame, pane = (
            box(x - w, y - h, x + w, y + h),
            box(x - w * 0.8, y - h * 0.86, x + w * 0.8, y + h * 0.86),
        )
    c.fill(frame, style.trim)
    light = c.fill(pane, mix(glass, p.light, 0.25), glass, angle=60)
    if size > c.u * 0.035:
        c.shade(light, mix(glass, p.deep, 0.5), 270, 0.55, 1.1, 0.6)
        bar = size * 0.045
        bars = [box(x - w, y - bar, x + w, y + bar)]
        if style.window != "sash":
            bars.append(box(x - bar, y - h, x + bar, y + h))
        c.pattern(light, [(o, style.trim) for o in bars])
        if style.window == "round":
            return
        c.fill(box(x - w * 1.15, y + h, x + w * 1.15, y + h + size * 0.08), mix(style.trim, p.deep, 0.12))
        if shutters and style.window in ("cross", "sash"):
            for side in (-1, 1):
                a = x + side * w * 1.38
                c.fill(box(a - w * 0.34, y - h, a + w * 0.34, y + h), style.door, mix(style.door, p.deep, 0.25))
        if boxes:
            for k in np.linspace(-0.9, 0.9, 6):
                r = size * 0.1
                c.fill(
                    ellipse(x + w * k, y + h - r * 0.3, r, r),
                    c.pick((p.accents[0], p.leaf[0], p.leaf[1], p.light)),
                )
            c.fill(box(x - w, y + h, x + w, y + h + size * 0.17), mix(style.roof, p.deep, 0.2))


def _arch(x: float, y: float, w: float, h: float) -> Points:
    angle = np.linspace(np.pi, 2 * np.pi, 14)
    return np.concatenate(
        [
            np.stack([x + w * np.cos(angle), y - h + w + w * np.sin(angle)], 1),
            points((x + w, y + h), (x - w, y + h)),
        ]
    )


def _door(c: Canvas, x: float, foot: float, w: float, h: float, style: Style) -> None:
    p = c.palette
    arched = style.window in ("arch", "round")
    y = foot - h / 2
    frame = _arch(x, y, w * 0.5, h / 2) if arched else box(x - w * 0.5, foot - h, x + w * 0.5, foot)
    leaf = (
        _arch(x, y + w * 0.05, w * 0.4, h / 2 - w * 0.05)
        if arched
        else box(x - w * 0.4, foot - h + w * 0.1, x + w * 0.4, foot)
    )
    c.fill(frame, style.trim)
    door = c.fill(leaf, style.door, mix(style.door, p.deep, 0.25))
    if w > c.u * 0.03:
        panels = [
            box(x + a * w, foot - h * b, x + (a + 0.26) * w, foot - h * (b - 0.25))
            for a in (-0.3, 0.04)
            for b in (0.42, 0.74)
        ]
        c.pattern(door, [(o, mix(style.door, p.deep, 0.35)) for o in panels], 0.7)
        c.fill(ellipse(x + w * 0.3, foot - h * 0.42, w * 0.045, w * 0.045), p.light)
        c.fill(box(x - w * 0.65, foot - w * 0.08, x + w * 0.65, foot + w * 0.06), mix(style.trim, p.deep, 0.25))
        if c.chance(0.3):
            for k in range(6):
                stripe = style.door if k % 2 else mix(p.light, style.wall, 0.1)
                a, b = x + w * (-0.8 + k * 0.267), x + w * (-0.8 + (k + 1) * 0.267)
                c.fill(
                    points(
                        (a, foot - h * 1.12),
                        (b, foot - h * 1.12),
                        (b + (b - x) * 0.1, foot - h * 0.9),
                        (a + (a - x) * 0.1, foot - h * 0.9),
                    ),
                    stripe,
                )
