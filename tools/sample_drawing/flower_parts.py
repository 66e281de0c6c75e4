"""The parts of a flower: wheels of petals, hearts of seeds, cups, stems and leaves."""

from __future__ import annotations

import numpy as np

from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.outlines import Points, ellipse, outline_of, placed, points, ribbon, smooth
from tools.sample_drawing.palettes import Color, luminance, mix

PETALS = {
    "round": [(-1.0, 0.0), (-0.98, 0.2), (-0.72, 0.42), (-0.35, 0.34), (0.0, 0.08)],
    "long": [(-1.0, 0.0), (-0.97, 0.08), (-0.75, 0.16), (-0.35, 0.14), (0.0, 0.06)],
    "pointed": [(-1.05, 0.0), (-0.85, 0.12), (-0.55, 0.25), (-0.25, 0.2), (0.0, 0.06)],
    "wide": [(-0.95, 0.0), (-0.98, 0.34), (-0.75, 0.62), (-0.35, 0.5), (0.0, 0.1)],
}
KINDS = ("daisy", "daisy", "five", "poppy", "dahlia", "sunflower", "tulip")


def flower_colors(c: Canvas) -> tuple[Color, Color, Color]:
    """Returns two colors of the petals and one of the heart."""
    p = c.palette
    order = c.rng.permutation(5)
    petal = p.accents[order[0]]
    if c.chance(0.25):
        petal = mix(p.light, p.accents[order[1]], 0.08)
    heart = max(p.accents, key=luminance) if luminance(petal) < 0.75 else p.accents[1]
    return petal, mix(petal, p.light if c.chance(0.5) else p.accents[order[2]], 0.35), heart


def stem(c: Canvas, x: float, y: float, foot_x: float, foot_y: float, half_width: float, leafy: float) -> None:
    """Paints a stem from a bloom at (x, y) to its foot; `leafy` (0..1) is how many leaves it bears."""
    p = c.palette
    bow = c.between(-0.12, 0.12) * (foot_y - y)
    t = np.linspace(0, 1, 12)
    path = np.stack([x + (foot_x - x) * t + bow * np.sin(np.pi * t), y + (foot_y - y) * t], 1)
    green = mix(p.leaf[0], p.leaf[1], c.between(0.3, 1))
    c.fill(ribbon(path, half_width), green, mix(green, p.deep, 0.3))
    if leafy:
        for k in range(3, 11, 3 if leafy < 0.8 else 2):
            if c.chance(leafy):
                side = 1 if k % 2 else -1
                leaf(
                    c,
                    path[k, 0],
                    path[k, 1],
                    (foot_y - y) * c.between(0.14, 0.26),
                    side * c.between(0.7, 1.2),
                )


def leaf(c: Canvas, x: float, y: float, length: float, turn: float) -> None:
    """Paints a leaf that grows from (x, y), upwards when `turn` is 0."""
    p = c.palette
    green = mix(p.leaf[0], p.leaf[1], c.between(0, 1))
    half = points((0, 0), (-0.2, -0.35), (-0.12, -0.75), (0.05, -1), (0.1, -0.7), (0.14, -0.3))
    shape = c.fill(
        placed(smooth(half, steps=5), x, y, length, turn), mix(green, p.light, 0.1), mix(green, p.deep, 0.15)
    )
    if length > c.u * 0.06:
        c.shade(shape, mix(green, p.deep, 0.5), 180 if c.light > 0 else 0, 0.4, 1.2, 0.6)
        vein = ribbon(smooth(points((0, 0), (-0.02, -0.5), (0.04, -0.95)), closed=False, steps=4), 0.012)
        c.pattern(shape, [(placed(vein, x, y, length, turn), mix(green, p.light, 0.4))], 0.7)


def bloom(
    c: Canvas,
    kind: str,
    x: float,
    y: float,
    r: float,
    colors: tuple[Color, Color, Color],
    squash: float = 1.0,
    turn: float = 0.0,
) -> None:
    """Paints a bloom of radius r; `squash` is how much it faces us, 1 being fully."""
    petal, second, heart = colors
    if kind == "tulip":
        _tulip(c, x, y, r, petal, second, turn)
    elif kind == "dahlia":
        for ring, size in enumerate((1.0, 0.78, 0.56, 0.34)):
            tone = mix(petal, second, ring / 3)
            _wheel(c, "pointed", 15 - 2 * ring, x, y, r * size, tone, squash, turn + 0.2 * ring)
        _heart(c, x, y, r * 0.14, mix(heart, second, 0.3), squash, turn)
    elif kind == "sunflower":
        _wheel(c, "pointed", 18, x, y, r, petal, squash, turn)
        _wheel(c, "pointed", 16, x, y, r * 0.88, second, squash, turn + 0.15)
        _heart(c, x, y, r * 0.42, mix(c.palette.deep, heart, 0.25), squash, turn)
    elif kind == "poppy":
        _wheel(c, "wide", 4, x, y, r, mix(petal, c.palette.deep, 0.15), squash, turn)
        _wheel(c, "wide", 4, x, y, r * 0.86, petal, squash, turn + 0.8)
        _heart(c, x, y, r * 0.2, mix(c.palette.deep, petal, 0.15), squash, turn)
    elif kind == "five":
        _wheel(c, "round", 5, x, y, r, petal, squash, turn)
        _wheel(c, "pointed", 5, x, y, r * 0.5, second, squash, turn)
        _heart(c, x, y, r * 0.15, heart, squash, turn)
    else:
        _wheel(c, "long", int(c.rng.integers(11, 19)), x, y, r, petal, squash, turn)
        _heart(c, x, y, r * c.between(0.22, 0.3), heart, squash, turn)


def _wheel(
    c: Canvas, petal: str, n: int, x: float, y: float, r: float, color: Color, squash: float, turn: float
) -> None:
    p = c.palette
    outline = outline_of(PETALS[petal], steps=3 if r < c.u * 0.15 else 6)
    start = c.between(0, 6)
    petals = []
    for k in range(n):
        one = placed(outline, 0, 0, r * c.between(0.92, 1.05), start + k * 2 * np.pi / n + c.between(-0.06, 0.06))
        petals.append(placed(one * (1, squash), x, y, turn=turn))
    if r < c.u * 0.03:
        c.paint(c.shape(*petals), color)
        return
    whole = c.shape(*petals)
    if r > c.u * 0.1:
        c.shadow(whole, p.deep, -c.light * r * 0.05, r * 0.08, r * 0.07, 0.35)
    light, dark = mix(color, p.light, 0.14), mix(color, p.deep, 0.14)
    c.pattern(whole, [(o, (light, dark, color)[k % 3]) for k, o in enumerate(petals)])
    if r > c.u * 0.09:
        veins = [(ribbon(np.stack([o.mean(0), [x, y]]), r * 0.008), mix(color, p.deep, 0.4)) for o in petals]
        c.pattern(whole, veins, 0.4)
    c.spot(whole, mix(color, p.deep, 0.55), x, y, r * 0.75, 0.85)
    c.shade(whole, mix(color, p.deep, 0.5), 90 + 45 * c.light, 0.5, 1.2, 0.6)
    c.shade(whole, mix(color, p.light, 0.75), 270 + 45 * c.light, 0.6, 1.2, 0.6)


def _heart(c: Canvas, x: float, y: float, r: float, color: Color, squash: float, turn: float) -> None:
    p = c.palette
    shape = c.fill(ellipse(x, y, r, r * squash, turn), color)
    if r < c.u * 0.012:
        return
    c.shade(shape, mix(color, p.deep, 0.6), 90 + 40 * c.light, 0.35, 1.1, 0.8)
    # Seeds on the golden angle, as in a sunflower.
    k = np.arange(1, 50 if r > c.u * 0.05 else 16)
    radius, angle = 0.92 * np.sqrt(k / len(k)), k * 2.39996
    dots = [
        (
            ellipse(x + a * r, y + b * r * squash, r * 0.05, r * 0.05),
            mix(color, p.light if i % 2 else p.deep, 0.5),
        )
        for i, (a, b) in enumerate(zip(np.cos(angle) * radius, np.sin(angle) * radius, strict=True))
    ]
    c.pattern(shape, dots, 0.9)


def _tulip(c: Canvas, x: float, y: float, r: float, petal: Color, second: Color, turn: float) -> None:
    p = c.palette
    side = smooth(points((0, 0.75), (-0.62, 0.45), (-0.68, -0.3), (-0.5, -1.0), (-0.1, -0.35), (0.1, 0.3)))
    middle = smooth(points((0, 0.78), (-0.42, 0.4), (-0.38, -0.4), (0, -0.95), (0.38, -0.4), (0.42, 0.4)))
    back = smooth(points((0, 0.5), (-0.45, 0.0), (-0.3, -0.85), (0.0, -0.5), (0.3, -0.85), (0.45, 0.0)))
    for outline, tone in (
        (back, mix(petal, p.deep, 0.3)),
        (side, petal),
        (side * (-1, 1), mix(petal, p.deep, 0.1)),
        (middle, second),
    ):
        shape: Points = placed(outline, x, y, r, turn)
        one = c.fill(shape, mix(tone, p.light, 0.1), tone)
        if r > c.u * 0.03:
            c.shade(one, mix(tone, p.deep, 0.5), 90 + 30 * c.light, 0.4, 1.2, 0.6)
