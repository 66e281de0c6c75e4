"""The fused transform against a float64 reference written out in NumPy, and against plain mirroring."""

import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import AugmentConfig, Parameters, augment, move, recolour

WHOLE = (0.5, 0.5, 1.0, 1.0)


def parameters(
    angles: list[float], flips: list[bool], crops: list[tuple[float, float, float, float]] | None = None
) -> Parameters:
    return Parameters(
        angle=tf.constant(np.deg2rad(angles), tf.float32),
        flip=tf.constant(flips),
        crop=tf.constant(crops or [WHOLE] * len(angles), tf.float32),
        colour=tf.ones([len(angles), 3]),
    )


def reference(
    image: np.ndarray, degrees: float, flip: bool, crop: tuple[float, float, float, float] = WHOLE
) -> np.ndarray:
    """Mirrors, turns the cut-out counter-clockwise about its middle; bilinear; mirrored at the border; float64."""
    picture = image[:, ::-1].astype(np.float64) if flip else image.astype(np.float64)
    height, width = image.shape[:2]
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
    # Rows count downwards, so turning the picture counter-clockwise as seen looks up its source clockwise.
    middle_x = 1 - crop[0] if flip else crop[0]  # the crop's place is that in the picture before it was mirrored
    from_x = crop[2] * (np.cos(angle) * dx - np.sin(angle) * dy) + middle_x * width - 0.5
    from_y = crop[3] * (np.sin(angle) * dx + np.cos(angle) * dy) + crop[1] * height - 0.5
    x0, y0 = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    wx, wy = (from_x - x0)[..., None], (from_y - y0)[..., None]

    def pixel(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return picture[_reflect(row, height), _reflect(column, width)]

    top = (1 - wx) * pixel(y0, x0) + wx * pixel(y0, x0 + 1)
    bottom = (1 - wx) * pixel(y0 + 1, x0) + wx * pixel(y0 + 1, x0 + 1)
    return (1 - wy) * top + wy * bottom


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    index = np.mod(index, 2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def smooth_picture(size: int = 32) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    channels = [np.sin(5 * x) * 100 + 120, np.cos(4 * y) * 90 + 110, 200 * x * y + 20]
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 7.0, -20.0, 45.0, 90.0, 180.0])
def test_equals_the_reference(degrees: float, flip: bool) -> None:
    image = smooth_picture()
    moved = move(parameters([degrees], [flip]), tf.constant(image[None])).numpy()[0]
    expected = reference(image, degrees, flip)
    inner = slice(1, -1)  # at the very border, rounding decides whether a pixel is inside or mirrored
    error = np.abs(moved[inner, inner].astype(np.float64) - expected[inner, inner])
    assert error.max() <= 2.0
    assert error.mean() < 1.0


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [(0.5, 0.5, 0.5, 0.5), (0.3, 0.6, 0.4, 0.7), (0.25, 0.75, 0.5, 0.5)])
def test_a_crop_equals_the_reference(crop: tuple[float, float, float, float], flip: bool) -> None:
    image = smooth_picture()
    for degrees in (0.0, 15.0):
        moved = move(parameters([degrees], [flip], [crop]), tf.constant(image[None])).numpy()[0]
        error = np.abs(moved[1:-1, 1:-1] - reference(image, degrees, flip, crop)[1:-1, 1:-1])
        assert error.max() <= 2.0


def test_identity_and_pure_flip_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 17, 17, 3), np.uint8)
    moved = move(parameters([0, 0], [False, True]), tf.constant(images)).numpy()
    np.testing.assert_array_equal(moved[0], images[0])
    np.testing.assert_array_equal(moved[1], images[1, :, ::-1])


def test_a_quarter_turn_goes_counter_clockwise() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 8] = 255  # the middle of the right edge
    moved = move(parameters([90], [False]), tf.constant(image[None])).numpy()[0]
    assert moved[0, 4, 0] > 200  # is now the middle of the top edge


def test_each_image_has_its_own_parameters_whatever_batch_it_is_in() -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))
    ids, epoch = tf.range(8, dtype=tf.int64), tf.constant(2, tf.int64)
    config = AugmentConfig()
    whole = augment(config, 3, epoch, ids, images).numpy()
    halves = [augment(config, 3, epoch, ids[part], images[part]).numpy() for part in (slice(0, 4), slice(4, 8))]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert len({image.tobytes() for image in whole}) == 8


def test_compiled_into_a_graph_equals_eager() -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))
    ids, epoch = tf.range(4, dtype=tf.int64), tf.constant(0, tf.int64)
    compiled = tf.function(lambda e, i, x: augment(AugmentConfig(), 1, e, i, x))
    np.testing.assert_array_equal(compiled(epoch, ids, images), augment(AugmentConfig(), 1, epoch, ids, images))


def test_no_augmentation_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    config = AugmentConfig(rotation_degrees=0, horizontal_flip=False)
    same = augment(config, 0, tf.constant(0, tf.int64), tf.range(2, dtype=tf.int64), tf.constant(images))
    np.testing.assert_array_equal(same, images.astype(np.float32))


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (1.3, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.0, 0.0), (0.7, 1.4, 1.8)]
)
def test_recolouring_equals_one_step_after_the_other(factors: tuple[float, float, float]) -> None:
    brightness, contrast, saturation = factors
    pixels = np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3)).astype(np.float64)
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = grey + saturation * (pixels - grey)
    expected = 127.5 + contrast * (expected - 127.5)
    expected = np.clip(brightness * expected, 0, 255)
    drawn = parameters([0.0], [False])._replace(colour=tf.constant([factors]))
    np.testing.assert_allclose(recolour(drawn, tf.constant(pixels, tf.float32)), expected, atol=1e-3)
