"""The fused transform against a float64 reference written out in NumPy, and against plain mirroring."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import augmentation
from simimg.augment.augmentation import augment, recolor
from simimg.augment.degradations import cover
from simimg.augment.geometry import paste, transforms, warp, warp_by_gather
from simimg.augment.parameters import BORDERS, AugmentConfig, Parameters, draw

pytestmark = pytest.mark.own_process

WHOLE = (0.5, 0.5, 1.0, 1.0)


def parameters(
    angles: list[float], flips: list[bool], crops: list[tuple[float, float, float, float]] | None = None
) -> Parameters:
    """Those of examples to which nothing happens but what is given."""
    ids = tf.range(len(angles), dtype=tf.int64)
    nothing = draw(AugmentConfig(rotation_degrees=0.0, horizontal_flip=False), 0, tf.constant(0, tf.int64), ids)
    return nothing._replace(
        angle=tf.constant(np.deg2rad(angles), tf.float32),
        flip=tf.constant([(flip, False) for flip in flips]),
        crop=tf.constant(crops or [WHOLE] * len(angles), tf.float32),
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
    moved = warp(parameters([degrees], [flip]), tf.constant(image[None])).numpy()[0]
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
        moved = warp(parameters([degrees], [flip], [crop]), tf.constant(image[None])).numpy()[0]
        error = np.abs(moved[1:-1, 1:-1] - reference(image, degrees, flip, crop)[1:-1, 1:-1])
        assert error.max() <= 2.0


def test_identity_and_pure_flip_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 17, 17, 3), np.uint8)
    moved = warp(parameters([0, 0], [False, True]), tf.constant(images)).numpy()
    np.testing.assert_array_equal(moved[0], images[0])
    np.testing.assert_array_equal(moved[1], images[1, :, ::-1])


def test_a_quarter_turn_goes_counter_clockwise() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 8] = 255  # the middle of the right edge
    moved = warp(parameters([90], [False]), tf.constant(image[None])).numpy()[0]
    assert moved[0, 4, 0] > 200  # is now the middle of the top edge


EVERYTHING = AugmentConfig(
    rotation_degrees=30,
    vertical_flip=True,
    crop_min_area=0.4,
    colour_jitter=0.3,
    grayscale=0.3,
    blur=2.0,
    min_jpeg_quality=20,
    cutout=0.5,
    quarter_turns=0.3,
    paste=0.3,
    bars=0.3,
)


def by_border(image: np.ndarray, matrix: np.ndarray, border: str) -> np.ndarray:
    """Samples float64 pixels where a transform says, as the definition of each border has it."""
    height, width = image.shape[:2]
    a0, a1, a2, b0, b1, b2 = matrix[:6].astype(np.float64)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    from_x, from_y = a0 * x + a1 * y + a2, b0 * x + b1 * y + b2
    x0, y0 = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    wx, wy = (from_x - x0)[..., None], (from_y - y0)[..., None]

    def pixel(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        if border == "reflect":
            return image[_reflect(row, height), _reflect(column, width)].astype(np.float64)
        found = image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float64)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return found if border == "nearest" else found * inside[..., None]

    top = (1 - wx) * pixel(y0, x0) + wx * pixel(y0, x0 + 1)
    bottom = (1 - wx) * pixel(y0 + 1, x0) + wx * pixel(y0 + 1, x0 + 1)
    return (1 - wy) * top + wy * bottom


@pytest.mark.parametrize("border", BORDERS)
def test_borders_in_both_formulations(border: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 21, 26, 3), np.uint8)
    crops = [WHOLE, (0.3, 0.6, 0.9, 1.0), WHOLE, (0.5, 0.5, 0.5, 0.5), WHOLE]
    drawn = parameters([0.0, 17.0, -100.0, 45.0, 179.0], [False, True, False, True, False], crops)
    drawn = drawn._replace(flip=tf.constant([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]) == 1)
    matrices = transforms(drawn, 21, 26).numpy()
    expected = np.stack([by_border(*pair, border) for pair in zip(images, matrices, strict=True)])
    gathered = warp_by_gather(drawn, tf.constant(images), border).numpy()
    np.testing.assert_allclose(gathered, expected, atol=0.02)
    compiled = tf.function(lambda x: warp_by_gather(drawn, x, border), jit_compile=True)(tf.constant(images)).numpy()
    # The compiler may contract a product and a sum, so that a sample is taken a millionth of a pixel elsewhere.
    np.testing.assert_allclose(compiled, expected, atol=0.02)
    np.testing.assert_allclose(warp(drawn, tf.constant(images), border).numpy(), expected, atol=0.02)


def test_upside_down_is_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    drawn = parameters([0.0] * 3, [False] * 3)._replace(flip=tf.constant([[0, 0], [0, 1], [1, 1]]) == 1)
    for moved in (warp(drawn, tf.constant(images)), warp_by_gather(drawn, tf.constant(images))):
        np.testing.assert_array_equal(moved[0], images[0])
        np.testing.assert_array_equal(moved[1], images[1, ::-1])
        np.testing.assert_array_equal(moved[2], images[2, ::-1, ::-1])


def test_pasting_equals_the_reference() -> None:
    """Half as large, on a ground that runs from corner to corner: every pixel, one at a time, in float64."""
    image = smooth_picture()
    ground = np.random.default_rng(0).uniform(0, 255, (2, 2, 3)).astype(np.float32)
    drawn = parameters([20.0, 20.0], [False, False], [(0.6, 0.2, 2.0, 2.0)] * 2)
    drawn = drawn._replace(pasted=tf.constant([True, False]), ground=tf.constant(np.stack([ground] * 2)))
    pair = tf.constant(np.stack([image] * 2))
    moved = warp_by_gather(drawn, pair, "constant")
    pasted = paste(drawn, moved).numpy()
    np.testing.assert_array_equal(pasted[1], moved[1])
    a0, a1, a2, b0, b1, b2 = transforms(drawn, 32, 32).numpy()[0, :6].astype(np.float64)
    num_outside = 0
    for y in range(32):
        for x in range(32):
            from_x, from_y = a0 * x + a1 * y + a2, b0 * x + b1 * y + b2
            if -0.5 <= from_x <= 31.5 and -0.5 <= from_y <= 31.5:
                np.testing.assert_array_equal(pasted[0, y, x], moved[0, y, x])
                continue
            num_outside += 1
            across = [(1 - x / 31) * row[0] + x / 31 * row[1] for row in ground.astype(np.float64)]
            np.testing.assert_allclose(pasted[0, y, x], (1 - y / 31) * across[0] + y / 31 * across[1], atol=1e-3)
    assert 600 < num_outside < 900  # three quarters of 1,024, less what lies beyond the edge


def test_bars_cover_above_and_below() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 20, 5, 3)).astype(np.float32)
    drawn = parameters([0.0] * 3, [False] * 3)._replace(bars=tf.constant([[0.1, 255.0], [0.0, 0.0], [0.2, 40.0]]))
    covered = cover(drawn, tf.constant(pixels)).numpy()
    expected = pixels.copy()
    expected[0, :2] = expected[0, 18:] = 255
    expected[2, :4] = expected[2, 16:] = 40
    np.testing.assert_array_equal(covered, expected)


def test_two_views_of_an_image_differ() -> None:
    images = tf.constant(np.stack([smooth_picture()] * 4))
    ids, epoch = tf.constant([1, 1, 2, 2], tf.int64), tf.constant(0, tf.int64)
    views = augment(EVERYTHING, 3, epoch, ids, images, tf.constant([0, 1, 0, 1], tf.int64)).numpy()
    assert len({view.tobytes() for view in views}) == 4
    np.testing.assert_array_equal(views[::2], augment(EVERYTHING, 3, epoch, ids[::2], images[::2]))


TODAY = {"three_augment": True, "noise": 20.0, "erase": 0.5}
POLICIES = (
    AugmentConfig(rand_augment="2,9", crop_min_area=0.5, **TODAY),
    AugmentConfig(augmix=3.0, crop_min_area=0.5, paste=0.3, **TODAY),
)


@pytest.mark.parametrize(
    ("size", "config"), [(24, EVERYTHING), (61, EVERYTHING), *((19, config) for config in POLICIES)]
)
def test_the_size_of_the_batch_has_no_say(size: int, config: AugmentConfig) -> None:
    """However a batch is divided among replicas, each pixel is the same: to the last bit, in a compiled step."""
    images = np.random.default_rng(0).integers(0, 256, (31, size, size, 3), np.uint8)
    step = tf.function(lambda id, x: augment(config, 3, tf.constant(2, tf.int64), id, x))
    ids = np.arange(31)
    whole = step(tf.constant(ids), tf.constant(images)).numpy()
    for batch_size in (1, 8) if size == 24 else (15,):  # each takes seconds to compile
        starts = range(0, 31 // batch_size * batch_size, batch_size)
        parts = [step(tf.constant(ids[at : at + batch_size]), images[at : at + batch_size]) for at in starts]
        np.testing.assert_array_equal(np.concatenate(parts), whole[: len(parts) * batch_size])


def test_the_operations_for_gpus_augment_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not half a level darker, as resampled uint8 would be; and as Keras moves pixels by the same transforms."""
    config = AugmentConfig(rotation_degrees=30, crop_min_area=0.4, colour_jitter=0.1, cutout=0.5, paste=0.4)
    images = tf.constant(np.stack([smooth_picture()] * 8))
    ids, epoch = tf.range(8, dtype=tf.int64), tf.constant(2, tf.int64)
    on_cpu = augment(config, 3, epoch, ids, images).numpy()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    on_gpu = augment(config, 3, epoch, ids, images).numpy()
    assert np.mean(np.abs(on_gpu - on_cpu) < 0.05) > 0.999  # a pixel on the edge of a cutout may be on its other side
    assert abs(np.mean(on_gpu - on_cpu)) < 0.01
    assert not np.array_equal(on_cpu, on_gpu), "only one of the formulations was tried"
    drawn = draw(config, 3, epoch, ids)
    matrices = transforms(drawn, 32, 32)
    theirs = keras.ops.image.affine_transform(tf.cast(images, tf.float32), matrices, fill_mode="reflect")
    for mine in (warp(drawn, images), warp_by_gather(drawn, images)):
        np.testing.assert_allclose(mine, theirs, atol=0.02)


def test_everything_at_once_is_a_function_of_seed_epoch_and_id() -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), np.uint8))
    ids, epoch = tf.range(8, dtype=tf.int64), tf.constant(2, tf.int64)
    whole = augment(EVERYTHING, 3, epoch, ids, images).numpy()
    assert whole.min() >= 0
    assert whole.max() <= 255
    assert len({image.tobytes() for image in whole}) == 8
    order = np.array([5, 2, 7, 0])
    some = augment(EVERYTHING, 3, epoch, tf.gather(ids, order), tf.gather(images, order)).numpy()
    np.testing.assert_array_equal(some, whole[order])
    compiled = tf.function(lambda e, i, x: augment(EVERYTHING, 3, e, i, x))
    different = np.abs(compiled(epoch, ids, images).numpy() - whole) > 1e-2
    assert different.mean() < 1e-3  # where rounding a coefficient of JPEG goes the other way
    assert not np.array_equal(augment(EVERYTHING, 3, epoch + 1, ids, images), whole)


@pytest.mark.parametrize("config", POLICIES)
def test_policies_in_both_formulations(config: AugmentConfig) -> None:
    """As XLA compiles them, and as operations, eagerly and in a graph; two views of an image differ."""
    images = tf.constant(np.stack([smooth_picture()] * 8))
    ids, epoch, view = tf.range(8, dtype=tf.int64), tf.constant(2, tf.int64), tf.constant(0, tf.int64)
    compiled = augment(config, 3, epoch, ids, images).numpy()
    by_operations = augmentation._augmented(config, 3, True, 3)
    eager = by_operations(epoch, ids, view, images)[0].numpy()
    in_graph = tf.function(by_operations)(epoch, ids, view, images)[0].numpy()
    for other in (eager, in_graph):
        assert np.mean(np.abs(other - compiled) < 0.05) > 0.999  # solarized or not, by a rounding
    assert len({image.tobytes() for image in eager}) == 8
    assert 0 <= eager.min() < eager.max() <= 255
    assert not np.array_equal(by_operations(epoch, ids, view + 1, images)[0], eager)
    assert not np.array_equal(by_operations(epoch + 1, ids, view, images)[0], eager)


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
def test_recoloring_equals_one_step_after_the_other(factors: tuple[float, float, float]) -> None:
    brightness, contrast, saturation = factors
    pixels = np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3)).astype(np.float64)
    gray = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = gray + saturation * (pixels - gray)
    expected = 127.5 + contrast * (expected - 127.5)
    expected = np.clip(brightness * expected, 0, 255)
    drawn = parameters([0.0], [False])._replace(color=tf.constant([factors]))
    np.testing.assert_allclose(recolor(drawn, tf.constant(pixels, tf.float32)), expected, atol=1e-3)
