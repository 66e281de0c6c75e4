"""Outlines in reports: they are around what they mark, and cover nothing of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.commands.copy_tiles import marked_pair
from simimg.report.changed_places import mark_part, mark_places
from simimg.similarity.embeddings import Embedder
from simimg.similarity.index_images import IndexImages
from simimg.similarity.index_update import index_folder


def drawn(marked: Image.Image, before: Image.Image) -> np.ndarray:
    """Returns where something was drawn, bool `[h, w]`."""
    return (np.asarray(marked) != np.asarray(before)).any(axis=2)


def extent(changed: np.ndarray) -> tuple[int, int, int, int]:
    box = Image.fromarray(changed).getbbox()
    assert box is not None
    return box


@pytest.mark.parametrize("color", [(255, 90, 31), (20, 20, 22), (255, 255, 255)])
def test_a_place_is_outlined_on_any_color(color: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (400, 200), color)
    changed = drawn(mark_places(image, [(0.5, 0.25, 0.75, 0.75)]), image)
    assert np.abs(np.subtract(extent(changed), (200, 50, 300, 150))).max() in range(4, 9)
    assert not changed[50:150, 200:300].any()
    assert changed.sum() > 800


def test_places_that_overlap_have_one_outline() -> None:
    image = Image.new("RGB", (400, 400))
    changed = drawn(mark_places(image, [(0.2, 0.2, 0.5, 0.5), (0.4, 0.4, 0.7, 0.7)]), image)
    assert not changed[80:200, 80:200].any()
    assert not changed[160:280, 160:280].any()


def test_an_outline_at_the_border_is_inside_the_image() -> None:
    image = Image.new("RGB", (400, 200))
    changed = drawn(mark_places(image, [(0.0, 0.0, 1.0, 1.0)]), image)
    assert extent(changed) == (0, 0, 400, 200)
    assert not changed[10:-10, 10:-10].any()
    assert changed[:, 3].all()


@pytest.mark.parametrize("boxes", [[], [(0.5, 0.5, 0.4, 0.6)]])
def test_nothing_to_mark(boxes: list[tuple[float, ...]]) -> None:
    image = Image.new("RGB", (4, 4))
    assert mark_places(image, boxes) is image


def test_a_part_is_outlined() -> None:
    image = Image.new("RGB", (320, 240))
    changed = drawn(mark_part(image, [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]), image)
    assert np.abs(np.subtract(extent(changed), (80, 60, 240, 180))).max() < 5
    assert not changed[70:170, 90:230].any()


def test_a_pair_is_marked_with_what_differs_and_what_is_shared(
    scene: Callable[..., Image.Image], tmp_path: Path
) -> None:
    embedder = Embedder("none", "f" * 64, 32, "stretch", 4, lambda images: np.ones((len(images), 4), np.float32) / 2)
    folder = tmp_path / "photos"
    folder.mkdir()
    original = scene(0)
    width, height = original.size
    logo = original.copy()
    logo.paste((0, 0, 0), (width // 2, height // 4, 3 * width // 4, height // 2))
    pasted = Image.new("RGB", (2 * width, 2 * height), "navy")
    pasted.paste(original, (width // 2, height // 2))
    for name, image in (("a", original), ("logo", logo), ("pasted", pasted)):
        image.save(folder / f"{name}.png")
    images = IndexImages(index_folder(tmp_path / "index", folder, embedder).index)
    copy, first = marked_pair(images, 1, 0)
    plain = images.image(1, 400), images.image(0, 400)
    assert all((copy, first, *plain))
    scale = plain[0].width / width
    expected = np.multiply((width // 2, height // 4, 3 * width // 4, height // 2), scale)
    assert np.abs(np.subtract(extent(drawn(copy, plain[0])), expected)).max() < 14
    assert not drawn(first, plain[1]).any()
    copy, first = marked_pair(images, 2, 0)
    plain = images.image(2, 400), images.image(0, 400)
    middle = np.multiply((0.25, 0.25, 0.75, 0.75), (*plain[0].size, *plain[0].size))
    assert np.abs(np.subtract(extent(drawn(copy, plain[0])), middle)).max() < 6
    assert not drawn(first, plain[1]).any()
