"""Hot-air balloons: one or a fleet, with five kinds of cloth, over hills, mountains, lakes or clouds."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tools.sample_drawing import scenery
from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.outlines import Points, box, ellipse, outline_of, placed, points, ribbon
from tools.sample_drawing.palettes import Color, luminance, mix

_Numbers = float | npt.NDArray[np.float64]

_PROFILE = (
    (-1.0, 0.0),
    (-0.97, 0.24),
    (-0.82, 0.58),
    (-0.45, 0.92),
    (0.0, 1.0),
    (0.4, 0.9),
    (0.85, 0.6),
    (1.22, 0.3),
    (1.42, 0.17),
)
_MOUTH = 1.42


def draw(c: Canvas) -> None:
    """Draws one image of balloons."""
    ground = _backdrop(c)
    for x, y, radius, haze in _places(c, ground):
        _balloon(c, x, y, radius, haze)
    scenery.weather(c)


def _backdrop(c: Canvas) -> float:
    p = c.palette
    kind = c.pick(("hills", "hills", "range", "lake", "clouds", "open"))
    horizon = c.between(0.68, 0.9)
    scenery.sky(c, horizon)
    if kind == "clouds":
        for i in range(3):
            scenery.bank(c, c.h * (0.72 + 0.1 * i), 0.4 + 0.25 * i)
    elif kind == "open":
        return 1.1
    else:
        if kind != "hills":
            for i in range(2):
                tone = mix(mix(p.sky[2], p.sky[0], 0.5), p.deep, 0.15 * i)
                scenery.hill(c, c.h * (horizon - 0.1 + 0.06 * i), c.u * 0.1, tone, mix(tone, p.sky[2], 0.6), fade=0.5)
        if kind == "lake":
            scenery.water(c, c.h * horizon, 0.7)
        else:
            crests = scenery.land(c, horizon, int(c.rng.integers(2, 5)))
            for crest in crests:
                for _ in range(int(c.rng.integers(0, 7))):
                    x = c.between(0, c.w)
                    y = float(np.interp(x, crest[:, 0], crest[:, 1]))
                    plant = c.pick((scenery.tree, scenery.pine))
                    plant(
                        c,
                        x,
                        y + c.u * 0.01,
                        c.u * c.between(0.03, 0.08),
                        mix(p.leaf[1], p.deep, c.between(0, 0.4)),
                    )
    return horizon


def _places(c: Canvas, ground: float) -> list[tuple[float, float, float, float]]:
    kind = c.pick(("one", "close", "few", "few", "fleet", "fleet"))
    if kind == "one":
        radius = c.u * c.between(0.2, 0.29)
        return [(c.w * c.between(0.35, 0.65), c.h * c.between(0.3, 0.45), radius, 0.0)]
    if kind == "close":
        radius = c.u * c.between(0.36, 0.55)
        first = (c.w * c.pick((0.12, 0.3, 0.75, 0.9)), c.h * c.between(0.2, 0.6), radius, 0.0)
        rest = _spread(c, int(c.rng.integers(0, 4)), 0.04, 0.1, ground)
        return [*rest, first]
    if kind == "few":
        return _spread(c, int(c.rng.integers(2, 5)), 0.08, 0.19, ground)
    return _spread(c, int(c.rng.integers(6, 15)), 0.025, 0.12, ground)


def _spread(c: Canvas, n: int, low: float, high: float, ground: float) -> list[tuple[float, float, float, float]]:
    found: list[tuple[float, float, float, float]] = []
    for _ in range(n * 12):
        radius = c.u * (low + (high - low) * c.rng.random() ** 1.5)
        x, y = c.w * c.between(0.02, 0.98), c.h * c.between(0.1, max(0.3, ground - 0.12))
        if all(np.hypot(x - a, (y - b) * 0.75) > 1.15 * (radius + r) for a, b, r, _ in found):
            found.append((x, y, radius, 0.55 * (1 - radius / (c.u * high))))
        if len(found) == n:
            break
    return sorted(found, key=lambda place: place[2])


def _balloon(c: Canvas, x: float, y: float, radius: float, haze: float) -> None:
    p = c.palette
    air = mix(p.sky[1], p.sky[2], 0.5)

    def tone(color: Color) -> Color:
        return mix(mix(color, p.deep, 0.25) if p.night else color, air, haze)

    order = c.rng.permutation(5)
    colors = [tone(p.accents[k]) for k in order[:3]]
    if c.chance(0.45):
        colors[1] = tone(p.light)
    tilt = c.between(-0.07, 0.07)
    profile = outline_of(_PROFILE)
    envelope = c.shape(placed(profile, x, y, radius, tilt))
    _basket(c, x, y, radius, tilt, tone)
    c.paint(envelope, colors[0])
    c.pattern(
        envelope,
        ((placed(o, x, y, radius, tilt), color) for o, color in _cloth(c, colors, radius > c.u * 0.06)),
    )
    if radius > c.u * 0.05:
        seams = [(placed(_gore(a, a + 0.025), x, y, radius, tilt), tone(p.deep)) for a in np.linspace(-1.35, 1.35, 9)]
        c.pattern(envelope, seams, 0.28)
    dark = mix(colors[0], tone(p.deep), 0.75)
    c.shade(envelope, dark, 180 if c.light > 0 else 0, 0.48, 1.12, 0.75)
    c.shade(envelope, dark, 90, 0.6, 1.15, 0.6)
    c.spot(envelope, mix(p.light, air, haze), x + c.light * radius * 0.45, y - radius * 0.4, radius * 0.75, 0.75)
    if p.night or c.chance(0.12):
        c.spot(envelope, mix(p.accents[1], p.light, 0.5), x, y + radius * 1.2, radius * 1.5, 0.9)
        c.glow(x, y + radius * 0.9, radius * 1.4, mix(p.accents[1], p.light, 0.4), 0.35)


def _width(v: float) -> float:
    return float(np.interp(v, [a for a, _ in _PROFILE], [b for _, b in _PROFILE]))


def _around(angle: _Numbers, v: _Numbers) -> Points:
    """Returns where points of the cloth lie: `angle` is the longitude (0 faces us), `v` the height (-1 at the top)."""
    width = np.interp(v, [a for a, _ in _PROFILE], [b for _, b in _PROFILE])
    # Seen from a little below, the near side of every ring lies higher than its far side.
    return np.stack(np.broadcast_arrays(width * np.sin(angle), v - 0.13 * width * np.cos(angle)), -1)


def _gore(a: float, b: float, top: float = -1.0, foot: float = _MOUTH + 0.1) -> Points:
    v = np.linspace(top, foot, 18)
    return np.concatenate([_around(a, v), _around(b, v)[::-1]])


def _ring(top: float, foot: float, a: float = -np.pi / 2, b: float = np.pi / 2) -> Points:
    angle = np.linspace(a, b, 18)
    return np.concatenate([_around(angle, top), _around(angle, foot)[::-1]])


def _cloth(c: Canvas, colors: list[Color], detailed: bool) -> list[tuple[Points, Color]]:
    """Returns pieces of cloth around (0, 0) for a balloon of radius 1."""
    n = int(c.rng.integers(8, 15)) if detailed else 6
    edges = np.linspace(-np.pi / 2, np.pi / 2, n + 1) + c.between(-0.1, 0.1)
    gores = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    kind = c.pick(("stripes", "stripes", "rings", "zigzag", "checkers", "spots"))
    pieces: list[tuple[Points, Color]] = []
    if kind == "stripes":
        cycle = c.pick((2, 3))
        pieces = [(_gore(a, b), colors[k % cycle]) for k, (a, b) in enumerate(gores)]
    elif kind == "rings":
        levels = np.linspace(-0.9, 1.3, int(c.rng.integers(4, 9)))
        pieces = [(_ring(a, b), colors[k % 3]) for k, (a, b) in enumerate(itertools.pairwise(levels))]
    elif kind == "zigzag":
        angle = np.linspace(-np.pi / 2, np.pi / 2, 2 * n + 1)
        teeth = np.where(np.arange(2 * n + 1) % 2 == 0, -0.13, 0.13)
        start, step = c.between(-0.75, -0.4), c.between(0.2, 0.32)
        for k in range(int(c.rng.integers(2, 6))):
            top = start + k * step
            band = np.concatenate([_around(angle, top + teeth), _around(angle, top + teeth + step)[::-1]])
            pieces.append((band, colors[1 + k % 2]))
    elif kind == "checkers":
        levels = np.linspace(-0.95, 1.3, 6)
        for j, (top, foot) in enumerate(zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True)):
            pieces += [(_ring(top, foot, a, b), colors[(k + j) % 2]) for k, (a, b) in enumerate(gores)]
    else:
        for v in np.linspace(-0.7, 0.9, 5):
            for a in np.linspace(-1.2, 1.2, 6) + (0.2 if round(v * 10) % 2 else 0.0):
                x, y = _around(float(a), float(v)).tolist()
                pieces.append((ellipse(x, y, 0.13 * np.cos(a) * (0.4 + 0.6 * _width(v)), 0.12), colors[1]))
    if kind != "rings" and c.chance(0.4):
        pieces.append((_ring(0.95, _MOUTH + 0.1), colors[2]))
    return pieces


def _basket(c: Canvas, x: float, y: float, radius: float, tilt: float, tone: Callable[[Color], Color]) -> None:
    p = c.palette
    rope, cane = tone(mix(p.deep, p.sky[0], 0.15)), tone(mix(p.accents[1], p.deep, 0.4))
    thick = max(c.u * 0.0016, radius * 0.012)
    for side in (-0.15, -0.06, 0.06, 0.15):
        line = points((side, _MOUTH - 0.1), (side * 0.8, 1.82))
        c.fill(placed(ribbon(line, thick / radius), x, y, radius, tilt), rope)
    if radius > c.u * 0.07 and c.chance(0.8):
        for side in (-0.04, 0.05):
            c.fill(
                placed(ellipse(side, 1.73, 0.026, 0.034), x, y, radius, tilt),
                tone(mix(p.deep, p.accents[0], 0.3)),
            )
            c.fill(placed(box(side - 0.03, 1.76, side + 0.03, 1.85), x, y, radius, tilt), tone(p.accents[2]))
    body = points((-0.14, 1.8), (0.14, 1.8), (0.115, 2.02), (-0.115, 2.02))
    basket = c.fill(placed(body, x, y, radius, tilt), cane, mix(cane, p.deep, 0.35))
    if radius > c.u * 0.07:
        weave = mix(cane, p.light if luminance(cane) < 0.5 else p.deep, 0.35)
        rows = [(placed(box(-0.2, v, 0.2, v + 0.016), x, y, radius, tilt), weave) for v in (1.86, 1.91, 1.96)]
        c.pattern(basket, rows, 0.7)
    c.fill(placed(ribbon(points((-0.15, 1.81), (0.15, 1.81)), 0.022), x, y, radius, tilt), mix(cane, p.deep, 0.4))
