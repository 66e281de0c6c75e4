"""Scenery that several classes share: skies, clouds, hills, trees, water, weather.

Shared on purpose: balloons float over the hills of the meadows, houses stand in the snow of the mountains.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.outlines import (
    Points,
    blob,
    box,
    ellipse,
    outline_of,
    placed,
    points,
    ribbon,
    skyline,
)
from tools.sample_drawing.palettes import Color, mix


def sky(c: Canvas, horizon: float = 1.0) -> None:
    """Paints the sky down to `horizon` (share of the height) with what is in it, and sets the light."""
    p = c.palette
    whole = c.shape(box(0, 0, c.w, c.h))
    if c.chance(0.2):
        c.paint(whole, p.sky[1], p.sky[2], angle=90)
    elif c.chance(0.2):
        c.paint(whole, p.sky[0], p.sky[1], angle=c.pick((70, 90, 110)))
    else:
        c.paint(whole, *p.sky, mix(p.sky[2], p.light, 0.4), angle=90)
    c.shade(whole, mix(p.sky[0], p.deep, 0.25), 270, 0.35, 1.3, 0.3, c.pick(("brush", "mist", "mist")))
    if p.night:
        _stars(c, horizon)
    if c.chance(0.62):
        sun(
            c,
            c.w * c.between(0.12, 0.88),
            c.h * horizon * c.between(0.15, 0.85),
            c.u * c.between(0.035, 0.13),
        )
    kind = c.pick(("puffs", "puffs", "banks", "clear"))
    if kind == "puffs":
        for _ in range(int(c.rng.integers(1, 6))):
            size = c.u * c.between(0.08, 0.26)
            puff(c, c.w * c.between(-0.05, 1.05), c.h * horizon * c.between(0.1, 0.8), size)
    elif kind == "banks":
        for i in range(3):
            bank(c, c.h * horizon * (0.62 + 0.16 * i + c.between(-0.04, 0.04)), 0.25 + 0.2 * i)


def sun(c: Canvas, x: float, y: float, radius: float) -> None:
    """Paints the sun or, at night, the moon, and lights the image from there."""
    p = c.palette
    c.light = 1 if x > c.w / 2 else -1
    disc = mix(p.light, p.accents[0] if not p.night else p.light, 0.0 if c.chance(0.6) else 0.75)
    c.glow(x, y, radius * 5, mix(p.light, p.sky[2], 0.3), 0.55)
    c.glow(x, y, radius * 2, p.light, 0.5)
    shape = c.shape(ellipse(x, y, radius, radius))
    if p.night and c.chance(0.5):
        shape = shape.without(c.shape(ellipse(x + radius * 0.45, y - radius * 0.2, radius * 0.9, radius * 0.9)))
    c.paint(shape, disc)
    c.shade(shape, mix(disc, p.sky[1], 0.5), 60, 0.4, 1.3, 0.6)


def puff(c: Canvas, x: float, y: float, size: float) -> None:
    """Paints a cumulus with a flat foot."""
    p = c.palette
    n = int(c.rng.integers(3, 7))
    at = np.linspace(-0.8, 0.8, n) + c.rng.uniform(-0.08, 0.08, n)
    domes = [
        ellipse(x + a * size, y - size * 0.06, r * size, r * size * 0.95)
        for a, r in zip(at, (0.42 - 0.3 * np.abs(at)) * c.rng.uniform(0.75, 1.2, n), strict=True)
    ]
    foot = box(x - size * 3, y - size * 3, x + size * 3, y + size * 0.08)
    shape = c.shape(*domes, ribbon(points((x - size, y), (x + size, y)), size * 0.08)).within(c.shape(foot))
    body = mix(p.light, p.sky[1], 0.55 if p.night else c.between(0.0, 0.3))
    c.paint(shape, body, mix(body, p.sky[2], 0.6), angle=90, alpha=0.96)
    c.shade(shape, mix(p.sky[1], p.sky[0], 0.45), 90 + 35 * c.light, 0.35, 1.25, 0.6)


def bank(c: Canvas, y: float, depth: float) -> None:
    """Paints a bank of cloud from edge to edge."""
    p = c.palette
    x = 0.0
    domes: list[Points] = [box(0, y, c.w, c.h)]
    while x < c.w:
        r = c.u * c.between(0.04, 0.13)
        domes.append(ellipse(x, y + r * 0.2, r * 1.3, r))
        x += r * 1.3
    shape = c.shape(*domes)
    body = mix(mix(p.light, p.sky[2], 0.4), p.sky[1], 1 - depth if not p.night else 0.85)
    c.paint(shape, body, mix(body, p.sky[2], 0.5), angle=90)
    c.shade(shape, mix(body, p.light, 0.2 if p.night else 0.7), 270, 0.5, 1.2, 0.7)


def hill(c: Canvas, y: float, amplitude: float, color: Color, foot: Color, *, fade: float = 0.32) -> Points:
    """Paints a rolling hill from edge to edge and returns its crest [n, 2] from left to right."""
    crest = skyline(c.rng, 90, octaves=4, start=int(c.rng.integers(1, 4)), fade=fade)
    crest = crest * (c.w * 1.02, amplitude) + (-c.w * 0.01, y)
    shape = c.shape(np.concatenate([crest, points((c.w * 1.01, c.h), (-c.w * 0.01, c.h))]))
    c.paint(shape, color, foot, angle=90)
    c.shade(shape, mix(color, c.palette.deep, 0.35), 90 - 60 * c.light, 0.45, 1.3, 0.5, "brush")
    c.shade(shape, mix(color, c.palette.light, 0.45), 270, 0.72, 1.1, 0.5)
    return crest


def land(c: Canvas, horizon: float, layers: int) -> list[Points]:
    """Paints hills from the horizon (share of the height) down and returns their crests, far to near."""
    p = c.palette
    far = mix(p.sky[2], p.sky[0], 0.5)
    base = c.pick((p.leaf[0], p.leaf[0], p.leaf[1], p.accents[3], mix(p.accents[1], p.leaf[0], 0.35)))
    if c.chance(0.14):
        base = mix(p.light, p.sky[1], 0.15)  # snow on the ground
    if p.night:
        base = mix(base, p.deep, 0.45)
    crests = []
    for i in range(layers):
        depth = (i + 1) / layers
        color = mix(far, base, depth**0.8)
        y = c.h * (horizon + (1 - horizon) * (i / layers) ** 1.1) + c.u * 0.02
        foot = mix(color, p.deep, 0.28 * depth) if i == layers - 1 else mix(color, far, 0.45)
        crests.append(hill(c, y, c.u * c.between(0.025, 0.07), color, foot))
    return crests


def pine(c: Canvas, x: float, y: float, height: float, color: Color) -> None:
    """Paints a spruce that stands on (x, y)."""
    tiers = int(c.rng.integers(3, 6))
    half = height * c.between(0.17, 0.25)
    outlines = [box(x - height * 0.02, y - height * 0.15, x + height * 0.02, y)]
    for i in range(tiers):
        top = y - height * (1 - 0.8 * i / tiers)
        low = y - height * (0.86 - 0.8 * (i + 1) / tiers) + height * 0.06
        w = half * (0.4 + 0.6 * (i + 1) / tiers)
        outlines.append(
            points((x, top), (x + w, low), (x + w * 0.3, low - height * 0.03), (x - w * 0.4, low), (x - w, low))
        )
    shape = c.shape(*outlines)
    c.paint(shape, color, mix(color, c.palette.deep, 0.45))
    if height > c.u * 0.1:
        c.shade(shape, mix(color, c.palette.light, 0.4), 0 if c.light > 0 else 180, 0.55, 1.2, 0.55)


def tree(c: Canvas, x: float, y: float, height: float, color: Color) -> None:
    """Paints a leafy tree that stands on (x, y): round, tall or of several crowns."""
    p = c.palette
    kind = c.pick(("round", "tall", "crowns"))
    bark = mix(p.deep, p.accents[1], 0.25)
    c.fill(
        points(
            (x - height * 0.03, y),
            (x - height * 0.015, y - height * 0.5),
            (x + height * 0.015, y - height * 0.5),
            (x + height * 0.03, y),
        ),
        bark,
    )
    if kind == "tall":
        crowns = [
            placed(
                outline_of([(-0.55, 0.0), (-0.35, 0.1), (0.05, 0.17), (0.3, 0.12), (0.4, 0.0)]),
                x,
                y - height * 0.48,
                height,
            )
        ]
    elif kind == "round":
        crowns = [blob(c.rng, x, y - height * 0.63, height * 0.33, height * 0.37, 0.08)]
    else:
        crowns = [
            blob(c.rng, x + height * dx, y - height * dy, height * r, height * r * 0.9, 0.1)
            for dx, dy, r in ((-0.2, 0.5, 0.2), (0.2, 0.53, 0.21), (0.0, 0.72, 0.27), (0.05, 0.5, 0.2))
        ]
    shape = c.shape(*crowns)
    c.paint(shape, mix(color, p.light, 0.12), mix(color, p.deep, 0.12))
    c.shade(shape, mix(color, p.deep, 0.55), 90 - 50 * -c.light if c.light < 0 else 90 + 50, 0.4, 1.15, 0.8)
    c.shade(shape, mix(color, p.light, 0.55), 270 - 40 * -c.light if c.light < 0 else 270 + 40, 0.62, 1.15, 0.6)


def water(c: Canvas, y: float, ripple: float = 0.5) -> None:
    """Turns everything below `y` (canvas pixels) into a lake that mirrors what is above."""
    top = int(np.clip(y, 4, c.h - 4))
    deep = c.h - top
    source = c.image.crop((0, max(0, top - deep), c.w, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if source.height < deep:
        source = source.resize((c.w, deep), Image.Resampling.BILINEAR)
    mirror = source.reduce(4).filter(ImageFilter.BoxBlur((1, 3))).resize((c.w, deep), Image.Resampling.BILINEAR)
    c.image.paste(mirror, (0, top))
    surface = c.shape(box(0, top, c.w, c.h))
    c.paint(
        surface,
        mix(c.palette.sky[1], c.palette.sky[0], 0.3),
        mix(c.palette.sky[0], c.palette.deep, 0.35),
        alpha=0.38,
    )
    for _ in range(int(10 + 50 * ripple)):
        t = c.rng.random() ** 1.6
        tint = (
            mix(c.palette.light, c.palette.sky[2], 0.4) if c.chance(0.6) else mix(c.palette.sky[0], c.palette.deep, 0.4)
        )
        length = c.u * c.between(0.02, 0.1) * (0.4 + t)
        x, line = c.between(0, c.w), top + deep * t
        path = np.stack([np.linspace(x - length, x + length, 7), np.full(7, line)], 1)
        width = c.u * (0.0012 + 0.0032 * t) * np.array([0, 0.6, 0.9, 1, 0.9, 0.6, 0])
        c.fill(ribbon(path, width), tint, alpha=0.55)


def weather(c: Canvas) -> None:
    """Adds snow, mist or, mostly, nothing to the image."""
    p = c.palette
    kind = c.pick(("fair",) * 7 + ("snow", "mist"))
    if kind == "snow":
        for _ in range(int(c.rng.integers(60, 190))):
            r = c.u * c.between(0.0022, 0.0075)
            c.fill(ellipse(c.between(0, c.w), c.between(0, c.h), r, r), p.light, alpha=c.between(0.6, 1))
    elif kind == "mist":
        y = c.h * c.between(0.5, 0.8)
        c.shade(c.shape(box(0, y, c.w, c.h)), mix(p.sky[2], p.light, 0.4), 90, 0.0, 1.0, 0.7, "mist")


def _stars(c: Canvas, horizon: float) -> None:
    for _ in range(int(c.rng.integers(25, 110))):
        x, y = c.between(0, c.w), c.between(0, c.h * horizon)
        r = c.u * c.between(0.0014, 0.0038)
        c.fill(ellipse(x, y, r, r), c.palette.light, alpha=c.between(0.4, 1))
