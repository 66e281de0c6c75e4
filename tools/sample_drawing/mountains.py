"""Mountains: alpine ranges, a lone volcano, rolling ridges; with lakes, forests and mist."""

from __future__ import annotations

import numpy as np

from tools.sample_drawing import scenery
from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.outlines import Points, Rng, box, points, skyline
from tools.sample_drawing.palettes import Color, mix


def draw(c: Canvas) -> None:
    """Draws one image of mountains."""
    horizon = c.between(0.55, 0.82)
    scenery.sky(c, horizon)
    kind = c.pick(("alps", "alps", "volcano", "ridges", "ridges"))
    if kind == "ridges":
        _ridges(c)
    else:
        p = c.palette
        far = mix(p.sky[2], p.sky[0], 0.45)
        for i in range(int(c.rng.integers(0, 3))):
            tone = mix(far, p.deep, 0.1 + 0.12 * i)
            scenery.hill(
                c,
                c.h * (horizon - 0.2 + 0.07 * i),
                c.u * c.between(0.06, 0.12),
                tone,
                mix(tone, p.sky[2], 0.5),
                fade=0.5,
            )
        if kind == "alps":
            _alps(c, horizon)
        else:
            _peak(
                c,
                c.w * c.between(0.3, 0.7),
                c.h * c.between(0.14, 0.34),
                c.h * (horizon + 0.04),
                c.between(0.9, 1.4),
                True,
            )
        _mist(c, c.h * horizon)
        _foot(c, horizon)
    scenery.weather(c)


def _rock(c: Canvas) -> Color:
    p = c.palette
    tone = c.pick(
        (
            mix(p.accents[2], p.sky[0], 0.3),
            mix(p.accents[4], p.deep, 0.3),
            mix(p.sky[0], p.deep, 0.45),
            mix(p.accents[0], p.deep, 0.4),
        )
    )
    return mix(tone, p.deep, 0.35) if p.night else tone


def _alps(c: Canvas, horizon: float) -> None:
    n = int(c.rng.integers(2, 6))
    places = (np.arange(n) + 0.5 + c.rng.uniform(-0.35, 0.35, n)) / n
    tops = c.rng.uniform(0.14, 0.48, n)
    tops[int(c.rng.integers(n))] = c.between(0.1, 0.2)
    rock = _rock(c)
    for k in np.argsort(tops)[::-1] if c.chance(0.5) else np.argsort(tops):
        tone = mix(rock, c.palette.sky[1], float(0.35 * (tops[k] > 0.3)) + c.between(0, 0.12))
        _peak(c, c.w * places[k], c.h * tops[k], c.h * (horizon + 0.05), c.between(0.55, 1.0), False, tone)


def _peak(c: Canvas, x: float, top: float, foot: float, slope: float, volcano: bool, rock: Color | None = None) -> None:
    p = c.palette
    rock = rock or _rock(c)
    height = foot - top
    reach = height * slope + c.u * 0.06
    left, right = _flank(c.rng, x, top, foot, -reach, volcano), _flank(c.rng, x, top, foot, reach, volcano)
    body = c.shape(np.concatenate([left[::-1], right]))
    lit, dark = mix(rock, p.light, 0.3), mix(rock, p.deep, 0.4)
    c.paint(body, lit, mix(lit, p.sky[2], 0.35))
    # The arris: a line that wanders down from the summit and parts the lit face from the face in shadow.
    steps = 12
    wander = np.cumsum(c.rng.uniform(-1, 1, steps)) * height * (0.02 if volcano else 0.035)
    arris = np.stack(
        [
            x + wander - wander[0] - c.light * np.linspace(0, 0.16, steps) * height,
            np.linspace(top, foot, steps),
        ],
        1,
    )
    dark_flank = left if c.light > 0 else right
    shadow = c.shape(np.concatenate([dark_flank[::-1], arris])).within(body)
    c.paint(shadow, dark, mix(dark, p.sky[1], 0.3))
    snow = c.between(0.15, 0.62) if c.chance(0.8) else 0.0
    if snow:
        line = top + height * snow
        teeth = 2 * int(c.rng.integers(5, 10)) + 1
        xs = np.linspace(x - reach, x + reach, teeth)
        drop = np.where(np.arange(teeth) % 2 == 0, -0.5, 0.5) * height * 0.15 * c.rng.uniform(0.4, 1.3, teeth)
        cap = np.concatenate([np.stack([xs, line + drop], 1), points((x + reach, top - 9), (x - reach, top - 9))])
        snowcap = c.shape(cap).within(body)
        white = mix(p.light, p.sky[1], 0.5 if p.night else 0.04)
        c.paint(snowcap, white)
        c.paint(snowcap.within(shadow), mix(white, mix(p.sky[0], p.deep, 0.2), 0.5))
    for _ in range(int(c.rng.integers(4, 10))):
        t = c.between(0.25, 0.9)
        side = c.pick((-1, 1))
        sx, sy = x + side * reach * t * c.between(0.1, 0.8), top + height * t
        rib = points(
            (sx, sy),
            (sx + side * height * 0.06, sy + height * 0.13),
            (sx + side * height * 0.02, sy + height * 0.15),
        )
        c.paint(c.shape(rib).within(body), mix(dark, rock, 0.5), alpha=0.6)
    c.shade(body, p.deep, 90 + 70 * c.light if c.light > 0 else 20 + 140, 0.55, 1.35, 0.45, "brush")
    c.shade(body, mix(p.sky[2], p.light, 0.3), 90, 0.55, 1.05, 0.7, "mist")


def _flank(rng: Rng, x: float, top: float, foot: float, reach: float, volcano: bool) -> Points:
    t = np.linspace(0, 1, 16)
    rough = np.concatenate([[0], rng.uniform(-1, 1, 15)])
    # A volcano flares like a trumpet from a small crater; other peaks are straight and rough.
    along = 0.05 + 0.95 * t**1.5 + 0.008 * rough if volcano else t + 0.045 * rough
    return np.stack([x + reach * along, top + (foot - top) * t], 1)


def _ridges(c: Canvas) -> None:
    p = c.palette
    n = int(c.rng.integers(4, 8))
    far, near = (
        mix(p.sky[2], p.sky[1], 0.6),
        c.pick((p.deep, mix(p.leaf[1], p.deep, 0.4), mix(p.accents[2], p.deep, 0.55))),
    )
    if c.chance(0.35):
        far = mix(far, c.pick(p.accents), 0.35)
    start, jagged = c.between(0.25, 0.45), c.chance(0.45)
    for i in range(n):
        t = i / (n - 1)
        tone = mix(far, near, t**1.1)
        crest = skyline(
            c.rng, 140, octaves=6, start=int(c.rng.integers(2, 4)), fade=c.between(0.42, 0.55), jagged=jagged
        )
        crest = crest * (c.w * 1.02, c.h * c.between(0.08, 0.16)) + (
            -c.w * 0.01,
            c.h * (start + (0.98 - start) * t),
        )
        shape = c.shape(np.concatenate([crest, points((c.w * 1.01, c.h), (-c.w * 0.01, c.h))]))
        c.paint(shape, tone, mix(tone, p.sky[2], 0.55 * (1 - t)))
        c.shade(shape, mix(tone, p.light, 0.5), 270 + 30 * c.light, 0.7, 1.15, 0.4)
        if i >= n - 2 and c.chance(0.55):
            _forest(c, crest, mix(tone, p.deep, 0.25), c.u * (0.05 + 0.09 * t))


def _mist(c: Canvas, y: float) -> None:
    if c.chance(0.55):
        depth = c.u * c.between(0.08, 0.2)
        c.shade(
            c.shape(box(0, y - depth, c.w, y + depth)),
            mix(c.palette.sky[2], c.palette.light, 0.5),
            90,
            0.0,
            0.9,
            0.8,
            "mist",
        )


def _foot(c: Canvas, horizon: float) -> None:
    p = c.palette
    wood = mix(p.leaf[1], p.deep, 0.55 if p.night else 0.2)
    if c.chance(0.45):
        scenery.water(c, c.h * horizon, c.between(0.2, 1))
        shore = np.array([(0.0, c.h * horizon), (c.w, c.h * horizon)])
        _forest(c, shore, mix(wood, p.sky[1], 0.25), c.u * 0.035)
        if c.chance(0.5):
            crest = scenery.hill(c, c.h * 0.95, c.u * 0.05, wood, mix(wood, p.deep, 0.5))
            _forest(c, crest, mix(wood, p.deep, 0.35), c.u * c.between(0.12, 0.3))
        return
    crests = scenery.land(c, horizon, int(c.rng.integers(1, 4)))
    if c.chance(0.75):
        for crest in crests[-2:]:
            _forest(c, crest, mix(wood, p.deep, c.between(0, 0.4)), c.u * c.between(0.06, 0.2))


def _forest(c: Canvas, crest: Points, color: Color, height: float) -> None:
    density = c.between(0.25, 0.9)
    x = c.between(0, height * 0.3)
    while x < c.w:
        if c.chance(density):
            y = float(np.interp(x, crest[:, 0], crest[:, 1])) + height * 0.12
            scenery.pine(c, x, y, height * c.between(0.6, 1.15), mix(color, c.palette.leaf[0], c.between(0, 0.25)))
        x += height * c.between(0.2, 0.55)
