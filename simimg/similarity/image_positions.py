"""Images that are the same but for their position (turned by quarters, mirrored), size and compression.

One of them represents all where neighbors are searched for, so that each picture is examined once. But a mirrored image
may be far from a crop of the original by its embedding, so a picture is also found by one image in each other position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from simimg.similarity.match_verification import Verification

Position = tuple[int, ...]
"""The linear part of the map from an image's unit square to another one's, by rows: (1, 0, 0, 1) is upright."""

_UPRIGHT: Position = (1, 0, 0, 1)
_SAME = 0.96  # similarity of images that are the same but for their position, size and compression
_TOLERANCE = 0.01  # of that map


def represented_rows(copies: Iterable[tuple[int, int, Verification]]) -> dict[int, tuple[int, Position]]:
    """Return the rows that another one represents, with that row and their position to it, in the order of `copies`.

    `copies` are a row, another one of which it is a copy that differs in nothing at full size, and the verification.
    What comes first decides.
    """
    found: dict[int, tuple[int, Position]] = {}
    for row, other, copy in copies:
        position = _position(copy)
        if position is not None and row not in found and other not in found:
            found[row] = other, position
    return found


def further_positions(represented: Mapping[int, tuple[int, Position]]) -> dict[int, int]:
    """Return one row for each position in which no other row shows the row that represents it, with the latter."""
    shown = {(representative, _UPRIGHT) for representative, _ in represented.values()}
    found = {}
    for row, place in represented.items():
        if place not in shown:
            shown.add(place)
            found[row] = place[0]
    return found


def _position(copy: Verification) -> Position | None:
    """Return in which of the eight positions one whole image lies in another one, None if in none."""
    linear = np.array([copy.place[number] for number in (0, 1, 3, 4)])
    nearest = np.rint(linear)
    is_whole = np.abs(linear - nearest).max() < _TOLERANCE and np.abs(nearest).sum() == 2
    return tuple(nearest.astype(int).tolist()) if is_whole and copy.similarity >= _SAME else None
