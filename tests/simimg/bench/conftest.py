"""A folder of JPEG files with oddities among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NUM_GOOD = 11


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven good JPEG files in two classes, one of them grey, and five files that not every tool can decode."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(NUM_GOOD):
        path = root / ("ants and bees" if number % 2 else "cats") / f"{number}.{'JPG' if number == 3 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        picture = coarse.resize((120 + number, 90), Image.Resampling.BICUBIC).convert("L" if number == 5 else "RGB")
        picture.save(path, quality=80, subsampling=0 if number == 7 else 2)
    good = (root / "cats" / "0.jpg").read_bytes()
    (root / "cats" / "cut off.jpg").write_bytes(good[: len(good) // 2])
    (root / "cats" / "empty.jpg").touch()
    (root / "cats" / "page.jpg").write_text("<html>")
    (root / "cats" / ".hidden.jpg").write_bytes(good)
    Image.open(root / "cats" / "0.jpg").convert("CMYK").save(root / "cats" / "print.jpg")
    Image.open(root / "cats" / "0.jpg").save(root / "cats" / "0.png")
    return root
