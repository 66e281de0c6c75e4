"""What the tests of decoding share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def turned_upright() -> dict[int, Callable[[np.ndarray], np.ndarray]]:
    """What each EXIF orientation asks a viewer to do with the stored rows and columns (TIFF 6.0, tag 274)."""
    return {
        1: lambda stored: stored,
        2: lambda stored: stored[:, ::-1],
        3: lambda stored: stored[::-1, ::-1],
        4: lambda stored: stored[::-1],
        5: lambda stored: stored.transpose(1, 0, 2),
        6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
        7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda stored: stored.transpose(1, 0, 2)[::-1],
    }
