"""Fishes: a portrait, a few or a school; in open water, among reefs and weeds."""

from __future__ import annotations

import numpy as np

from tools.sample_drawing.canvas import Canvas
from tools.sample_drawing.fish_parts import Species, fish, random_species
from tools.sample_drawing.outlines import Points, blob, box, ellipse, placed, points, ribbon, skyline, smooth
from tools.sample_drawing.palettes import mix


def draw(c: Canvas) -> None:
    """Draws one image of fishes."""
    _sea(c)
    kind = c.pick(("portrait", "few", "few", "school", "mixed"))
    if kind == "portrait":
        fish(
            c,
            random_species(c),
            c.w * c.between(0.42, 0.58),
            c.h * c.between(0.4, 0.6),
            min(c.w * 0.75, c.u * c.between(0.55, 0.85)),
            0,
        )
    elif kind == "school":
        _school(c)
    else:
        n = int(c.rng.integers(2, 5)) if kind == "few" else int(c.rng.integers(5, 9))
        kinds = [random_species(c) for _ in range(1 if c.chance(0.4) else 3)]
        _scatter(c, kinds, n, 0.24, 0.42) if kind == "few" else _scatter(c, kinds, n, 0.12, 0.3)
    if c.chance(0.5):
        _weeds(c, c.h * 1.02, near=True)
    _bubbles(c)


def _sea(c: Canvas) -> None:
    p = c.palette
    whole = c.shape(box(0, 0, c.w, c.h))
    low = mix(p.sky[0], p.deep, c.between(0.15, 0.7))
    top = c.pick((p.sky[1], p.sky[2], mix(p.sky[1], p.sky[0], 0.5)))
    c.paint(whole, mix(top, p.light, 0.15), mix(p.sky[0], top, 0.35), low, angle=c.pick((75, 90, 105)))
    if c.chance(0.6):
        x = c.w * c.between(-0.1, 1.1)
        for _ in range(int(c.rng.integers(3, 8))):
            a, width, lean = (
                x + c.w * c.between(-0.35, 0.35),
                c.w * c.between(0.02, 0.08),
                c.w * c.between(-0.25, 0.25),
            )
            ray = c.shape(
                points(
                    (a - width * 0.4, -5),
                    (a + width * 0.4, -5),
                    (a + lean + width * 1.8, c.h),
                    (a + lean - width * 1.8, c.h),
                )
            )
            c.shade(ray, mix(p.light, top, 0.3), 270, 0.0, 1.3, 0.35, "mist")
    if c.chance(0.65):
        floor = c.between(0.78, 0.93)
        far = mix(low, p.sky[0], 0.3)
        for i in range(2):
            crest = skyline(c.rng, 60, fade=0.45) * (c.w * 1.04, c.u * 0.07) + (
                -c.w * 0.02,
                c.h * (floor - 0.12 + 0.12 * i),
            )
            sand = mix(far, mix(p.sky[2], p.accents[1], 0.35), 0.25 + 0.6 * i)
            shape = c.fill(np.concatenate([crest, points((c.w, c.h + 9), (0, c.h + 9))]), sand, mix(sand, p.deep, 0.3))
            c.shade(shape, mix(sand, p.light, 0.4), 270, 0.6, 1.1, 0.6)
            if i == 0 and c.chance(0.6):
                _weeds(c, c.h * floor, near=False)
        if c.chance(0.7):
            _reef(c, c.h * floor)
    elif c.chance(0.6):
        _weeds(c, c.h * 1.03, near=False)


def _weeds(c: Canvas, y: float, near: bool) -> None:
    p = c.palette
    middle = c.w * c.pick((0.08, 0.2, 0.8, 0.92))
    for _ in range(int(c.rng.integers(2, 7))):
        height, x = c.u * c.between(0.15, 0.55) * (0.8 if near else 1), middle + c.w * c.between(-0.14, 0.14)
        t = np.linspace(0, 1, 22)
        path = np.stack([x + np.sin(t * c.between(3, 7) + c.between(0, 6)) * height * 0.09 * t, y - t * height], 1)
        tone = mix(c.pick((p.leaf[0], p.leaf[1], p.accents[0])), p.deep if near else p.sky[0], c.between(0.3, 0.6))
        if c.chance(0.5):
            c.fill(
                ribbon(path, height * 0.05 * np.sin(np.pi * np.clip(t * 0.9 + 0.1, 0, 1)) ** 0.7),
                tone,
                mix(tone, p.deep, 0.3),
            )
        else:
            leaves = [ribbon(path, height * 0.008)]
            leaf = points((0, 0), (0.5, -0.16), (1, 0), (0.5, 0.16))
            for k in range(3, 22, 2):
                side = 1 if k % 4 == 1 else -1
                leaves.append(
                    placed(
                        smooth(leaf, steps=4),
                        path[k, 0],
                        path[k, 1],
                        height * 0.15 * (1.15 - t[k]),
                        -0.6,
                        flip=side < 0,
                    )
                )
            c.paint(c.shape(*leaves), tone, mix(tone, p.deep, 0.3))


def _reef(c: Canvas, y: float) -> None:
    p = c.palette
    for _ in range(int(c.rng.integers(2, 7))):
        x, size = c.w * c.between(0, 1), c.u * c.between(0.06, 0.17)
        tone = mix(c.pick(p.accents), p.sky[0], c.between(0.1, 0.45))
        kind = c.pick(("branch", "fan", "stone"))
        if kind == "branch":
            arms: list[Points] = []
            _branch(c, arms, x, y + size * 0.2, -np.pi / 2, size * 0.5, 3)
            shape = c.shape(*arms)
        elif kind == "fan":
            shape = c.shape(
                *[
                    ribbon(
                        points((x, y + size * 0.2), (x + np.sin(a) * size, y - np.cos(a) * size)),
                        np.array([size * 0.03, size * 0.11]),
                    )
                    for a in np.linspace(-0.9, 0.9, 7)
                ]
            )
        else:
            shape = c.shape(blob(c.rng, x, y + size * 0.1, size * 0.8, size * (0.6 if kind == "brain" else 0.4), 0.1))
            tone = tone if kind == "brain" else mix(tone, p.deep, 0.5)
        c.paint(shape, mix(tone, p.light, 0.15), mix(tone, p.deep, 0.35))
        c.shade(shape, mix(tone, p.light, 0.5), 270 + 40 * c.light, 0.55, 1.2, 0.7)


def _branch(c: Canvas, arms: list[Points], x: float, y: float, angle: float, length: float, depth: int) -> None:
    tip_x, tip_y = x + np.cos(angle) * length, y + np.sin(angle) * length
    arms.append(ribbon(points((x, y), (tip_x, tip_y)), length * 0.14))
    arms.append(ellipse(tip_x, tip_y, length * 0.14, length * 0.14))
    if depth:
        for turn in (-0.5, 0.45):
            _branch(
                c,
                arms,
                tip_x,
                tip_y,
                angle + turn + c.between(-0.15, 0.15),
                length * c.between(0.6, 0.8),
                depth - 1,
            )


def _bubbles(c: Canvas) -> None:
    for _ in range(int(c.rng.integers(0, 4))):
        x, y = c.between(0, c.w), c.between(c.h * 0.3, c.h)
        for _ in range(int(c.rng.integers(2, 8))):
            r = c.u * c.between(0.004, 0.016)
            ring = c.shape(ellipse(x, y, r, r)).without(c.shape(ellipse(x, y, r * 0.78, r * 0.78)))
            c.paint(ring, c.palette.light, alpha=0.75)
            c.fill(ellipse(x - r * 0.35, y - r * 0.35, r * 0.2, r * 0.2), c.palette.light)
            x += c.u * c.between(-0.02, 0.02)
            y -= c.u * c.between(0.025, 0.06)


def _school(c: Canvas) -> None:
    kind = random_species(c)
    n = int(c.rng.integers(9, 22))
    heading = c.pick((-1, 1))
    flow = c.between(-0.35, 0.35)
    places: list[tuple[float, float]] = []
    for _ in range(n * 8):
        x, y = c.w * c.between(0.03, 0.97), c.h * c.between(0.1, 0.9)
        if all(abs(x - a) > c.u * 0.15 or abs(y - b) > c.u * 0.085 for a, b in places):
            places.append((x, y))
    for x, y in places[:n]:
        fish(
            c,
            kind,
            x,
            y,
            c.u * c.between(0.12, 0.17),
            flow * np.cos(x / c.w * 3) + c.between(-0.08, 0.08),
            heading,
        )


def _scatter(c: Canvas, kinds: list[Species], n: int, low: float, high: float) -> None:
    placed_at: list[tuple[float, float, float]] = []
    for _ in range(n * 15):
        size = c.u * c.between(low, high)
        x, y = c.w * c.between(0.12, 0.88), c.h * c.between(0.12, 0.85)
        if all(np.hypot((x - a) / 1.2, y - b) > 0.42 * (size + s) for a, b, s in placed_at):
            placed_at.append((x, y, size))
    for x, y, size in sorted(placed_at[:n], key=lambda place: place[2]):
        fish(c, c.pick(kinds), x, y, size, c.between(-0.25, 0.25))
