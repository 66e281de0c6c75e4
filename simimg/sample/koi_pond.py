"""Koi in a pond with lily pads and rings on the water, seen from above."""

from __future__ import annotations

import numpy as np

from simimg.sample.canvas import Canvas
from simimg.sample.outlines import Points, blob, box, ellipse, placed, points, ribbon, smooth
from simimg.sample.palettes import mix


def pond(c: Canvas) -> None:
    """Draws one picture of a pond."""
    p = c.palette
    whole = c.shape(box(0, 0, c.w, c.h))
    ground = c.pick((mix(p.sky[0], p.deep, 0.35), mix(p.leaf[1], p.sky[0], 0.4), mix(p.sky[1], p.sky[0], 0.4)))
    c.paint(whole, mix(ground, p.light, 0.15), mix(ground, p.deep, 0.35), angle=c.pick((45, 90, 135)))
    for _ in range(int(c.rng.integers(3, 8))):
        x, y, r = c.w * c.between(0, 1), c.h * c.between(0, 1), c.u * c.between(0.08, 0.22)
        for k in (1.0, 0.68):
            ring = c.shape(ellipse(x, y, r * k, r * k * 0.92)).without(
                c.shape(ellipse(x, y, r * k * 0.965, r * k * 0.885))
            )
            c.paint(ring, mix(ground, p.light, 0.6), alpha=0.4)
    n = int(c.rng.integers(2, 7))
    for i in range(n):
        angle = i / n * 2 * np.pi + c.between(-0.4, 0.4)
        reach = c.between(0.12, 0.3)
        _koi(
            c,
            c.w * (0.5 + reach * np.cos(angle) * 1.1),
            c.h * (0.5 + reach * np.sin(angle) * 1.1),
            c.u * c.between(0.3, 0.48) * (1 if n < 5 else 0.7),
            angle + 1.6 + c.between(-0.5, 0.5),
        )
    for _ in range(int(c.rng.integers(0, 8))):
        _pad(
            c,
            c.w * c.pick((c.between(-0.02, 0.25), c.between(0.75, 1.02))),
            c.h * c.between(0, 1),
            c.u * c.between(0.05, 0.12),
        )


def _pad(c: Canvas, x: float, y: float, r: float) -> None:
    p = c.palette
    turn = c.between(0, 6)
    edge = np.linspace(0.22, 2 * np.pi - 0.22, 40)
    leaf = np.concatenate([[[0.0, 0.0]], np.stack([np.cos(edge), np.sin(edge)], 1)])
    tone = mix(p.leaf[0], p.leaf[1], c.between(0, 1))
    shape = c.shape(placed(leaf, x, y, r, turn))
    c.shadow(shape, p.deep, -c.light * r * 0.15, r * 0.25, r * 0.15, 0.4)
    c.paint(shape, mix(tone, p.light, 0.1), tone)
    c.pattern(
        shape,
        [
            (
                placed(ribbon(points((0, 0), (np.cos(a), np.sin(a))), 0.012), x, y, r, turn),
                mix(tone, p.light, 0.4),
            )
            for a in np.linspace(0.5, 5.8, 9)
        ],
        0.5,
    )
    c.shade(shape, mix(tone, p.deep, 0.5), 90 + 50 * c.light, 0.45, 1.2, 0.6)


def _koi(c: Canvas, x: float, y: float, length: float, turn: float) -> None:
    p = c.palette
    base, second = (
        (p.light, c.pick(p.accents))
        if c.chance(0.6)
        else (c.pick((p.accents[0], p.accents[1])), mix(p.light, p.sky[2], 0.3))
    )
    bend, phase = c.between(-0.13, 0.13), c.between(0, 6)
    t = np.linspace(-0.5, 0.5, 36)

    def at(outline: Points) -> Points:
        along = outline[:, 0]
        curved = outline + np.stack([0 * along, bend * (along * 2) ** 2 + 0.03 * np.sin(along * 5 + phase)], 1)
        return placed(curved, x, y, length, turn)

    s = t + 0.5
    half = 0.115 * np.sin(np.pi * np.clip(s**0.62 * 0.93 + 0.05, 0, 1)) ** 0.8 + 0.008
    outline = ribbon(np.stack([-t, 0 * t], 1), half)
    tail = smooth(
        points((-0.44, 0.0), (-0.56, -0.09), (-0.72, -0.13), (-0.63, 0.0), (-0.72, 0.11), (-0.56, 0.08)),
        steps=6,
    )
    fins = [tail]
    for side in (-1, 1):
        fins.append(smooth(points((0.22, 0.09), (0.2, 0.2), (0.06, 0.26), (0.08, 0.1)) * (1, side), steps=6))
        fins.append(smooth(points((-0.1, 0.06), (-0.13, 0.13), (-0.22, 0.15), (-0.18, 0.05)) * (1, side), steps=6))
    body = c.shape(at(outline))
    c.shadow(
        c.shape(at(outline), *[at(f) for f in fins]),
        p.deep,
        -c.light * length * 0.06,
        length * 0.1,
        length * 0.03,
        0.45,
    )
    for fin in fins:
        shape = c.shape(at(fin))
        c.paint(shape, mix(base, second, 0.25), alpha=0.85)
        c.shade(shape, mix(base, p.deep, 0.4), np.degrees(turn) + 180, 0.3, 1.2, 0.4)
    c.paint(body, base)
    patches = [
        (
            at(blob(c.rng, float(k), c.between(-0.05, 0.05), c.between(0.05, 0.12), c.between(0.04, 0.09), 0.3)),
            second,
        )
        for k in np.linspace(-0.33, 0.36, int(c.rng.integers(2, 6)))
    ]
    if c.chance(0.4):
        patches += [
            (at(blob(c.rng, c.between(-0.35, 0.3), c.between(-0.06, 0.06), 0.03, 0.025, 0.3)), p.deep) for _ in range(5)
        ]
    c.pattern(body, patches)
    c.shade(body, mix(base, p.deep, 0.6), 180 if c.light > 0 else 0, 0.5, 1.2, 0.5)
    c.pattern(body, [(at(ribbon(points((-0.28, 0), (0.18, 0)), 0.01)), mix(second, p.deep, 0.3))], 0.6)
    for side in (-1, 1):
        c.fill(at(ellipse(0.4, 0.05 * side, 0.014, 0.012)), p.deep)
