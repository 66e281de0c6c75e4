"""Edits keep what they should keep and change the rest."""

import numpy as np
import pytest
from PIL import Image

from simimg.evaluation.edits import EDITS

SIZES = {"resized": (30, 20), "cropped": (42, 28)}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_picture_and_stays_rgb(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    edited = EDITS[name](Image.fromarray(pixels))
    assert edited.mode == "RGB"
    assert edited.size == SIZES.get(name, (60, 40))
    assert edited.size != (60, 40) or np.asarray(edited).tobytes() != pixels.tobytes()


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_works_on_one_pixel(name: str) -> None:
    assert EDITS[name](Image.new("RGB", (1, 1))).size == (1, 1)
