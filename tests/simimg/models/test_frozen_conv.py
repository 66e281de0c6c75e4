"""The folded layer against the two layers that it stands for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.models.frozen_conv import FrozenNormConv2D


@pytest.mark.parametrize("filters", [None, 6])
@pytest.mark.parametrize(("size", "kernel_size", "strides"), [(7, 3, 2), (8, 3, 2), (8, 5, 1), (5, 1, 1)])
def test_outputs_and_gradients_are_those_of_convolution_and_normalization(
    filters: int | None, size: int, kernel_size: int, strides: int
) -> None:
    rng = np.random.default_rng(3)
    x = tf.constant(rng.normal(size=(2, size, size, 4)), tf.float32)
    common = {"strides": strides, "padding": "same", "use_bias": False}
    conv = (
        keras.layers.DepthwiseConv2D(kernel_size, **common)
        if filters is None
        else keras.layers.Conv2D(filters, kernel_size, **common)
    )
    norm = keras.layers.BatchNormalization(epsilon=1e-3)
    folded = FrozenNormConv2D(filters, kernel_size, strides=strides)
    norm(conv(x))
    folded(x)
    assert [v.shape for v in folded.weights] == [v.shape for v in (*conv.weights, *norm.weights)]
    for ours, theirs in zip(folded.weights, (*conv.weights, *norm.weights), strict=True):
        value = rng.uniform(0.5, 1.5, ours.shape)
        ours.assign(value)
        theirs.assign(value)

    with tf.GradientTape(persistent=True) as tape:
        expected = norm(conv(x), training=False)
        got = folded(x, training=True)
        expected_loss, loss = (tf.reduce_sum(tf.sin(y)) for y in (expected, got))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    theirs = [v.value for v in (*conv.trainable_weights, *norm.trainable_weights)]
    ours = [v.value for v in folded.trainable_weights]
    assert len(ours) == len(theirs) == 3
    for a, b in zip(tape.gradient(loss, ours), tape.gradient(expected_loss, theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("filters", "groups"), [(None, 1), (6, 1), (6, 2)])
def test_padding_is_the_same_on_all_sides_and_groups_are_apart(filters: int | None, groups: int, size: int) -> None:
    rng = np.random.default_rng(4)
    x = tf.constant(rng.normal(size=(2, size, size, 4)), tf.float32)
    layer = FrozenNormConv2D(filters, 3, strides=2, padding=1, groups=groups)
    layer(x)
    values = [rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights]
    layer.set_weights(values)
    kernel, gamma, beta, mean, variance = values
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    size_out = (size - 1) // 2 + 1
    expected = np.zeros((2, size_out, size_out, filters or 4))
    for channel in range(filters or 4):
        if filters is None:
            inside, weights = slice(channel, channel + 1), kernel[:, :, channel]
        else:
            first = channel // (filters // groups) * (4 // groups)
            inside, weights = slice(first, first + 4 // groups), kernel[..., channel]
        for i in range(size_out):
            for j in range(size_out):
                window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, inside]
                expected[:, i, j, channel] = (window * weights.reshape(window.shape[1:])).sum((1, 2, 3))
    expected = (expected - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_statistics_stay_in_training() -> None:
    layer = FrozenNormConv2D(3, 3)
    layer(tf.random.stateless_normal((4, 8, 8, 3), (1, 2)) * 9 + 5, training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.zeros(3))
    np.testing.assert_array_equal(layer.moving_variance.numpy(), np.ones(3))


def test_mixed_precision_folds_in_float32_and_convolves_in_bfloat16() -> None:
    rng = np.random.default_rng(9)
    layer = FrozenNormConv2D(3, 3, dtype="mixed_bfloat16")
    x = tf.constant(rng.normal(size=(2, 8, 8, 3)), tf.float32)
    layer(x)
    kernel, gamma, beta, mean, variance = (rng.uniform(0.5, 1.5, v.shape).astype("float32") for v in layer.weights)
    layer.set_weights([kernel, gamma, beta, mean, variance])
    scale = gamma * tf.math.rsqrt(variance + np.float32(1e-3))
    folded, offset = (tf.cast(value, tf.bfloat16) for value in (kernel * scale, beta - mean * scale))
    expected = tf.nn.conv2d(tf.cast(x, tf.bfloat16), folded, 1, "SAME") + offset
    got = layer(x)
    assert got.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(got, tf.float32), tf.cast(expected, tf.float32))


@pytest.mark.parametrize("filters", [None, 6])
def test_config_gives_the_layer_back(filters: int | None) -> None:
    config: dict[str, Any] = FrozenNormConv2D(
        filters, 5, strides=2, epsilon=0.5, padding=2, groups=3, name="x"
    ).get_config()
    again = FrozenNormConv2D.from_config(config)
    assert again.get_config() == config
    assert (again.filters, again.kernel_size, again.strides, again.epsilon) == (filters, 5, 2, 0.5)
    assert (again.padding, again.groups) == (2, 3)
