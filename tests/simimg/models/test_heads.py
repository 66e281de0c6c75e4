"""The embedder: pixels to unit vectors."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from simimg.errors import ModelError
from simimg.models.backbones import small, tutorial
from simimg.models.heads import embedder


def test_embeddings_are_the_layer_s_output_on_the_unit_sphere() -> None:
    keras.utils.set_random_seed(1)
    model = tutorial(16, 3)
    pixels = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3), np.uint8)
    got = embedder(model)(pixels)
    raw = keras.Model(model.input, model.get_layer("embedding").output)(pixels).numpy()
    assert got.dtype == "float32"
    assert got.shape == (5, 512)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(got, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_uint8_and_float_pixels_give_the_same() -> None:
    model = embedder(small(32, 3))
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(model(pixels), model(pixels.astype(np.float32)))


def test_weights_are_shared_with_the_classifier() -> None:
    model = tutorial(16, 3)
    made = embedder(model)
    pixels = np.full((1, 16, 16, 3), 99, np.uint8)
    before = made(pixels).numpy()
    kernel = model.get_layer("embedding").kernel
    kernel.assign(-kernel)
    assert not np.allclose(before, made(pixels))


def test_an_embedding_of_zeros_stays_zero_and_is_not_nan() -> None:
    model = tutorial(16, 3)
    model.get_layer("embedding").kernel.assign(np.zeros((64 * 3 * 3, 512)))
    np.testing.assert_array_equal(embedder(model)(np.ones((1, 16, 16, 3))), np.zeros((1, 512)))


def test_under_mixed_precision_vectors_are_float32_and_of_norm_1() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        got = embedder(tutorial(16, 3))(np.full((2, 16, 16, 3), 99, np.uint8))
    finally:
        keras.config.set_dtype_policy(policy)
    assert got.dtype == "float32"
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_a_model_without_an_embedding_is_refused() -> None:
    pixels = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten(name="flat")(pixels)
    with pytest.raises(ModelError, match=r"'embedding'.*'other'.*flat"):
        embedder(keras.Model(pixels, flat, name="other"))
    wide = keras.layers.Identity(name="embedding")(pixels)
    with pytest.raises(ModelError, match=r"\(None, 8, 8, 3\)"):
        embedder(keras.Model(pixels, wide))
