"""How many edits the images of a group show against each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from simimg.similarity.edit_counts import edits_of_cluster
from simimg.similarity.edits import BLUR, COMPRESSION, OVERLAY, SIZE
from simimg.similarity.match_verification import Verification

PLAIN = Verification(1.0, ("resized to 50%",), 30, edits=frozenset((SIZE, COMPRESSION)))
NOISY = Verification(1.0, ("of another sharpness",), 30, edits=frozenset((BLUR,)))
COVERED = Verification(1.0, ("1 place differs",), 30, edits=frozenset((OVERLAY,)))


@pytest.mark.parametrize(
    ("half", "expected"),
    [(PLAIN, [0.0, 0.0, 0.0]), (COVERED, [1.0, 0.0, 0.0]), (None, [1.0, 0.0, 0.0])],
)
def test_an_image_has_as_few_edits_as_its_reduced_copy(half: Verification | None, expected: list[float]) -> None:
    """0 is a photo, 1 is 0 with noise, and 2 is half of 0, which was not verified as a copy of it.

    The noise does not show beside the half.
    """
    found = {(1, 0): NOISY, (2, 1): PLAIN}
    examiner: Any = SimpleNamespace(
        rank=[0, 1, 2],
        copy=lambda row, other: found.get((max(row, other), min(row, other))),
        place=lambda row, other: np.eye(2, 3),
        seen=lambda row, other: half if (row, other) == (2, 0) else found.get((row, other)),
        explain=lambda row, other: half if (row, other) == (2, 0) else found.get((row, other)),
        images=SimpleNamespace(geometric_edits=lambda row, other, place: ()),
    )
    counts = edits_of_cluster(examiner, [1, 0, 2])
    assert [counts[row][0] for row in range(3)] == expected


def test_a_reduced_copy_is_found_among_many() -> None:
    """Row 10 is a noisy photo, and row 11 is half of it; the others have no edits, and more pixels."""
    found = {(10, other): NOISY for other in range(10)}
    examiner: Any = SimpleNamespace(
        rank=range(12),
        copy=lambda row, other: found.get((max(row, other), min(row, other)), PLAIN),
        seen=lambda row, other: found.get((max(row, other), min(row, other)), PLAIN),
        explain=lambda row, other: found.get((max(row, other), min(row, other)), PLAIN),
    )
    counts = edits_of_cluster(examiner, list(range(12)))
    assert counts[10][0] == counts[11][0] == 0
