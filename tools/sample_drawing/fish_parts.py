"""A fish seen from the side: five proportions, four tails, four fins and five markings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tools.sample_drawing.canvas import Canvas, Shape
from tools.sample_drawing.outlines import Points, blob, ellipse, placed, points, ribbon, smooth
from tools.sample_drawing.palettes import Color, mix

_Place = Callable[[Points], Points]


@dataclasses.dataclass(frozen=True)
class Species:
    """The properties that the fishes of one kind share."""

    depth: float  # half the height of the body as a share of its length
    tail: str
    fin: str
    pattern: str
    colors: tuple[Color, Color, Color]
    nose: float  # where along the body it is deepest: small is near the tail


def random_species(c: Canvas) -> Species:
    """Returns a random species in the colors of the palette."""
    p = c.palette
    order = c.rng.permutation(5)
    colors = [p.accents[k] for k in order[:3]]
    if c.chance(0.5):
        colors[int(c.rng.integers(1, 3))] = mix(p.light, p.sky[2], 0.2)
    return Species(
        depth=c.pick((0.13, 0.18, 0.24, 0.3, 0.4)),
        tail=c.pick(("fork", "fan", "veil", "moon")),
        fin=c.pick(("sail", "long", "shark", "spines")),
        pattern=c.pick(("plain", "bands", "bands", "stripe", "spots", "scales")),
        colors=(colors[0], colors[1], colors[2]),
        nose=c.between(0.75, 1.15),
    )


def fish(c: Canvas, kind: Species, x: float, y: float, length: float, turn: float, heading: int = 0) -> None:
    """Paints a fish seen from the side, its middle at (x, y); `heading` is left (-1), right (1) or either."""
    p = c.palette
    flip = (heading or c.pick((-1, 1))) < 0
    small = length < c.u * 0.2

    def at(outline: Points) -> Points:
        return placed(outline, x, y, length, turn, flip)

    body_color, second, third = (mix(k, p.deep, 0.2) if p.night else k for k in kind.colors)
    t = np.linspace(0, 1, 40)  # from the root of the tail to the nose
    half = kind.depth * (np.sin(np.pi * t**kind.nose * 0.96 + 0.04) ** 0.75 * 0.93 + 0.07 * (1 - t)) * (1 - 0.12 * t)
    spine = np.stack([t - 0.42, np.zeros(40)], 1) * (0.86, 1)
    outline = np.concatenate([spine - np.stack([0 * t, half], 1), (spine + np.stack([0 * t, half * 0.92], 1))[::-1]])
    fin = mix(second, body_color, 0.25)
    _fins(c, kind, at, fin, small)
    body = c.shape(at(outline))
    c.paint(body, body_color, mix(body_color, p.light, 0.35), angle=90)
    c.pattern(body, [(at(o), k) for o, k in _markings(c, kind, second, third)])
    c.shade(body, mix(p.light, second, 0.15), 90, 0.55, 1.1, 0.6)
    c.shade(body, mix(body_color, p.deep, 0.75), 270, 0.55, 1.15, 0.75)
    _face(c, kind, at, body, length, third, small)


def _fins(c: Canvas, kind: Species, at: _Place, fin: Color, small: bool) -> None:
    p = c.palette
    d = max(kind.depth, 0.17)
    tails = {
        "fork": ((-0.32, 0.0), (-0.5, -0.85), (-0.68, -1.1), (-0.54, 0.0), (-0.68, 1.1), (-0.5, 0.85)),
        "fan": ((-0.3, 0.0), (-0.5, -0.8), (-0.62, -0.75), (-0.66, 0.0), (-0.62, 0.75), (-0.5, 0.8)),
        "veil": ((-0.3, 0.0), (-0.5, -0.7), (-0.85, -1.2), (-0.72, -0.1), (-0.9, 0.9), (-0.5, 0.75)),
        "moon": ((-0.33, 0.0), (-0.46, -0.6), (-0.6, -1.45), (-0.48, 0.0), (-0.6, 1.45), (-0.46, 0.6)),
    }
    tail = c.shape(at(smooth(np.array(tails[kind.tail]) * (1, d), steps=6)))
    tops = {
        "sail": ((-0.22, 0.7), (-0.22, 2.0), (0.02, 1.75), (0.2, 0.8), (0.0, 0.5)),
        "long": ((-0.3, 0.4), (-0.32, 1.15), (-0.1, 1.4), (0.22, 1.25), (0.3, 0.7), (0.0, 0.5)),
        "shark": ((-0.12, 0.7), (-0.14, 1.7), (-0.05, 1.75), (0.15, 0.8), (0.0, 0.6)),
        "spines": (
            (-0.28, 0.6),
            (-0.3, 1.2),
            (-0.2, 1.15),
            (-0.16, 1.5),
            (-0.07, 1.25),
            (0.0, 1.6),
            (0.08, 1.25),
            (0.16, 1.45),
            (0.25, 0.7),
        ),
    }
    top = np.array(tops[kind.fin]) * (1, -d)
    dorsal = c.shape(at(top if kind.fin == "spines" else smooth(top, steps=6)))
    under = c.shape(at(smooth(np.array([(-0.3, 0.5), (-0.3, 1.45), (-0.18, 1.3), (-0.02, 0.7)]) * (1, d), steps=6)))
    for shape in (tail, dorsal, under):
        c.paint(shape, fin, mix(fin, p.light, 0.25), angle=0)
        if not small:
            rays = [
                (at(ribbon(points((-0.25, 0), (-0.25 + np.cos(a), np.sin(a))), 0.004)), mix(fin, p.deep, 0.5))
                for a in np.linspace(0, 2 * np.pi, 44)
            ]
            c.pattern(shape, rays, 0.4)
        c.shade(shape, mix(fin, p.deep, 0.6), 90, 0.4, 1.3, 0.5)


def _markings(c: Canvas, kind: Species, second: Color, third: Color) -> list[tuple[Points, Color]]:
    d = kind.depth
    if kind.pattern == "bands":
        pieces = []
        for x in np.linspace(-0.25, 0.27, int(c.rng.integers(2, 6))):
            lean = points((x, -d * 1.2), (x + 0.03, 0), (x - 0.01, d * 1.2))
            path = smooth(lean, closed=False)
            width = c.between(0.025, 0.05)
            pieces += [(ribbon(path, width * 1.35), third), (ribbon(path, width), second)]
        return pieces
    if kind.pattern == "stripe":
        return [
            (
                ribbon(smooth(points((-0.6, d * k), (0, d * (k - 0.12)), (0.6, d * k)), closed=False), d * 0.14),
                (second, third)[i % 2],
            )
            for i, k in enumerate((-0.35, 0.02, 0.38))
        ]
    if kind.pattern == "spots":
        return [
            (blob(c.rng, c.between(-0.33, 0.25), c.between(-0.8, 0.4) * d, s, s, 0.15, 6), second)
            for s in c.rng.uniform(0.015, 0.05, 20).tolist()
        ]
    if kind.pattern == "scales":
        pieces = []
        for i, x in enumerate(np.arange(0.2, -0.42, -0.055)):
            for y in np.arange(-0.42, 0.42, 0.075):
                y += 0.0375 * (i % 2)
                pieces += [
                    (ellipse(x, y, 0.045, 0.04), third),
                    (
                        ellipse(x + 0.008, y, 0.042, 0.036),
                        mix(second, kind.colors[0], 0.3 + 0.6 * abs(y) / d),
                    ),
                ]
        return pieces
    return [
        (
            np.concatenate(
                [
                    smooth(points((-0.6, 0.3 * d), (0, 0.35 * d), (0.6, 0.2 * d)), closed=False),
                    points((0.6, 1), (-0.6, 1)),
                ]
            ),
            second,
        )
    ]


def _face(c: Canvas, kind: Species, at: _Place, body: Shape, length: float, third: Color, small: bool) -> None:
    p = c.palette
    d = kind.depth
    gill = smooth(points((0.2, -0.55 * d), (0.16, 0.0), (0.2, 0.55 * d)), closed=False)
    c.pattern(body, [(at(ribbon(gill, 0.008)), p.deep)], 0.45)
    eye, r = (0.32, -0.2 * d), 0.028 + 0.05 * d
    c.fill(at(ellipse(*eye, r, r)), p.light)
    c.fill(at(ellipse(eye[0] + r * 0.12, eye[1], r * 0.68, r * 0.68)), p.deep)
    if not small:
        c.fill(at(ellipse(eye[0] + r * 0.25, eye[1] - r * 0.3, r * 0.24, r * 0.24)), p.light)
        mouth = smooth(points((0.36, 0.26 * d), (0.42, 0.2 * d), (0.5, 0.12 * d)), closed=False)
        c.pattern(body, [(at(ribbon(mouth, 0.008)), p.deep)], 0.6)
    flap = smooth(points((0.14, 0.12 * d), (-0.02, 0.05 * d), (-0.1, 0.5 * d), (0.04, 0.55 * d)), steps=6)
    pectoral = c.shape(at(flap))
    c.paint(pectoral, mix(third, p.light, 0.15))
    c.shade(pectoral, mix(third, p.deep, 0.5), 90, 0.3, 1.2, 0.5)
