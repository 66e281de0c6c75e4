"""Blur, JPEG's quantization and covered parts, each against NumPy in float64, eager and compiled."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.augment.degradations import blur, cut_out, quantize
from simimg.augment.parameters import AugmentConfig, Parameters, draw

MODES = ["eager", "graph", "xla"]


def parameters(**given: list) -> Parameters:
    """Those of examples to which nothing happens but what is given."""
    ids = tf.range(len(next(iter(given.values()))), dtype=tf.int64)
    nothing = draw(AugmentConfig(rotation_degrees=0.0, horizontal_flip=False), 0, tf.constant(0, tf.int64), ids)
    return nothing._replace(**{name: tf.constant(value, tf.float32) for name, value in given.items()})


def called(function: Callable, mode: str, drawn: Parameters, pixels: np.ndarray) -> np.ndarray:
    if mode != "eager":
        function = tf.function(function, jit_compile=mode == "xla")
    return function(drawn, tf.constant(pixels, tf.float32)).numpy()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float64)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([120 + 100 * np.sin(5 * x + y), 110 + 90 * np.cos(4 * y - x), 20 + 200 * x * y], axis=-1)


# Blur


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolves with a Gaussian, each axis by itself, the picture mirrored three times its size out on each side."""
    for axis in (0, 1):
        size = image.shape[axis]
        at = np.arange(-3 * size, 4 * size)
        inside = np.where(at % (2 * size) < size, at % (2 * size), 2 * size - 1 - at % (2 * size))
        weights = np.exp(-((np.arange(size)[:, None] - at[None]) ** 2) / (2 * sigma**2))
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, np.take(image, inside, axis), (1, axis)), 0, axis)
    return image


@pytest.mark.parametrize("mode", MODES)
def test_blur_equals_the_reference(mode: str) -> None:
    sigmas = [0.3, 1.0, 2.5]
    images = noise(3, 20, 31, 3)
    expected = np.stack([blurred(image, sigma) for image, sigma in zip(images, sigmas, strict=True)])
    np.testing.assert_allclose(called(blur, mode, parameters(sigma=sigmas), images), expected, atol=2e-2)


def test_no_blur_is_exact_and_a_mean_stays_a_mean() -> None:
    images = noise(2, 16, 16, 3)
    result = called(blur, "eager", parameters(sigma=[0.0, 4.0]), images)
    np.testing.assert_array_equal(result[0], images[0])
    np.testing.assert_allclose(result[1].mean(), images[1].mean(), atol=0.5)
    assert result[1].std() < images[1].std() / 5
    assert (called(blur, "eager", parameters(sigma=[3.0]), np.full((1, 9, 9, 3), 77.0)).round(3) == 77).all()


# JPEG


def quantized(image: np.ndarray, quality: float) -> np.ndarray:
    """The steps of a JPEG encoder and decoder one after the other, 4:4:4, tables from Pillow's own encoder."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=round(quality), subsampling=0)
    tables = Image.open(file).quantization
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    colors = padded @ matrix.T
    colors[..., 0] -= 128
    cosines = np.array(
        [[np.sqrt((1 if u == 0 else 2) / 8) * np.cos((2 * i + 1) * u * np.pi / 16) for i in range(8)] for u in range(8)]
    )
    for top in range(0, padded.shape[0], 8):
        for left in range(0, padded.shape[1], 8):
            for channel in range(3):
                table = np.array(tables[min(channel, 1)]).reshape(8, 8)
                block = colors[top : top + 8, left : left + 8, channel]
                waves = np.round(cosines @ block @ cosines.T / table) * table
                colors[top : top + 8, left : left + 8, channel] = cosines.T @ waves @ cosines
    colors[..., 0] += 128
    inverse = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
    return np.clip(colors @ inverse.T, 0, 255)[:height, :width]


@pytest.mark.parametrize("mode", MODES)
def test_quantization_equals_the_reference(mode: str) -> None:
    qualities = [10.0, 49.0, 50.0, 75.0, 95.0]
    images = noise(5, 19, 24, 3)
    expected = np.stack([quantized(image, quality) for image, quality in zip(images, qualities, strict=True)])
    result = called(quantize, mode, parameters(quality=qualities), images)
    close = np.abs(result - expected) < 0.05
    assert close.mean() > 0.99  # a coefficient half-way between two steps may go either way in float32


@pytest.mark.parametrize("quality", [15, 40, 80])
def test_quantization_is_what_a_jpeg_file_keeps(quality: int) -> None:
    """Pillow's file rounds colours before and after to whole numbers; otherwise it is the same picture."""
    pixels = smooth(40, 48).round()
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).astype(np.float64)
    result = called(quantize, "eager", parameters(quality=[float(quality)]), pixels[None])[0]
    assert np.abs(result - expected).mean() < 1
    assert np.abs(result - pixels).mean() > 1.5 * np.abs(result - expected).mean()


# Cutout


@pytest.mark.parametrize("mode", MODES)
def test_the_rectangle_and_nothing_else_is_gray(mode: str) -> None:
    rectangles = [(0.5, 0.5, 0.5, 0.25), (0.0, 1.0, 0.4, 0.4), (0.3, 0.3, 0.0, 0.0), (0.5, 0.5, 2.0, 2.0)]
    images = noise(4, 10, 20, 3)
    expected = images.copy()
    for image, (x, y, width, height) in zip(expected, rectangles, strict=True):
        for row in range(10):
            for column in range(20):
                if abs((column + 0.5) / 20 - x) < width / 2 and abs((row + 0.5) / 10 - y) < height / 2:
                    image[row, column] = 127.5
    result = called(cut_out, mode, parameters(cutout=rectangles), images)
    np.testing.assert_array_equal(result, expected)
    assert (result[2] == images[2]).all()
    assert (result[3] == 127.5).all()
