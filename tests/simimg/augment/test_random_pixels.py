"""Noise and random erasing: the right distribution, in the right rectangle, the same for any batch."""

import numpy as np
import pytest
import tensorflow as tf

from simimg.augment.parameters import AugmentConfig
from simimg.augment.random_pixels import PixelNoise, add_noise, draw_pixels, erase

pytestmark = pytest.mark.own_process

EPOCH = tf.constant(3, tf.int64)
XLA = {"eager": lambda function: function, "xla": lambda function: tf.function(function, jit_compile=True)}


def drawn(count: int, height: int = 16, width: int = 16, **options: float) -> PixelNoise:
    return draw_pixels(AugmentConfig(**options), 7, EPOCH, tf.range(count, dtype=tf.int64), 0, height, width)


def fields(bits: np.ndarray, first: int, width: int) -> np.ndarray:
    """The three numbers of a pixel, by Python's integers."""
    found = [[int(one) % 2**64 >> first + number * width & 2**width - 1 for number in range(3)] for one in bits.ravel()]
    return np.array(found).reshape(*bits.shape, 3)


@pytest.mark.parametrize("mode", XLA)
def test_noise_equals_the_reference(mode: str) -> None:
    random = drawn(4, 9, 7, noise=30.0)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 9, 7, 3)).astype(np.float32)
    # Quantiles of the normal distribution by bisecting the error function, in float64.
    from math import erf

    def quantile(p: float) -> float:
        low, high = -6.0, 6.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if 0.5 * (1 + erf(middle / 2**0.5)) < p else (low, middle)
        return low

    numbers = fields(random.bits.numpy(), 24, 12)
    normal = np.vectorize(quantile)((numbers + 0.5) / 4096)
    expected = np.clip(pixels + random.deviation.numpy()[:, None, None, None].astype(np.float64) * normal, 0, 255)
    np.testing.assert_allclose(XLA[mode](add_noise)(random, tf.constant(pixels)), expected, atol=1e-3)


def test_noise_is_normal_and_independent() -> None:
    random = drawn(200, noise=30.0)
    noisy = add_noise(random, tf.fill([200, 16, 16, 3], 127.5)).numpy() - 127.5
    deviations = random.deviation.numpy()
    assert 0 <= deviations.min() < 1 < 29 < deviations.max() < 30
    normal = noisy[deviations > 3] / deviations[deviations > 3][:, None, None, None]
    assert abs(normal.mean()) < 0.01
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(normal) < 1).mean() == pytest.approx(0.6827, abs=0.005)
    for other in (normal[:, 1:], normal[:, :, 1:], normal[..., 1:], normal[1:]):
        same = normal[tuple(slice(0, size) for size in other.shape)]
        assert abs((same * other).mean()) < 0.01


@pytest.mark.parametrize("mode", XLA)
def test_erasing_equals_the_reference(mode: str) -> None:
    height, width = 20, 12
    random = drawn(40, height, width, erase=0.5)
    pixels = np.random.default_rng(0).uniform(0, 255, (40, height, width, 3)).astype(np.float32)
    expected, colors = pixels.copy(), fields(random.bits.numpy(), 0, 8)
    for number, (x, y, size_x, size_y) in enumerate(random.erased.numpy()):
        for row in range(height):
            for column in range(width):
                if abs((column + 0.5) / width - x) < size_x / 2 and abs((row + 0.5) / height - y) < size_y / 2:
                    expected[number, row, column] = colors[number, row, column]
    found = XLA[mode](erase)(random, tf.constant(pixels)).numpy()
    np.testing.assert_array_equal(found, expected)
    assert 10 < (found != pixels).any(axis=(1, 2, 3)).sum() < 30


def test_rectangles_are_those_of_random_erasing() -> None:
    sizes = drawn(5000, 2, 4, erase=0.25).erased.numpy()
    erased = sizes[sizes[:, 2] > 0]
    assert len(erased) / 5000 == pytest.approx(0.25, abs=0.02)
    middle, size = erased[:, :2], erased[:, 2:]
    assert ((middle - size / 2 > -1e-6) & (middle + size / 2 < 1 + 1e-6)).all()  # within the image
    inside = (size < 1).all(axis=1)
    areas, ratios = size[inside].prod(axis=1), size[inside, 0] * 4 / (size[inside, 1] * 2)  # in px
    assert 0.02 <= areas.min() < 0.03 < 0.32 < areas.max() <= 1 / 3 + 1e-6
    assert 0.3 - 1e-3 <= ratios.min() < 0.35 < 3 < ratios.max() <= 1 / 0.3 + 1e-3


def test_random_pixels_do_not_depend_on_the_batch() -> None:
    config, ids = AugmentConfig(noise=9.0, erase=0.5), tf.range(8, dtype=tf.int64)
    whole = draw_pixels(config, 7, EPOCH, ids, 0, 5, 6)
    some = draw_pixels(config, 7, EPOCH, ids[3:5], 0, 5, 6)
    for one, other in zip(some, whole, strict=True):
        np.testing.assert_array_equal(one, other[3:5])
    others = [draw_pixels(config, 7, EPOCH, ids, view, 5, 6).bits.numpy() for view in (0, 1)]
    others += [
        draw_pixels(config, seed, epoch, ids, 0, 5, 6).bits.numpy() for seed, epoch in ((8, EPOCH), (7, EPOCH + 1))
    ]
    assert len(np.unique(np.stack(others))) == 4 * 8 * 5 * 6
