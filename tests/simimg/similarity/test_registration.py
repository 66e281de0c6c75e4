"""Two images of one picture, laid pixel on pixel: exact in the eight positions, and corrected elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simimg.similarity.affine import compose, covered, inverse, scaling, transform, translation
from simimg.similarity.position_match import QUARTER_TURN
from simimg.similarity.registration import Registration

Scene = Callable[..., Image.Image]
FINE, COARSE = (640, 480), (320, 240)
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
MIRRORED = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def turned(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    """The map from px of a coarse image to px of a fine one, around the middles of both, moved by `(x, y)`."""
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    middle, goal = (np.array(size) / 2 for size in (COARSE, FINE))
    return compose(translation(goal[0] + x, goal[1] + y), linear, translation(-middle[0], -middle[1]))


def rendered(fine: np.ndarray, to_fine: np.ndarray) -> np.ndarray:
    """The part of a fine image that a map shows, 320 x 240 px."""
    reduction = np.sqrt(abs(np.linalg.det(to_fine[:, :2])))
    if reduction > 1:
        fine = cv2.GaussianBlur(fine, (0, 0), 0.5 * reduction)
    full = compose(translation(-0.5, -0.5), to_fine, translation(0.5, 0.5))
    return cv2.warpAffine(fine, full, COARSE, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


def disturbed(corners: list[float]) -> np.ndarray:
    """A map of px of the coarse image onto themselves that moves three corners so, and none by more than 1.5 px."""
    width, height = COARSE
    moves = np.array(corners).reshape(3, 2)
    moves *= min(1.0, 1.5 / max(1e-9, *np.hypot(*moves.T), np.hypot(*(moves[1] + moves[2] - moves[0]))))
    start = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    return cv2.getAffineTransform(start, (start + moves).astype(np.float32))


def error_px(to_other: np.ndarray, truth: np.ndarray) -> float:
    """The largest error of a map anywhere, in px of the coarse image."""
    width, height = COARSE
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    off = transform(compose(inverse(truth), to_other), corners) - corners
    return float(np.hypot(*off.T).max())


def placed(to_fine: np.ndarray) -> np.ndarray:
    """The same map between unit squares."""
    return compose(scaling(1 / FINE[0], 1 / FINE[1]), to_fine, scaling(*COARSE))


SCENES: dict[int, np.ndarray] = {}


@pytest.fixture(autouse=True, scope="module")
def scenes(scene: Scene) -> None:
    SCENES.update({seed: np.asarray(scene(seed, FINE)) for seed in range(3)})


@given(
    seed=st.integers(0, 2),
    degrees=st.sampled_from([0.0, 2.0, -7.0, 35.0, 90.0, 181.0]),
    scale=st.sampled_from([1.05, 1.2]),
    corners=st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6),
    fine_is_query=st.booleans(),
)
@settings(max_examples=25)
def test_a_map_that_is_off_by_up_to_1_5_px_is_corrected(
    seed: int, degrees: float, scale: float, corners: list[float], fine_is_query: bool
) -> None:
    fine, truth = SCENES[seed], turned(degrees, scale, 11.3, -7.6)
    coarse, place = rendered(fine, truth), placed(compose(truth, disturbed(corners)))
    registration = Registration(fine, coarse, inverse(place)) if fine_is_query else Registration(coarse, fine, place)
    assert registration.base.shape == (COARSE[1], COARSE[0], 3)
    registration.correct()
    assert error_px(registration.to_other, truth) < 0.2
    pair = registration.images()
    in_query = transform(pair.to_query, np.array([[160.0, 120.0]]))
    expected = [[0.5, 0.5]] if not fine_is_query else transform(placed(truth), np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(in_query, expected, atol=0.001)


OFF = [1.5, -1, 0.5, 1, -1, 0.5]


def corrected_px(coarse: np.ndarray, fine: np.ndarray, truth: np.ndarray) -> float:
    """The error that is left of a map that was off by 1.5 px."""
    registration = Registration(coarse, fine, placed(compose(truth, disturbed(OFF))))
    assert error_px(registration.to_other, truth) > 1.4
    registration.correct()
    return error_px(registration.to_other, truth)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cover", ["plain", "another", "noise"])
@pytest.mark.parametrize(("box", "most_px"), [((150, 60, 230, 120), 0.2), ((40, 100, 280, 160), 0.35)])
def test_what_covers_a_part_does_not_pull_the_map(
    seed: int, cover: str, box: tuple[int, int, int, int], most_px: float
) -> None:
    truth = turned(3.0, 1.1, 4.0, 9.0)
    coarse = rendered(SCENES[seed], truth).copy()
    part = coarse[box[1] : box[3], box[0] : box[2]]
    if cover == "noise":
        part[:] = np.random.default_rng(seed).integers(80, 176, part.shape, np.uint8)
    else:
        part[:] = (200, 30, 60) if cover == "plain" else SCENES[(seed + 1) % 3][: part.shape[0], : part.shape[1]]
    assert corrected_px(coarse, SCENES[seed], truth) < most_px


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("change", "most_px"), [("jpeg", 0.2), ("dark", 0.2), ("faint", 0.2), ("gray", 0.2), ("blur", 0.35)]
)
def test_what_was_done_to_the_pixels_does_not_matter(seed: int, change: str, most_px: float) -> None:
    truth = turned(3.0, 1.1, 4.0, 9.0)
    coarse = rendered(SCENES[seed], truth)
    if change == "jpeg":
        coarse = cv2.imdecode(cv2.imencode(".jpg", coarse, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    elif change == "dark":
        coarse = coarse // 2
    elif change == "faint":
        coarse = 100 + coarse // 5
    elif change == "gray":
        coarse = np.repeat(cv2.cvtColor(coarse, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    else:
        coarse = cv2.GaussianBlur(coarse, (0, 0), 1.5)
    assert corrected_px(coarse, SCENES[seed], truth) < most_px


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(64, 48), (61, 47), (48, 48)])
def test_the_eight_positions_are_exact(size: tuple[int, int], turns: int, mirrored: bool) -> None:
    """Also if the map is only nearly one of them: nothing is interpolated."""
    query = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    candidate = np.rot90(query[:, ::-1] if mirrored else query, turns)
    place = compose(IDENTITY, *[QUARTER_TURN] * turns, MIRRORED if mirrored else IDENTITY)
    for off in (0.0, 0.004):
        nearly = compose(translation(off, -off), place)
        registration = Registration(query, np.ascontiguousarray(candidate), nearly)
        registration.correct()
        pair = registration.images()
        np.testing.assert_array_equal(pair.query, pair.candidate)
        assert pair.query.shape == query.shape
        assert pair.inside.all()
        corners = np.array([[0, 0], [size[0], size[1]]])
        np.testing.assert_allclose(transform(pair.to_query, corners), [[0, 0], [1, 1]], atol=1e-9)


@given(left=st.integers(0, 100), top=st.integers(0, 100), width=st.integers(24, 120), height=st.integers(24, 100))
def test_a_crop_by_whole_px_is_exact(left: int, top: int, width: int, height: int) -> None:
    whole = SCENES[0][:240, :320]
    crop = whole[top : top + height, left : left + width]
    place = compose(scaling(1 / 320, 1 / 240), translation(left, top), scaling(width, height))
    for query, candidate, between in ((crop, whole, place), (whole, crop, inverse(place))):
        pair = Registration(query, candidate, between).images()
        assert pair.query.shape == pair.candidate.shape == crop.shape
        assert pair.inside.shape == crop.shape[:2]
        np.testing.assert_array_equal(pair.query[pair.inside], pair.candidate[pair.inside])
        assert pair.inside.mean() > 0.9


def test_the_coarser_image_is_the_frame() -> None:
    coarse = cv2.resize(SCENES[0], COARSE, interpolation=cv2.INTER_AREA)
    for query, candidate in ((coarse, SCENES[0]), (SCENES[0], coarse)):
        registration = Registration(query, candidate, IDENTITY)
        np.testing.assert_array_equal(registration.base, coarse)
        pair = registration.images()
        assert pair.query.shape == pair.candidate.shape == coarse.shape
        assert (pair.query.dtype, pair.inside.dtype) == (np.uint8, bool)
        assert pair.inside.all()
        assert np.abs(pair.query.astype(int) - pair.candidate).mean() < 4


@pytest.mark.parametrize(
    "place",
    [compose(translation(0.95, 0), IDENTITY), compose(translation(3, 3), IDENTITY), scaling(1, 0.01)],
    ids=["edge", "beside", "line"],
)
def test_images_with_little_in_common_are_refused(place: np.ndarray) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(ValueError, match="less than 8 px in common"):
        Registration(pixels, pixels, place)


@pytest.mark.parametrize("size", [(8, 8), (9, 200), (300, 8), (31, 33)])
@pytest.mark.parametrize("pixels", ["plain", "noise"])
def test_small_and_plain_images_keep_their_map(size: tuple[int, int], pixels: str) -> None:
    shape = (size[1], size[0], 3)
    image = np.full(shape, 90, np.uint8)
    if pixels == "noise":
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    registration = Registration(image, image, IDENTITY)
    before = registration.to_other.copy()
    registration.correct()
    np.testing.assert_allclose(registration.to_other, before, atol=0.05)
    np.testing.assert_array_equal(registration.images().inside.shape, shape[:2])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_whole_image_is_reduced_in_the_eight_positions(turns: int, mirrored: bool) -> None:
    coarse = cv2.resize(SCENES[1], COARSE, interpolation=cv2.INTER_AREA)
    fine = np.ascontiguousarray(np.rot90(SCENES[1][:, ::-1] if mirrored else SCENES[1], turns))
    place = compose(IDENTITY, *[QUARTER_TURN] * turns, MIRRORED if mirrored else IDENTITY)
    registration = Registration(coarse, fine, place)
    assert registration.is_whole
    assert not registration.is_exact
    for _ in range(2):
        pair = registration.images()
        assert pair.inside.all()
        assert np.abs(pair.query.astype(int) - pair.candidate).max() <= 2
        registration.correct()


@pytest.mark.parametrize("degrees", [0, 25, 90, 180, 270, 317])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7, -1.0])
def test_where_an_image_is(degrees: float, scale: float) -> None:
    """It is where interpolation takes nothing from outside, up to the rounding of coordinates at the border."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = np.array([[scale * cosine, -abs(scale) * sine, 0.0], [scale * sine, abs(scale) * cosine, 0.0]])
    image, size = (120, 90), (160, 100)
    matrix = compose(translation(60.3, 45), linear, translation(-80, -50))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(np.full(image[::-1], 255, np.uint8), matrix, size, flags=flags) > 250
    found = covered(matrix, image, size)
    assert found.shape == size[::-1]
    assert found.sum() > 500
    assert (found != expected).sum() <= 4
