"""What concerns all pixels alike is fitted: brightness, contrast, tint, saturation. An exchanged color is not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from simimg.similarity.color_fit import fit_colors, fit_either, local_range

Scene = Callable[..., Image.Image]
SIZE = (160, 120)
MOST_LEFT = 6  # levels, on average, after a fit
MOST_CHROMA_LEFT = 10  # in a gray image, of what seems to be without color before
SCENES: dict[int, np.ndarray] = {}


@pytest.fixture(autouse=True, scope="module")
def scenes(scene: Scene) -> None:
    SCENES.update({seed: np.asarray(scene(seed, SIZE)) for seed in range(4)})


def in_ycrcb(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.clip(np.rint(rgb), 0, 255).astype(np.uint8), cv2.COLOR_RGB2YCrCb)


def errors(image: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean differences of Y, Cr and Cb before and after the fit of one sRGB image to another one."""
    ours, theirs = in_ycrcb(image), in_ycrcb(goal)
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, theirs, anywhere, local_range(ours[..., 0]) < 20)
    assert fitted.image.shape == fitted.tinted.shape == ours.shape
    assert fitted.image.dtype == fitted.tinted.dtype == np.uint8
    np.testing.assert_array_equal(fitted.image[..., 0], fitted.tinted[..., 0])
    before, after = (np.abs(one.astype(int) - theirs).mean(axis=(0, 1)) for one in (ours, fitted.image))
    return before, after


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brighter": lambda rgb: rgb * 0.75 + 60,
    "darker": lambda rgb: rgb * 0.5,
    "more contrast": lambda rgb: (rgb - 128.0) * 1.25 + 128,
    "less contrast": lambda rgb: (rgb - 128.0) * 0.4 + 128,
    "gamma": lambda rgb: 255 * (rgb / 255) ** 1.6,
    "gray": lambda rgb: np.repeat(rgb @ [[0.299], [0.587], [0.114]], 3, axis=2),
    "half as colorful": lambda rgb: np.asarray(ImageEnhance.Color(Image.fromarray(rgb)).enhance(0.5)),
    "more colorful": lambda rgb: np.asarray(ImageEnhance.Color(Image.fromarray(rgb)).enhance(1.3)),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("edit", EDITS)
def test_what_a_filter_does_to_all_pixels_is_fitted(edit: str, seed: int) -> None:
    goal = EDITS[edit](SCENES[seed])
    before, after = errors(SCENES[seed], goal)
    assert after.max() < (MOST_CHROMA_LEFT if edit == "gray" else MOST_LEFT)
    assert after.sum() < 0.5 * before.sum()


@pytest.mark.parametrize("tint", [(18, 0, -18), (-20, 10, 0), (0, 0, 25)])
def test_a_tint_is_learned_from_what_has_no_color(tint: tuple[int, int, int]) -> None:
    gray = np.repeat(in_ycrcb(SCENES[0])[..., :1], 3, axis=2) // 2 + 60
    gray[30:60, 30:60] = SCENES[0][30:60, 30:60] // 2 + 60
    before, after = errors(gray, gray + np.array(tint))
    assert before.max() > 4
    assert after.max() < 1.5


@pytest.mark.parametrize("seed", range(4))
def test_an_image_that_is_the_same_stays_the_same(seed: int) -> None:
    ours = in_ycrcb(SCENES[seed])
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, ours, anywhere, anywhere)
    np.testing.assert_array_equal(fitted.image, ours)
    np.testing.assert_array_equal(fitted.tinted, ours)


SHIRTS = {"red": (200, 30, 30), "blue": (30, 60, 190), "green": (40, 140, 60), "black": (25, 25, 25)}


def shirt(color: str, wall: int = 230) -> np.ndarray:
    pixels = np.clip(wall + np.random.default_rng(0).integers(-6, 7, (*SIZE[::-1], 1)), 0, 255).repeat(3, axis=2)
    pixels[30:90, 50:110] = SHIRTS[color]
    pixels[35:40, 60:100] = 255
    return pixels


@pytest.mark.parametrize("one", [name for name in SHIRTS if name != "black"])
@pytest.mark.parametrize("other", SHIRTS)
def test_an_exchanged_color_is_not_fitted(one: str, other: str) -> None:
    """The shirt stays another one, and the wall, which is the same, stays so."""
    ours, theirs = in_ycrcb(shirt(one)), in_ycrcb(shirt(other))
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, theirs, anywhere, anywhere)
    assert np.abs(fitted.image[:25].astype(int) - theirs[:25]).max() == 0
    away = np.abs(fitted.image[60, 80].astype(int) - theirs[60, 80]).max()
    assert (away == 0) if one == other else (away > 35)


def test_a_darker_image_with_an_exchanged_color_is_brightened_alone() -> None:
    ours, theirs = in_ycrcb(shirt("red", wall=120)), in_ycrcb(shirt("blue", wall=230))
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, theirs, anywhere, anywhere)
    assert np.abs(fitted.image[:25, :, 0].astype(int) - theirs[:25, :, 0]).mean() < 6
    assert np.abs(fitted.tinted[60, 80].astype(int) - theirs[60, 80]).max() > 40


def test_what_covers_a_part_does_not_mislead() -> None:
    """A black bar over a third of an image does not make the fit darken everything."""
    ours = in_ycrcb(SCENES[1])
    theirs = ours.copy()
    theirs[:40] = (0, 128, 128)
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, theirs, anywhere, anywhere)
    assert np.abs(fitted.image[40:].astype(int) - theirs[40:]).mean() < 3


def test_only_what_is_inside_counts() -> None:
    ours, theirs = in_ycrcb(SCENES[2]), in_ycrcb(SCENES[2] * 0.6)
    theirs[:, 80:] = (255, 128, 128)
    inside = np.zeros(ours.shape[:2], bool)
    inside[:, :80] = True
    fitted = fit_colors(ours, theirs, inside, inside)
    assert np.abs(fitted.image[:, :80, 0].astype(int) - theirs[:, :80, 0]).mean() < 4


@given(factor=st.floats(0.4, 1.3), shift=st.floats(-40, 60), saturation=st.floats(0, 1.5), seed=st.integers(0, 3))
@settings(max_examples=30)
def test_a_fit_never_makes_images_less_alike(factor: float, shift: float, saturation: float, seed: int) -> None:
    scene = SCENES[seed].astype(float)
    gray = scene @ [[0.299], [0.587], [0.114]]
    goal = (gray + (scene - gray) * saturation) * factor + shift
    ours, theirs = in_ycrcb(scene), in_ycrcb(goal)
    anywhere = np.ones(ours.shape[:2], bool)
    fitted = fit_colors(ours, theirs, anywhere, anywhere)

    def misfit(image: np.ndarray) -> float:
        return float(np.minimum(np.abs(image.astype(int) - theirs), 24).sum())

    assert misfit(fitted.image) <= 1.02 * misfit(ours)  # learned from a sample


@pytest.mark.parametrize("pixels", [(255, 255, 255), (0, 0, 0), (90, 20, 200)])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 3), (40, 40)])
def test_plain_and_tiny_images_are_no_error(pixels: tuple[int, int, int], size: tuple[int, int]) -> None:
    ours, theirs = np.full((*size, 3), pixels, np.uint8), np.full((*size, 3), (128, 130, 120), np.uint8)
    for mask in (np.ones(size, bool), np.zeros(size, bool)):
        fitted = fit_colors(in_ycrcb(ours), in_ycrcb(theirs), np.ones(size, bool), mask)
        assert fitted.image.shape == (*size, 3)


def test_local_range_is_that_of_nine_pixels() -> None:
    luma = np.zeros((5, 6), np.uint8)
    luma[2, 3] = 70
    expected = np.zeros((5, 6), np.uint8)
    expected[1:4, 2:5] = 70
    np.testing.assert_array_equal(local_range(luma), expected)


def test_colors_are_taken_from_the_more_colorful_image() -> None:
    color, gray = in_ycrcb(SCENES[0]), in_ycrcb(EDITS["gray"](SCENES[0]))
    anywhere = np.ones(color.shape[:2], bool)
    for ours, theirs, expected in ((color, gray, True), (gray, color, False)):
        swapped, fitted = fit_either(ours, theirs, anywhere, anywhere)
        assert swapped is expected
        assert np.abs(fitted.image.astype(int) - gray).mean() < 5


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit != "gray"])
def test_the_better_direction_is_the_same_both_ways_round(edit: str) -> None:
    one, other = in_ycrcb(SCENES[1]), in_ycrcb(EDITS[edit](SCENES[1]))
    anywhere = np.ones(one.shape[:2], bool)
    found, back = fit_either(one, other, anywhere, anywhere), fit_either(other, one, anywhere, anywhere)
    assert found[0] is not back[0]
    np.testing.assert_array_equal(found[1].image, back[1].image)
