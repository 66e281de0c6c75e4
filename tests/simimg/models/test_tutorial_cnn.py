"""The tutorial's CNN, layer by layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from simimg.errors import UsageError
from simimg.models.backbones import tutorial


def _summary(layer: Any) -> tuple[Any, ...]:
    if isinstance(layer, keras.layers.Conv2D):
        return ("conv", layer.filters, layer.kernel_size, layer.padding, layer.activation.__name__)
    if isinstance(layer, keras.layers.MaxPooling2D):
        return ("pool", layer.pool_size)
    if isinstance(layer, keras.layers.Dropout):
        return ("dropout", layer.rate)
    if isinstance(layer, keras.layers.Dense):
        return ("dense", layer.units, layer.activation.__name__)
    return (type(layer).__name__,)


def test_layers_are_the_tutorial_s() -> None:
    assert [_summary(layer) for layer in tutorial(64, 5).layers] == [
        ("InputLayer",),
        ("Rescaling",),
        ("conv", 32, (3, 3), "same", "relu"),
        ("pool", (2, 2)),
        ("dropout", 0.25),
        ("conv", 64, (3, 3), "same", "relu"),
        ("conv", 64, (3, 3), "valid", "linear"),
        ("pool", (2, 2)),
        ("dropout", 0.25),
        ("Flatten",),
        ("dense", 512, "relu"),
        ("dropout", 0.5),
        ("dense", 5, "softmax"),
    ]


def test_pixels_are_scaled_to_0_and_1() -> None:
    model = tutorial(8, 2)
    scale = keras.Model(model.input, model.layers[1].output)
    pixels = np.arange(256).repeat(3).reshape(4, 8, 8, 3).astype(np.uint8)
    np.testing.assert_allclose(scale(pixels), pixels / 255, atol=1e-7)


def test_the_smallest_image_works_and_a_smaller_one_is_refused() -> None:
    assert tutorial(8, 2)(np.zeros((1, 8, 8, 3))).shape == (1, 2)
    with pytest.raises(UsageError, match=r"at least 8 .*Received: image_size=7"):
        tutorial(7, 2)


def test_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match=r"at least 2 classes.*num_classes=1"):
        tutorial(16, 1)
