"""Edits keep what they should keep, change the rest, and are the same for the same seed."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.dedup_protocol import PROTOCOL
from simimg.similarity.evaluation.image_edits import EDITS

SIZES = {
    "resized": {(30, 20)},
    "cropped_to_80": {(48, 32)},
    "cropped_to_50": {(30, 20)},
    "quarter_turned": {(40, 60)},
    "stretched": {(84, 40), (60, 56)},
    "pasted": {(133, 89)},
    "several": {(34, 22)},
}


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((60, 40), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_picture_and_stays_rgb(name: str) -> None:
    edited = EDITS[name](picture(), np.random.default_rng(3))
    assert edited.mode == "RGB"
    if name != "turned":  # some grow
        assert edited.size in SIZES.get(name, {(60, 40)})
    assert edited.size != (60, 40) or edited.tobytes() != picture().tobytes()


@pytest.mark.parametrize("name", EDITS)
def test_the_same_seed_gives_the_same_copy(name: str) -> None:
    once, again = (EDITS[name](picture(), np.random.default_rng(5)) for _ in range(2))
    assert once.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", [*EDITS, *PROTOCOL])
def test_an_edit_works_on_one_pixel(name: str) -> None:
    edits = {**EDITS, **PROTOCOL}
    assert min(edits[name](Image.new("RGB", (1, 1)), np.random.default_rng(0)).size) >= 1
