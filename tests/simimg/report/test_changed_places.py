"""Outlines around the places where a copy differs: found where they are, and nowhere else."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from simimg.report.changed_places import mark_changes, mark_part

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
MIRRORED = (-1.0, 0.0, 1.0, 0.0, 1.0, 0.0)


@pytest.fixture(name="photo", scope="module")
def _photo() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def outline(marked: Image.Image, before: Image.Image) -> tuple[int, int, int, int] | None:
    """Returns the bounding box of what was drawn."""
    changed = (np.asarray(marked) != np.asarray(before)).any(axis=2)
    return Image.fromarray(changed).getbbox()


def test_a_logo_is_outlined_where_it_is(photo: Image.Image) -> None:
    copy = photo.copy()
    copy.paste((0, 0, 0), (200, 40, 260, 80))
    box = outline(mark_changes(copy, photo, IDENTITY), copy)
    assert box is not None
    assert np.abs(np.subtract(box, (200, 40, 260, 80))).max() < 20


def test_a_logo_on_a_mirrored_copy_is_outlined_where_the_copy_has_it(photo: Image.Image) -> None:
    copy = ImageOps.mirror(photo)
    copy.paste((255, 255, 255), (30, 150, 90, 200))
    box = outline(mark_changes(copy, photo, MIRRORED), copy)
    assert box is not None
    assert np.abs(np.subtract(box, (30, 150, 90, 200))).max() < 20


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "edit",
    [
        lambda photo: photo,
        lambda photo: ImageOps.grayscale(photo).convert("RGB"),
        lambda photo: photo.point(lambda level: 0.7 * level + 30),
        lambda photo: photo.filter(ImageFilter.GaussianBlur(2)),
        lambda photo: photo.resize((160, 120)),
        jpeg,
    ],
)
def test_what_changes_the_whole_image_is_not_outlined(photo: Image.Image, edit) -> None:
    copy = edit(photo)
    assert mark_changes(copy, photo, IDENTITY) is copy


def test_a_border_is_outlined(photo: Image.Image) -> None:
    copy = ImageOps.expand(photo, 40, "navy")
    scale_x, scale_y = 400 / 320, 320 / 240
    place = (scale_x, 0.0, -40 / 320, 0.0, scale_y, -40 / 240)
    box = outline(mark_changes(copy, photo, place), copy)
    assert box is not None
    assert box[2] - box[0] > 300


def test_the_part_that_a_crop_shows_is_outlined(photo: Image.Image) -> None:
    place = (0.5, 0.0, 0.25, 0.0, 0.5, 0.25)
    box = outline(mark_part(photo, place), photo)
    assert box is not None
    assert np.abs(np.subtract(box, (80, 60, 240, 180))).max() < 8
    assert mark_part(photo, IDENTITY) is photo


def test_images_that_have_nothing_in_common_are_left_alone(photo: Image.Image) -> None:
    other = Image.fromarray(np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8))
    far = (1.0, 0.0, 5.0, 0.0, 1.0, 0.0)
    assert mark_changes(other, photo, far) is other
