"""Mixup and CutMix against NumPy in float64, their distributions, and the same pixels on one replica or several."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import AugmentConfig, augment, augment_and_mix, partners
from simimg.augment.mixing import beta_quantiles, mix

pytestmark = pytest.mark.own_process

EPOCH = tf.constant(1, tf.int64)
KINDS = {"mixup": {"mixup": 0.2}, "cutmix": {"cutmix": 1.0}, "both": {"mixup": 0.4, "cutmix": 1.0}}


def test_partners_are_neighbors_whatever_the_type() -> None:
    for dtype in (tf.int32, tf.int64, tf.uint8, tf.float32):
        values = tf.cast(tf.range(12), dtype)
        assert partners(values).numpy().tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    np.testing.assert_array_equal(partners(tf.reshape(values, [4, 3])), [[3, 4, 5], [0, 1, 2], [9, 10, 11], [6, 7, 8]])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_the_distribution_is_beta(alpha: float) -> None:
    quantiles = beta_quantiles(alpha, 1024)
    assert (quantiles[0], quantiles[512], quantiles[-1]) == (0, pytest.approx(0.5), 1)
    assert (np.diff(quantiles) >= 0).all()
    np.testing.assert_allclose(quantiles, 1 - quantiles[::-1], atol=1e-15)
    found = tf.math.betainc(np.float64(alpha), np.float64(alpha), quantiles[:513]).numpy()
    np.testing.assert_allclose(found, np.linspace(0, 0.5, 513), atol=2e-4)
    middles = (quantiles[1:] + quantiles[:-1]) / 2
    assert middles.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.01)


@pytest.mark.parametrize("mode", ["eager", "xla"])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_labels_are_mixed_alike(kind: str, mode: str) -> None:
    """A partner that is black where the image is white: each pixel says which share of it is the image's."""
    rng = np.random.default_rng(0)
    config = AugmentConfig(**KINDS[kind])
    ids = tf.constant(rng.permutation(1000)[:256])
    function = tf.function(mix, jit_compile=True) if mode == "xla" else mix
    white = np.zeros((256, 9, 14, 3), np.float32)
    white[::2] = 1
    weights = np.stack([function(config, 0, EPOCH, ids, tf.constant(one))[0] for one in (white, 1 - white)])
    weights = np.where(white == 1, weights[0], weights[1]).astype(np.float64)  # the image's share of each pixel
    pixels = rng.uniform(0, 255, (256, 9, 14, 3)).astype(np.float32)
    mixed, shares = (part.numpy() for part in function(config, 0, EPOCH, ids, tf.constant(pixels)))
    others = pixels.reshape(128, 2, 9, 14, 3)[:, ::-1].reshape(pixels.shape).astype(np.float64)
    np.testing.assert_allclose(mixed, weights * pixels + (1 - weights) * others, atol=1e-3)
    np.testing.assert_allclose(shares, weights.mean(axis=(1, 2, 3)), atol=1e-6)
    is_cut = ((weights == 0) | (weights == 1)).all(axis=(1, 2, 3))
    expected = {"mixup": 0, "cutmix": 1, "both": 0.5}[kind]
    assert abs(is_cut.mean() - expected) <= (0.12 if kind != "cutmix" else 0)
    for image in weights[is_cut]:
        rows, columns = np.nonzero(image[:, :, 0] == 0)
        if len(rows):
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == 0).all()
            assert (image == 0).sum() == box.size
    for image in weights[~is_cut]:
        assert np.ptp(image) < 1e-6
    if kind != "mixup":  # the box has the area that was drawn, less what is outside
        assert 0.55 < shares[is_cut].mean() < 0.75


def test_a_skipped_record_is_not_mixed() -> None:
    ids, pixels = tf.constant([5, -1, -1, 6, 7, 8], tf.int64), tf.random.uniform([6, 4, 4, 3], maxval=255)
    for options in KINDS.values():
        mixed, shares = mix(AugmentConfig(**options), 0, EPOCH, ids, pixels)
        np.testing.assert_array_equal(mixed[:4], pixels[:4])
        assert shares.numpy()[:4].tolist() == [1, 1, 1, 1]


def test_the_middle_of_a_turned_image_is_not_a_neighbor() -> None:
    """It comes from whole coordinates, which XLA computes twice when images are mixed, once for their fraction."""
    options = {"rotation_degrees": 30.0, "noise": 5.0, **KINDS["both"]}
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 13, 29, 3), np.uint8))
    found = [
        augment_and_mix(AugmentConfig(**options, augment_with=how), 0, EPOCH, tf.range(16, dtype=tf.int64), images)[0]
        for how in ("operations", "xla")
    ]
    np.testing.assert_allclose(found[1], found[0], atol=0.1)


def test_replicas_have_no_say() -> None:
    """Of 24 images, one replica has all, four have six each, and twelve have a pair each: to the last bit."""
    others = AugmentConfig(rotation_degrees=20, erase=0.5, noise=10.0)
    config = dataclasses.replace(others, **KINDS["both"])
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (24, 11, 11, 3), np.uint8))
    ids = tf.constant(np.random.default_rng(1).permutation(24))
    step = tf.function(lambda id, x: augment_and_mix(config, 3, EPOCH, id, x))
    whole, shares = (part.numpy() for part in step(ids, images))
    for size in (6, 2):
        parts = [step(ids[at : at + size], images[at : at + size]) for at in range(0, 24, size)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), shares)
    alone = augment(config, 3, EPOCH, ids, images).numpy()
    assert not np.array_equal(alone, whole)
    np.testing.assert_array_equal(alone, augment(others, 3, EPOCH, ids, images))
    assert len({float(share) for share in shares}) > 12
    assert not math.isclose(shares[0], shares[1])
