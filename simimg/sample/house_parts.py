"""How a house is built: walls of brick, board or timber, six gables, windows, doors, chimneys, a wing to the side."""

from __future__ import annotations

import numpy as np

from simimg.sample.canvas import Canvas, Shape
from simimg.sample.doors_windows import Style, openings, window
from simimg.sample.outlines import Points, box, ellipse, points, ribbon, smooth
from simimg.sample.palettes import mix


def house(c: Canvas, x: float, foot: float, w: float, h: float, style: Style, door_in_middle: bool = False) -> None:
    """Paints a house seen from the front: from `x` to the right, from `foot` upwards, `h` high to the eaves."""
    p = c.palette
    top = foot - h
    lift = w * c.between(0.4, 0.75)
    gable, roof = _roof(style, x, top, w, lift)
    if c.chance(0.55):
        _chimney(c, x + w * c.pick((0.22, 0.75)), top - lift * 0.35, w * 0.12, lift * 0.6, style)
    wall = c.shape(box(x, top, x + w, foot), gable)
    c.paint(wall, mix(style.wall, p.light, 0.1), style.wall, mix(style.wall, p.deep, 0.1))
    _cover(c, wall, x, top - lift, w, h + lift, style)
    c.shade(wall, mix(style.wall, p.deep, 0.5), 180 if c.light > 0 else 0, 0.55, 1.3, 0.5)
    c.shade(wall, mix(style.wall, p.deep, 0.5), 90, 0.7, 1.25, 0.4)
    slates = c.fill(roof, mix(style.roof, p.light, 0.1), style.roof)
    if style.gable in ("hip", "mansard"):
        rows = [
            (box(x - w, y, x + 2 * w, y + w * 0.012), mix(style.roof, p.deep, 0.4))
            for y in np.arange(top - lift, top, w * 0.07)
        ]
        c.pattern(slates, rows, 0.7)
        c.shade(slates, mix(style.roof, p.deep, 0.6), 180 if c.light > 0 else 0, 0.4, 1.2, 0.6)
    if style.snow:
        c.paint(c.shape(roof - (0, w * 0.035)), mix(p.light, p.sky[1], 0.3 if p.night else 0.05))
    elif style.gable in ("gable", "hip", "mansard"):
        eaves = c.shape(roof + np.array((0, w * 0.04))).within(wall).without(slates)
        c.paint(eaves, mix(style.wall, p.deep, 0.6), alpha=0.6)
    openings(c, x, top, foot, w, h, style, door_in_middle)
    if style.gable in ("gable", "bell", "steps") and c.chance(0.7):
        r = w * 0.075
        c.fill(ellipse(x + w / 2, top - lift * 0.32, r * 1.3, r * 1.3), style.trim)
        c.fill(ellipse(x + w / 2, top - lift * 0.32, r, r), style.glass)


def wing(c: Canvas, x: float, foot: float, w: float, h: float, style: Style) -> None:
    """Paints a long wing beside the front, so that the house is seen from its corner."""
    p = c.palette
    side = -c.light
    edge = x + w if side > 0 else x
    far = edge + side * w * c.between(0.5, 0.9)
    top = foot - h
    left, right = min(edge, far), max(edge, far)
    wall = c.fill(box(left, top, right, foot - w * 0.02), mix(style.wall, p.deep, 0.22), mix(style.wall, p.deep, 0.35))
    _cover(c, wall, left, top, right - left, h, style)
    for k in (0.3, 0.72):
        window(c, edge + (far - edge) * k, top + h * 0.5, min(w * 0.2, h * 0.5), style, False, False)
    ridge = top - w * 0.42
    roof = points(
        (edge - side * w * 0.42, ridge),
        (far - side * w * 0.06, ridge),
        (far + side * w * 0.08, top + w * 0.05),
        (edge - side * w * 0.02, top + w * 0.05),
    )
    tone = mix(p.light, p.sky[1], 0.1) if style.snow else style.roof
    slates = c.fill(roof, mix(tone, p.light, 0.12), tone)
    rows = [
        (box(0, y, c.w, y + w * 0.012), mix(tone, p.deep, 0.35)) for y in np.arange(ridge, top + w * 0.05, w * 0.06)
    ]
    c.pattern(slates, rows, 0.6)
    c.shade(slates, mix(tone, p.deep, 0.5), 180 if c.light > 0 else 0, 0.4, 1.3, 0.5, "brush")


def _roof(style: Style, x: float, top: float, w: float, lift: float) -> tuple[Points, Points]:
    """The part of the wall above `top` and the roof that is seen from the front."""
    m, over = x + w / 2, w * 0.06
    if style.gable == "steps":
        steps = [(x, top)]
        for k in range(4):
            rise = top - lift * (k + 1) / 4
            steps += [(x + w * 0.125 * k, rise), (x + w * 0.125 * (k + 1), rise)]
        right = [(2 * m - a, b) for a, b in reversed(steps)]
        wall = points(*steps, *right)
        return wall, ribbon(wall[1:-1], w * 0.018)
    if style.gable == "bell":
        left = smooth(
            points(
                (x, top),
                (x + w * 0.05, top - lift * 0.3),
                (x + w * 0.22, top - lift * 0.45),
                (x + w * 0.3, top - lift * 0.85),
                (m - w * 0.1, top - lift),
            ),
            closed=False,
        )
        wall = np.concatenate([left, (left * (-1, 1) + (2 * m, 0))[::-1]])
        return wall, ribbon(wall, w * 0.022)
    if style.gable == "flat":
        return box(x, top - 1, x + w, top + 1), box(x - over * 0.5, top - w * 0.06, x + w + over * 0.5, top + w * 0.02)
    if style.gable == "hip":
        return box(x, top - 1, x + w, top), points(
            (x - over, top),
            (x + w * 0.2, top - lift * 0.8),
            (x + w * 0.8, top - lift * 0.8),
            (x + w + over, top),
        )
    if style.gable == "mansard":
        return box(x, top - 1, x + w, top), points(
            (x - over * 0.6, top),
            (x + w * 0.08, top - lift * 0.62),
            (x + w * 0.25, top - lift * 0.8),
            (x + w * 0.75, top - lift * 0.8),
            (x + w * 0.92, top - lift * 0.62),
            (x + w + over * 0.6, top),
        )
    slope = points((x - over, top + over * 1.1), (m, top - lift), (x + w + over, top + over * 1.1))
    return points((x, top), (m, top - lift), (x + w, top)), ribbon(slope, w * 0.045)


def _cover(c: Canvas, wall: Shape, x: float, top: float, w: float, h: float, style: Style) -> None:
    p = c.palette
    line = mix(style.wall, p.deep, 0.4)
    if w < c.u * 0.1 or style.cover == "plain":
        return
    if style.cover == "bricks":
        size = max(w * 0.06, c.u * 0.014)
        bricks = []
        for _ in range(int(12 + 50 * c.rng.random())):
            row = int(c.rng.integers(0, max(1, int(h / (size * 0.5)))))
            bx = x + size * (int(c.rng.integers(0, int(w / size) + 1)) + 0.5 * (row % 2))
            bricks.append(
                (
                    box(bx, top + row * size * 0.5, bx + size * 0.85, top + row * size * 0.5 + size * 0.36),
                    mix(style.wall, c.pick((p.deep, p.light)), 0.2),
                )
            )
        c.pattern(wall, bricks)
    elif style.cover == "boards":
        gap = max(w * 0.05, c.u * 0.011)
        upright = c.chance(0.4)
        lines = [
            box(a, top, a + gap * 0.16, top + h) if upright else box(x, a, x + w, a + gap * 0.16)
            for a in (np.arange(x, x + w, gap) if upright else np.arange(top, top + h, gap))
        ]
        c.pattern(wall, [(o, line) for o in lines], 0.4)
    else:
        t = w * 0.03
        beam = mix(p.deep, style.roof, 0.4)
        frame = [box(x + w * k - t / 2, top, x + w * k + t / 2, top + h) for k in (0.02, 0.34, 0.66, 0.98)]
        frame += [box(x, y, x + w, y + t) for y in np.linspace(top + h * 0.3, top + h, 4)]
        frame += [
            ribbon(points((x + w * a, top + h * 0.53), (x + w * b, top + h * 0.3)), t / 2)
            for a, b in ((0.02, 0.34), (0.98, 0.66))
        ]
        c.pattern(wall, [(o, beam) for o in frame], 0.85)


def _chimney(c: Canvas, x: float, foot: float, w: float, h: float, style: Style) -> None:
    p = c.palette
    stone = mix(style.roof, style.wall, 0.4)
    top = foot - h
    if c.chance(0.35) and w > c.u * 0.015:
        t = np.linspace(0, 1, 16)
        path = np.stack([x - c.light * (np.sin(t * 5) * 0.6 + t * 2) * w, top - t * w * 5], 1)
        c.fill(ribbon(path, w * (0.25 + 0.75 * t) * np.sqrt(1.05 - t)), mix(p.light, p.sky[1], 0.3), alpha=0.6)
    c.fill(box(x - w / 2, top, x + w / 2, foot + h), stone, mix(stone, p.deep, 0.25))
    c.fill(
        box(x - w * 0.65, top - w * 0.1, x + w * 0.65, top + w * 0.25),
        mix(p.light, p.sky[2], 0.2) if style.snow else mix(stone, p.deep, 0.35),
    )
