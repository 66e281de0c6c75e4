"""The operations of policies against NumPy in float64, written out from their definitions, and against Pillow."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from simimg.augment import operations as ops
from simimg.augment.geometry import transforms
from simimg.augment.operations import KINDS, Operations, affine, histogram, operator
from simimg.augment.parameters import AugmentConfig, draw

pytestmark = pytest.mark.own_process

XLA = functools.partial(tf.function, jit_compile=True)
COMPILERS: dict[str, Callable] = {"eager": lambda function: function, "graph": tf.function, "xla": XLA}
LUMA = np.array([0.299, 0.587, 0.114])
SHARED = {
    name: (operator(compiled=compiled), compiled(functools.partial(histogram, index=index)))
    for (name, compiled), index in zip(COMPILERS.items(), (tf.int64, tf.int64, tf.int32), strict=True)
}


def images() -> np.ndarray:
    """Six images of 17 x 13 px: noise of two ranges, a gradient, one value, two values, and all values."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (17, 13, 3))
    gradient = np.linspace(30, 200, 13)[None, :, None] * np.linspace(0.5, 1, 17)[:, None, None] + np.zeros(3)
    two = np.where(noise > 100, 250, 3)
    every = (np.arange(17 * 13 * 3) % 256).reshape(17, 13, 3)
    return np.stack([noise, noise // 3 + 90, gradient, np.full((17, 13, 3), 77), two, every]).astype(np.uint8)


def operated(mode: str, chains: list[list[tuple[int, float]]], pixels: np.ndarray) -> np.ndarray:
    operate, counted = SHARED[mode]
    drawn = Operations(
        tf.constant([[kind for kind, _ in chain] for chain in chains], tf.int64),
        tf.constant([[argument for _, argument in chain] for chain in chains], tf.float32),
    )
    return operate(drawn, counted(tf.constant(pixels)), tf.constant(pixels)).numpy()


def reference(chain: list[tuple[int, float]], image: np.ndarray) -> np.ndarray:
    """Each operation on all pixels, one after the other, in float64; first those in tables, then color, sharpness."""
    pixels = image.astype(np.float64)
    for kind, argument in chain:
        pixels = _replaced(kind, np.float64(np.float32(argument)), pixels)
    for kind, argument in chain:
        if kind == ops.COLOR:
            gray = (pixels @ LUMA)[..., None]
            pixels = np.clip(gray + np.float64(np.float32(argument)) * (pixels - gray), 0, 255)
    factors = [argument for kind, argument in chain if kind == ops.SHARPNESS]
    if factors:
        smooth = pixels.copy()
        for y in range(1, image.shape[0] - 1):
            for x in range(1, image.shape[1] - 1):
                around = pixels[y - 1 : y + 2, x - 1 : x + 2].sum(axis=(0, 1))
                smooth[y, x] = (around + 4 * pixels[y, x]) / 13
        pixels = np.clip(smooth + np.prod(factors) * (pixels - smooth), 0, 255)
    return pixels


def _replaced(kind: int, argument: float, pixels: np.ndarray) -> np.ndarray:
    result = pixels.copy()
    if kind == ops.AUTOCONTRAST:
        for channel in range(3):
            values = pixels[..., channel]
            low, high = values.min(), values.max()
            if high > low:
                result[..., channel] = np.floor((values - low) * 255 / (high - low))
    elif kind == ops.EQUALIZE:
        for channel in range(3):
            values = pixels[..., channel].astype(int)
            counts = [int((values == value).sum()) for value in range(256)]
            there = [count for count in counts if count]
            step = (sum(there) - there[-1]) // 255
            if step:
                table = [min((step // 2 + sum(counts[:value])) // step, 255) for value in range(256)]
                result[..., channel] = np.array(table)[values]
    elif kind == ops.SOLARIZE:
        result = np.where(pixels >= argument, 255 - pixels, pixels)
    elif kind == ops.POSTERIZE:
        result = (pixels.astype(int) & (0xFF << int(8 - argument) & 0xFF)).astype(np.float64)
    elif kind == ops.BRIGHTNESS:
        result = argument * pixels
    elif kind == ops.CONTRAST:
        mean = np.floor((pixels @ LUMA).mean() + 0.5)
        result = mean + argument * (pixels - mean)
    return np.clip(np.floor(result + 0.5), 0, 255)


ARGUMENTS = {
    ops.SOLARIZE: (178.5, 0.0, 256.0),
    ops.POSTERIZE: (7.0, 4.0, 1.0),
    **dict.fromkeys((ops.COLOR, ops.CONTRAST, ops.BRIGHTNESS, ops.SHARPNESS), (0.3, 1.0, 1.7)),
}


@pytest.mark.parametrize("mode", COMPILERS)
def test_each_operation_and_all_pairs_equal_the_reference(mode: str) -> None:
    big = np.tile(images(), (1, 3, 3, 1))  # enough pixels for equalizing to have steps
    alone = [
        [(kind, argument)] * 1 + [(ops.IDENTITY, 1.0)] for kind in KINDS for argument in ARGUMENTS.get(kind, (0.2,))
    ]
    pairs = [[(a, ARGUMENTS.get(a, (0.2,))[0]), (b, ARGUMENTS.get(b, (0.2,))[-1])] for a in KINDS for b in KINDS]
    chains = (alone + pairs)[: (len(alone) + len(pairs)) // 6 * 6]
    wrong = 0
    for first in range(0, len(chains), 6):
        six = chains[first : first + 6]
        found = operated(mode, six, big)
        for chain, image, pixels in zip(six, big, found, strict=True):
            near = np.abs(pixels - reference(chain, image)) < 0.01
            wrong += near.mean() < 0.99  # a product of .5 may be rounded up or down
    assert wrong == 0


PILLOW: dict[str, tuple[int, float, Callable[[Image.Image], Image.Image], int]] = {
    "autocontrast": (ops.AUTOCONTRAST, 0.0, ImageOps.autocontrast, 1),  # Pillow's float may be below a whole number
    "equalize": (ops.EQUALIZE, 0.0, ImageOps.equalize, 0),
    "solarize": (ops.SOLARIZE, 100.0, lambda image: ImageOps.solarize(image, 100), 0),
    "posterize": (ops.POSTERIZE, 3.0, lambda image: ImageOps.posterize(image, 3), 0),
    "color": (ops.COLOR, 1.6, lambda image: ImageEnhance.Color(image).enhance(1.6), 2),
    "contrast": (ops.CONTRAST, 0.4, lambda image: ImageEnhance.Contrast(image).enhance(0.4), 1),
    "brightness": (ops.BRIGHTNESS, 1.3, lambda image: ImageEnhance.Brightness(image).enhance(1.3), 1),
    "sharpness": (ops.SHARPNESS, 1.9, lambda image: ImageEnhance.Sharpness(image).enhance(1.9), 2),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_those_of_pillow(name: str) -> None:
    """Up to what Pillow cuts off where it makes whole numbers."""
    kind, argument, function, most = PILLOW[name]
    big = np.tile(images(), (1, 3, 3, 1))
    found = operated("eager", [[(kind, argument)]] * 6, big)
    expected = np.stack([np.asarray(function(Image.fromarray(image))) for image in big]).astype(np.float64)
    assert np.abs(found - expected).max() <= most
    assert name == "sharpness" or np.abs(found - big).max() > 0


def test_affine_maps_are_composed() -> None:
    """Of each corner: where the second operation takes it from is where the first one then takes it from."""
    height, width = 40, 60
    single = {
        ops.ROTATE: lambda q, a: np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ q,
        ops.SHEAR_X: lambda q, a: q + np.array([a * (q[1] + height / 2), 0]),  # about the upper edge
        ops.SHEAR_Y: lambda q, a: q + np.array([0, a * (q[0] + width / 2)]),
        ops.TRANSLATE_X: lambda q, a: q + np.array([a * width, 0]),
        ops.TRANSLATE_Y: lambda q, a: q + np.array([0, a * height]),
        ops.COLOR: lambda q, a: q,
    }
    chains = [(a, b) for a in single for b in single]
    drawn = Operations(tf.constant(chains, tf.int64), tf.constant([(0.3, -0.2)] * len(chains), tf.float32))
    maps = affine(drawn, height, width).numpy()
    for (first, second), row in zip(chains, maps, strict=True):
        for corner in np.array([[0.0, 0.0], [29.5, 19.5], [-29.5, 7.0]]):
            expected = single[first](single[second](corner, -0.2), 0.3)
            np.testing.assert_allclose(row.reshape(2, 3) @ [*corner, 1], expected, atol=1e-5)


def test_a_policy_moves_what_flip_rotation_and_crop_have_made() -> None:
    config = AugmentConfig(rotation_degrees=25, crop_min_area=0.5)
    drawn = draw(config, 1, tf.constant(0, tf.int64), tf.range(6, dtype=tf.int64))
    kinds = tf.constant([[ops.ROTATE, ops.SHEAR_X]] * 6, tf.int64)
    extra = affine(Operations(kinds, tf.fill([6, 2], 0.25)), 40, 60)
    before, after = (transforms(drawn, 40, 60, one).numpy() for one in (None, extra))
    middle = np.array([29.5, 19.5])
    for old, new, a in zip(before, after, extra.numpy(), strict=True):
        for point in np.array([[0.0, 0.0], [59.0, 39.0], [5.0, 30.0]]):
            moved = a.reshape(2, 3) @ [*(point - middle), 1] + middle
            expected = old[:6].reshape(2, 3) @ [*moved, 1]
            np.testing.assert_allclose(new[:6].reshape(2, 3) @ [*point, 1], expected, atol=1e-3)
