"""Flowers: one bloom close by, stems on paper, a bunch in a vase, a meadow."""

from __future__ import annotations

import numpy as np

from simimg.sample import scenery
from simimg.sample.canvas import Canvas
from simimg.sample.flower_parts import KINDS, PETALS, bloom, flower_colors, leaf, stem
from simimg.sample.outlines import box, ellipse, outline_of, placed, points, smooth
from simimg.sample.palettes import luminance, mix


def draw(c: Canvas) -> None:
    """Draws one picture of flowers."""
    c.pick((_portrait, _paper, _vase, _vase, _meadow, _meadow))(c)


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


def _vase(c: Canvas) -> None:
    p = c.palette
    _backdrop(c)
    table = c.h * c.between(0.74, 0.86)
    wood = mix(c.pick((*p.accents, p.light)), p.deep, c.between(0.05, 0.45))
    top = c.fill(box(0, table, c.w, c.h), wood, mix(wood, p.deep, 0.2))
    c.shade(top, mix(wood, p.light, 0.35), 0 if c.light > 0 else 180, 0.4, 1.3, 0.5, "brush")
    x, size = c.w * c.between(0.36, 0.64), c.u * c.between(0.16, 0.24)
    foot = table + c.u * 0.05
    shapes = (
        [(-1.5, 0.34), (-1.3, 0.26), (-0.8, 0.62), (-0.35, 0.62), (0.0, 0.36)],
        [(-1.7, 0.3), (-1.4, 0.22), (-0.9, 0.3), (-0.3, 0.42), (0.0, 0.4)],
        [(-1.1, 0.52), (-0.9, 0.48), (-0.5, 0.44), (-0.2, 0.4), (0.0, 0.36)],
        [(-1.2, 0.24), (-1.0, 0.24), (-0.75, 0.6), (-0.35, 0.7), (0.0, 0.4)],
    )
    profile = c.pick(shapes)
    mouth = foot + profile[0][0] * size
    n = int(c.rng.integers(3, 10))
    r = c.u * c.between(0.075, 0.12) * (1.25 if n < 5 else 1)
    kinds = [c.pick(KINDS) for _ in range(int(c.rng.integers(1, 4)))]
    colors = [flower_colors(c) for _ in range(2)]
    heads = []
    for i in range(n):
        angle = -np.pi / 2 + (i - (n - 1) / 2) * min(0.42, 2.3 / n) + c.between(-0.12, 0.12)
        reach = (mouth - c.h * 0.06) * c.between(0.45, 0.85)
        heads.append((x + np.cos(angle) * min(reach, c.w * 0.42), max(mouth + np.sin(angle) * reach, r * 1.1)))
    for hx, hy in heads:
        stem(c, hx, hy, x + (hx - x) * 0.08, mouth + size * 0.1, c.u * 0.005, 0.7)
    for hx, hy in sorted(heads, key=lambda head: head[1]):
        bloom(
            c,
            c.pick(kinds),
            hx,
            hy,
            r * c.between(0.8, 1.2),
            c.pick(colors),
            c.between(0.7, 1.0),
            (hx - x) / c.u,
        )
    glaze = mix(c.pick((*p.accents, p.light)), p.deep if p.night else p.light, 0.15)
    vase = c.shape(placed(outline_of(profile), x, foot, size))
    c.shadow(vase, p.deep, -c.light * size * 0.5, size * 0.12, size * 0.2, 0.3)
    c.paint(vase, glaze)
    trim = mix(glaze, p.deep if luminance(glaze) > 0.5 else p.light, 0.5)
    kind = c.pick(("plain", "rings", "dots", "dip"))
    if kind == "rings":
        c.pattern(vase, [(placed(box(-2, v, 2, v + 0.07), x, foot, size), trim) for v in (-1.05, -0.85, -0.3)])
    elif kind == "dots":
        c.pattern(
            vase,
            [
                (placed(ellipse(a, v, 0.06, 0.06), x, foot, size), trim)
                for v in (-0.9, -0.6, -0.3)
                for a in np.linspace(-0.55, 0.55, 6) + v / 4
            ],
        )
    elif kind == "dip":
        c.pattern(
            vase,
            [
                (
                    placed(smooth(points((-2, -0.6), (0, -0.5), (2, -0.65), (2, 1), (-2, 1))), x, foot, size),
                    trim,
                )
            ],
        )
    c.shade(vase, mix(glaze, p.deep, 0.6), 180 if c.light > 0 else 0, 0.4, 1.1, 0.75)
    c.shade(vase, mix(glaze, p.light, 0.7), 0 if c.light > 0 else 180, 0.62, 1.1, 0.6)
    if c.chance(0.4):  # fallen petals
        for _ in range(int(c.rng.integers(2, 6))):
            petal = placed(
                outline_of(PETALS["round"]),
                x + c.u * c.between(-0.35, 0.35),
                c.between(foot, c.h),
                c.u * 0.035,
                c.between(0, 6),
            )
            c.fill(petal, colors[0][0])


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
