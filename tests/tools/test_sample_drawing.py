"""The script that drew the sample images: it still draws them, and the archive is what it drew."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simimg.sample
from simimg.sample import CLASS_NAMES
from tools.sample_drawing.draw_archive import draw_image, entries, sizes

ARCHIVE = Path(simimg.sample.__file__).with_name("sample_images.zip")


def test_the_archive_holds_every_image_and_is_small() -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        assert archive.namelist() == entries()
    assert ARCHIVE.stat().st_size < 4_000_000


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize("index", [0, 77, 149])
def test_the_script_draws_what_the_archive_holds(class_name: str, index: int) -> None:
    width, height = sizes()[index * len(CLASS_NAMES) + CLASS_NAMES.index(class_name)]
    drawn = draw_image(class_name, index, width, height)
    with zipfile.ZipFile(ARCHIVE) as archive, archive.open(f"{class_name}/{index + 1:04d}.webp") as file:
        stored = Image.open(file).convert("RGB")
    assert drawn.size == stored.size == (width, height)
    # Levels of 0..255: what WebP loses. Another image of the class is 30 and more away.
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(stored)).mean() < 8


def test_the_same_image_each_time_and_another_for_another_index() -> None:
    first, again, other = (draw_image("fishes", index, 200, 300) for index in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_draws_at_the_extremes_of_size(class_name: str) -> None:
    for index, (width, height) in enumerate(((180, 420), (420, 180), (195, 180))):
        image = draw_image(class_name, 1000 + index, width, height)
        assert image.size == (width, height)
        assert np.asarray(image.convert("L")).std() > 5


def test_no_size_occurs_twice() -> None:
    assert len(set(sizes())) == len(sizes())
