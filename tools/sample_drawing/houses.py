"""Houses: a street front, a cottage among trees, a village on hills; by night, in snow."""

from __future__ import annotations

import dataclasses

import numpy as np

from tools.sample_drawing import scenery
from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.doors_windows import random_style
from tools.sample_drawing.house_parts import house
from tools.sample_drawing.outlines import blob, box, ellipse, points, smooth
from tools.sample_drawing.palettes import Color, mix


def draw(c: Canvas) -> None:
    """Draws one image of houses."""
    snow = c.chance(0.16)
    c.pick((_street, _cottage, _village))(c, snow)
    if snow:
        for _ in range(int(c.rng.integers(50, 150))):
            r = c.u * c.between(0.002, 0.007)
            c.fill(ellipse(c.between(0, c.w), c.between(0, c.h), r, r), c.palette.light, alpha=0.9)
    else:
        scenery.weather(c)


def _ground(c: Canvas, y: float, snow: bool) -> None:
    p = c.palette
    tone = (
        mix(p.light, p.sky[1], 0.2)
        if snow
        else c.pick(
            (
                p.leaf[0],
                mix(p.leaf[0], p.leaf[1], 0.5),
                mix(p.sky[2], p.accents[1], 0.3),
                mix(p.sky[1], p.deep, 0.2),
            )
        )
    )
    if p.night:
        tone = mix(tone, p.deep, 0.5)
    shape = c.fill(box(0, y, c.w, c.h), mix(tone, p.light, 0.1), mix(tone, p.deep, 0.2))
    c.shade(shape, mix(tone, p.deep, 0.35), 90, 0.3, 1.4, 0.5, "brush")


def _street(c: Canvas, snow: bool) -> None:
    scenery.sky(c, 0.8)
    if c.chance(0.5):
        _far_roofs(c, c.h * c.between(0.5, 0.7))
    curb = c.h * c.between(0.82, 0.95)
    _row(c, curb, snow, c.between(0.17, 0.34), c.between(0.35, 0.62))
    _ground(c, curb, snow)
    if c.chance(0.6):
        for x in np.arange(c.between(0, 0.3), 1.1, c.between(0.25, 0.5)) * c.w:
            scenery.tree(c, x, curb + c.u * 0.015, c.u * c.between(0.15, 0.3), _green(c, snow))


def _row(c: Canvas, foot: float, snow: bool, width: float, height: float) -> None:
    gables = [c.pick(("gable", "steps", "hip", "flat")) for _ in range(int(c.rng.integers(1, 4)))]
    x = -c.u * c.between(0, 0.2)
    while x < c.w:
        w = c.u * width * c.between(0.75, 1.25)
        h = min(c.u * height * c.between(0.75, 1.25), foot - c.h * 0.16)
        style = dataclasses.replace(random_style(c, snow), gable=c.pick(gables))
        house(c, x, foot, w, h, style)
        x += w


def _cottage(c: Canvas, snow: bool) -> None:
    p = c.palette
    horizon = c.between(0.5, 0.7)
    scenery.sky(c, horizon)
    scenery.land(c, horizon, int(c.rng.integers(1, 4)))
    foot = c.h * c.between(0.78, 0.9)
    if snow or c.chance(0.3):
        _ground(c, foot - c.u * 0.06, snow)
    w, h = min(c.u * c.between(0.3, 0.5), c.w * 0.6), c.u * c.between(0.2, 0.36)
    x = c.w * c.between(0.2, 0.8) - w / 2
    for _ in range(int(c.rng.integers(0, 5))):
        plant = c.pick((scenery.tree, scenery.pine))
        plant(
            c,
            c.w * c.between(0, 1),
            foot - c.u * c.between(0.0, 0.04),
            c.u * c.between(0.25, 0.5),
            _green(c, snow),
        )
    style = dataclasses.replace(random_style(c, snow), gable=c.pick(("gable", "hip")))
    path = smooth(
        points(
            (x + w * 0.42, foot),
            (x + w * 0.3, foot + c.u * 0.1),
            (x + w * 0.1, c.h + 9),
            (x + w * 0.7, c.h + 9),
            (x + w * 0.66, foot + c.u * 0.1),
            (x + w * 0.58, foot),
        ),
        steps=4,
    )
    c.fill(path, mix(p.sky[2], p.deep, 0.55 if p.night else 0.1))
    house(c, x, foot, w, h, style, door_in_middle=True)
    for _ in range(int(c.rng.integers(0, 7))):
        r = c.u * c.between(0.03, 0.06)
        bx = c.pick((x - r * c.between(0, 3), x + w + r * c.between(0, 3)))
        bush = c.shape(blob(c.rng, bx, foot, r * 1.3, r, 0.12))
        green = _green(c, snow)
        c.paint(bush, mix(green, p.light, 0.15), mix(green, p.deep, 0.2))
        c.shade(bush, mix(green, p.deep, 0.5), 90 + 40 * c.light, 0.4, 1.2, 0.7)


def _village(c: Canvas, snow: bool) -> None:
    p = c.palette
    horizon = c.between(0.4, 0.6)
    scenery.sky(c, horizon)
    base = mix(p.light, p.sky[1], 0.15) if snow else mix(p.leaf[0], p.deep, 0.4 if p.night else 0.0)
    layers = int(c.rng.integers(3, 5))
    style_gables = [c.pick(("gable", "hip", "flat")), "gable"]
    for i in range(layers):
        t = (i + 1) / layers
        tone = mix(mix(p.sky[2], p.sky[0], 0.4), base, t)
        crest = scenery.hill(
            c, c.h * (horizon + (0.98 - horizon) * i / layers), c.u * 0.06, tone, mix(tone, p.deep, 0.25)
        )
        size = c.u * (0.06 + 0.1 * t)
        x = c.between(-0.1, 0.2) * c.w
        while x < c.w:
            y = float(np.interp(x, crest[:, 0], crest[:, 1])) + size * 0.3
            if c.chance(0.62):
                style = dataclasses.replace(random_style(c, snow), gable=c.pick(style_gables))
                house(c, x, y, size * c.between(0.7, 1.2), size * c.between(0.5, 0.9), style)
            elif c.chance(0.7):
                c.pick((scenery.tree, scenery.pine))(c, x, y, size * c.between(1.0, 1.6), _green(c, snow))
            x += size * c.between(0.8, 2.2)


def _far_roofs(c: Canvas, y: float) -> None:
    p = c.palette
    x = -10.0
    outlines = []
    while x < c.w:
        w, h = c.u * c.between(0.06, 0.16), c.u * c.between(0.0, 0.16)
        outlines.append(box(x, y - h, x + w, c.h))
        if c.chance(0.5):
            outlines.append(points((x, y - h), (x + w / 2, y - h - w * 0.5), (x + w, y - h)))
        x += w
    tone = mix(p.sky[1], p.sky[0], 0.6)
    c.paint(c.shape(*outlines), tone, mix(tone, p.sky[2], 0.5))


def _green(c: Canvas, snow: bool) -> Color:
    p = c.palette
    green = mix(
        c.pick((*p.leaf, p.accents[3], mix(p.accents[1], p.leaf[0], 0.3))),
        p.deep,
        c.between(0, 0.25) + (0.3 if p.night else 0),
    )
    return mix(green, p.light, 0.55) if snow else green
