"""Flowers: one bloom close by, stems on paper, a meadow."""

from __future__ import annotations

import numpy as np

from tools.sample_drawing import scenery
from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.flower_parts import KINDS, bloom, flower_colors, leaf, stem
from tools.sample_drawing.outlines import box, points
from tools.sample_drawing.palettes import mix


def draw(c: Canvas) -> None:
    """Draws one image of flowers."""
    c.pick((_portrait, _paper, _meadow))(c)


def _backdrop(c: Canvas) -> None:
    p = c.palette
    whole = c.shape(box(0, 0, c.w, c.h))
    ground = c.pick(
        (
            p.light,
            p.sky[2],
            p.sky[1],
            p.sky[0],
            mix(p.leaf[1], p.deep, 0.4),
            mix(c.pick(p.accents), p.sky[2], 0.45),
        )
    )
    if p.night:
        ground = mix(p.sky[0], p.deep, 0.2)
    c.paint(whole, mix(ground, p.light, 0.2), ground, mix(ground, p.deep, 0.12), angle=c.pick((45, 90, 135)))
    c.shade(whole, mix(ground, p.light, 0.5), 270 + 30 * c.light, 0.5, 1.4, 0.4, "brush")


def _portrait(c: Canvas) -> None:
    p = c.palette
    _backdrop(c)
    for _ in range(int(c.rng.integers(0, 9))):  # out of focus, behind
        tone = mix(c.pick((*p.accents, *p.leaf)), p.sky[1], 0.4)
        c.glow(c.w * c.between(0, 1), c.h * c.between(0, 1), c.u * c.between(0.08, 0.25), tone, 0.7)
    x, y, r = c.w * c.between(0.35, 0.65), c.h * c.between(0.36, 0.6), min(c.w, c.h) * c.between(0.34, 0.52)
    kind = c.pick(("daisy", "five", "poppy", "dahlia", "sunflower"))
    if c.chance(0.6):
        stem(c, x, y, x + c.u * c.between(-0.15, 0.15), c.h * 1.05, r * 0.05, 0.4)
    else:
        for a in c.rng.uniform(0, 6.3, int(c.rng.integers(2, 6))):
            leaf(c, x + np.cos(a) * r * 0.5, y + np.sin(a) * r * 0.5, r * c.between(0.7, 1.1), a + np.pi / 2)
    if c.chance(0.35):
        side = c.pick((-1, 1))
        bloom(
            c,
            "daisy" if kind == "daisy" else kind,
            x + side * r * 1.3,
            y - r * c.between(-0.9, 0.9),
            r * 0.5,
            flower_colors(c),
        )
    bloom(c, kind, x, y, r, flower_colors(c), c.between(0.78, 1.0), c.between(-0.4, 0.4))


def _paper(c: Canvas) -> None:
    _backdrop(c)
    n = int(c.rng.integers(1, 6))
    kinds = [c.pick(KINDS)] if c.chance(0.5) else [c.pick(KINDS) for _ in range(n)]
    colors = [flower_colors(c) for _ in range(2)]
    for x in (np.arange(n) + 0.5 + c.rng.uniform(-0.12, 0.12, n)) / n:
        top = c.h * c.between(0.2, 0.45)
        r = min(c.u * c.between(0.1, 0.17), c.w * 0.6 / n)
        foot_x = c.w * (0.5 + (x - 0.5) * c.between(0.4, 0.9))
        stem(c, c.w * x, top, foot_x, c.h * c.between(0.88, 1.05), c.u * 0.007, c.between(0.5, 1.0))
        bloom(c, c.pick(kinds), c.w * x, top, r, c.pick(colors), c.between(0.6, 1.0), c.between(-0.3, 0.3))


def _meadow(c: Canvas) -> None:
    p = c.palette
    horizon = c.between(0.25, 0.6)
    if c.chance(0.7):
        scenery.sky(c, horizon)
        scenery.land(c, horizon, int(c.rng.integers(2, 4)))
    else:
        whole = c.shape(box(0, 0, c.w, c.h))
        green = mix(p.leaf[1], p.deep, 0.3)
        c.paint(whole, mix(p.leaf[0], p.sky[1], 0.3), green)
        c.shade(whole, p.deep, 90, 0.5, 1.4, 0.5, "brush")
        horizon = 0.05
    kinds = [c.pick(KINDS) for _ in range(int(c.rng.integers(1, 4)))]
    colors = [flower_colors(c) for _ in range(int(c.rng.integers(1, 4)))]
    rows = int(c.rng.integers(3, 6))
    size = c.u * c.between(0.06, 0.13)
    for row in range(rows):
        t = (row + 1) / rows
        y = c.h * (horizon + (1.12 - horizon) * (0.25 + 0.75 * t))
        _grass(c, y, size * (0.4 + 0.6 * t), t)
        step = size * (0.35 + 0.65 * t) * c.between(2.0, 3.6)
        for x in np.arange(-step * c.between(0, 1), c.w + step, step):
            r = size * (0.35 + 0.65 * t) * c.between(0.75, 1.2)
            hx, hy = x + step * c.between(-0.3, 0.3), y - r * c.between(1.8, 4.2)
            stem(
                c,
                hx,
                hy,
                hx + r * c.between(-0.5, 0.5),
                y + r,
                max(c.u * 0.0025, r * 0.06),
                0.35 if t > 0.5 else 0,
            )
            tone = c.pick(colors)
            far = 0.35 * (1 - t)
            hazed = (mix(tone[0], p.sky[2], far), mix(tone[1], p.sky[2], far), mix(tone[2], p.sky[2], far))
            bloom(c, c.pick(kinds), hx, hy, r, hazed, c.between(0.5, 0.95), c.between(-0.35, 0.35))
    scenery.weather(c)


def _grass(c: Canvas, y: float, height: float, t: float) -> None:
    p = c.palette
    tone = mix(mix(p.leaf[0], p.leaf[1], t), p.deep, 0.15 + 0.25 * t + (0.25 if p.night else 0))
    blades = []
    for x in c.rng.uniform(-0.05, 1.05, 45) * c.w:
        lean, tall = height * c.between(-0.8, 0.8), height * c.between(1, 3)
        blades.append(
            points(
                (x - height * 0.1, y + height),
                (x + lean * 0.3, y - tall * 0.4),
                (x + lean, y - tall),
                (x + lean * 0.3 + height * 0.1, y - tall * 0.35),
                (x + height * 0.12, y + height),
            )
        )
    c.paint(c.shape(*blades), tone, mix(tone, p.deep, 0.3))
