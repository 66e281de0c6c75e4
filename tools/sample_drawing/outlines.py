"""Outlines: closed curves as float64 arrays of points [n, 2] (x right, y down, in canvas pixels)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Rng = np.random.Generator


def points(*pairs: tuple[float, float]) -> Points:
    """Returns the corners given as (x, y)."""
    return np.array(pairs, np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Returns a rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """Returns an ellipse around (x, y), turned by `turn` radians."""
    return placed(_circle(24 if max(rx, ry) < 12 else 40 if max(rx, ry) < 60 else 90) * (rx, ry), x, y, turn=turn)


def placed(outline: Points, x: float, y: float, size: float = 1.0, turn: float = 0.0, flip: bool = False) -> Points:
    """Returns an outline around (0, 0) mirrored, scaled, turned (radians) and moved to (x, y), in that order."""
    cos, sin = size * math.cos(turn), size * math.sin(turn)
    across, down = outline[:, 0] * (-1.0 if flip else 1.0), outline[:, 1]
    moved = np.empty((len(outline), 2))
    moved[:, 0] = across * cos - down * sin + x
    moved[:, 1] = across * sin + down * cos + y
    return moved


def smooth(corners: Points, *, closed: bool = True, steps: int = 8) -> Points:
    """Returns the Catmull-Rom curve through the corners, with `steps` points per corner."""
    if closed:
        p = np.concatenate([corners[-1:], corners, corners[:2]])
    else:
        p = np.concatenate([2 * corners[:1] - corners[1:2], corners, 2 * corners[-1:] - corners[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, corners[-1:]])


def ribbon(path: Points, half_widths: float | npt.NDArray[np.float64]) -> Points:
    """Returns the outline of a brush stroke along a path; half widths are one number or one per point."""
    along = np.empty_like(path, np.float64)
    along[1:-1] = path[2:] - path[:-2]
    along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along *= (half_widths / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9))[:, None]
    across = along[:, ::-1] * (-1.0, 1.0)
    return np.concatenate([path + across, (path - across)[::-1]])


def blob(rng: Rng, x: float, y: float, rx: float, ry: float, rough: float = 0.15, corners: int = 9) -> Points:
    """Returns a soft pebble; `rough` is how far it strays from an ellipse, as a share of the radius."""
    angle = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * (2 * np.pi / corners)
    radius = 1 + rng.uniform(-rough, rough, corners)
    return smooth(np.stack([x + np.cos(angle) * radius * rx, y + np.sin(angle) * radius * ry], 1))


def skyline(rng: Rng, n: int, octaves: int = 5, start: int = 2, fade: float = 0.5, jagged: bool = False) -> Points:
    """Returns n heights in about -1..1 that wander like a ridge, as a curve [n, 2] over x in 0..1.

    Args:
        rng: where the heights come from.
        n: number of points.
        octaves: each has twice the corners and `fade` times the height of the one before.
        start: corners of the first octave.
        fade: 0.5 is rocky, 0.3 is rolling.
        jagged: straight lines between the corners instead of soft ones.
    """
    x = np.linspace(0, 1, n)
    y = np.zeros(n)
    total = 0.0
    for octave in range(octaves):
        corners = start * 2**octave + 1
        heights = rng.uniform(-1, 1, corners + 1)
        place = x * (corners - 1) + (0 if octave == 0 else rng.uniform(0, 1))
        cell = np.minimum(place.astype(int), corners - 1)
        t = place - cell
        if not jagged:
            t = t * t * (3 - 2 * t)
        y += fade**octave * (heights[cell] * (1 - t) + heights[cell + 1] * t)
        total += fade**octave
    return np.stack([x, y / total * 1.4], 1)


def outline_of(half_width: Sequence[tuple[float, float]], steps: int = 6) -> Points:
    """Returns the symmetric outline of a profile [(y, half width), …] from top to bottom, around x = 0."""
    right = smooth(np.array([(w, y) for y, w in half_width], np.float64), closed=False, steps=steps)
    return np.concatenate([right, (right * np.array([-1.0, 1.0]))[::-1]])


@functools.cache
def _circle(n: int) -> Points:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)
