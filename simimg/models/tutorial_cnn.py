"""The tutorial's CNN, as it was taught: the baseline that better models are compared with."""

from __future__ import annotations

import keras

from simimg.models.dropout import ExampleDropout
from simimg.models.heads import EMBEDDING, image_input, probabilities, scaled

_SMALLEST = 8
"""Pixels: 8 -> pool 4 -> valid convolution 2 -> pool 1."""


def tutorial(image_size: int, num_classes: int) -> keras.Model:
    """Three convolutions and two dense layers on pixels scaled to 0..1.

    Conv 32 3x3 same relu, pool, dropout .25; Conv 64 3x3 same relu, Conv 64 3x3 linear, pool, dropout .25;
    Dense 512 relu (the embedding), dropout .5; Dense softmax. The linear convolution is written without
    "same", so it has Keras's default padding "valid" and shrinks the map by 2; pools are 2x2. Nearly all
    weights are in the first Dense.

    Args:
        image_size: width and height in pixels, at least 8.
        num_classes: at least 2.

    Returns:
        A model from [batch, image_size, image_size, 3] pixels 0..255 to float32 [batch, num_classes]
        probabilities; its embedding is [batch, 512], never negative.

    Raises:
        UsageError: an argument out of range.
    """
    pixels = image_input(image_size, smallest=_SMALLEST)
    x = scaled(pixels, middle=0, reach=255)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1")(x)
    x = keras.layers.MaxPooling2D(2, name="pool1")(x)
    x = ExampleDropout(0.25, stream=1, name="dropout1")(x)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.Conv2D(64, 3, padding="valid", name="conv3")(x)
    x = keras.layers.MaxPooling2D(2, name="pool2")(x)
    x = ExampleDropout(0.25, stream=2, name="dropout2")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(512, activation="relu", name=EMBEDDING)(x)
    x = ExampleDropout(0.5, stream=3, name="dropout3")(x)
    return keras.Model(pixels, probabilities(x, num_classes), name="tutorial")
