"""The parts of a house: walls of brick, board or timber, four gables, chimneys."""

from __future__ import annotations

import numpy as np

from tools.sample_drawing.canvas import Canvas, Shape
from tools.sample_drawing.doors_windows import Style, openings
from tools.sample_drawing.outlines import Points, box, ellipse, points, ribbon
from tools.sample_drawing.palettes import mix


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
    if style.gable == "hip":
        rows = [
            (box(x - w, y, x + 2 * w, y + w * 0.012), mix(style.roof, p.deep, 0.4))
            for y in np.arange(top - lift, top, w * 0.07)
        ]
        c.pattern(slates, rows, 0.7)
        c.shade(slates, mix(style.roof, p.deep, 0.6), 180 if c.light > 0 else 0, 0.4, 1.2, 0.6)
    if style.snow:
        c.paint(c.shape(roof - (0, w * 0.035)), mix(p.light, p.sky[1], 0.3 if p.night else 0.05))
    elif style.gable in ("gable", "hip"):
        eaves = c.shape(roof + np.array((0, w * 0.04))).within(wall).without(slates)
        c.paint(eaves, mix(style.wall, p.deep, 0.6), alpha=0.6)
    openings(c, x, top, foot, w, h, style, door_in_middle)
    if style.gable in ("gable", "steps") and c.chance(0.7):
        r = w * 0.075
        c.fill(ellipse(x + w / 2, top - lift * 0.32, r * 1.3, r * 1.3), style.trim)
        c.fill(ellipse(x + w / 2, top - lift * 0.32, r, r), style.glass)


def _roof(style: Style, x: float, top: float, w: float, lift: float) -> tuple[Points, Points]:
    """Returns the part of the wall above `top` and the roof that is seen from the front."""
    m, over = x + w / 2, w * 0.06
    if style.gable == "steps":
        steps = [(x, top)]
        for k in range(4):
            rise = top - lift * (k + 1) / 4
            steps += [(x + w * 0.125 * k, rise), (x + w * 0.125 * (k + 1), rise)]
        right = [(2 * m - a, b) for a, b in reversed(steps)]
        wall = points(*steps, *right)
        return wall, ribbon(wall[1:-1], w * 0.018)
    if style.gable == "flat":
        return box(x, top - 1, x + w, top + 1), box(x - over * 0.5, top - w * 0.06, x + w + over * 0.5, top + w * 0.02)
    if style.gable == "hip":
        return box(x, top - 1, x + w, top), points(
            (x - over, top),
            (x + w * 0.2, top - lift * 0.8),
            (x + w * 0.8, top - lift * 0.8),
            (x + w + over, top),
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
