"""What policies draw: each operation as often as published, with the published strengths."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import operations as ops
from simimg.augment.parameters import AugmentConfig, draw
from simimg.augment.policies import AUGMIX_KINDS, augmix, invert_bright, rand_augment, three_augment
from simimg.errors import UsageError

pytestmark = pytest.mark.own_process

EPOCH = tf.constant(0, tf.int64)
IDS = tf.range(20_000, dtype=tf.int64)


def test_rand_augment() -> None:
    """The strengths at magnitude 9 of 30 are those of torchvision's RandAugment(num_ops=2, magnitude=9)."""
    kind, argument = (part.numpy() for part in rand_augment(AugmentConfig(rand_augment="2,9"), 0, EPOCH, IDS))
    assert kind.shape == (20_000, 2)
    counts = np.bincount(kind.ravel(), minlength=14)
    assert len(counts) == 14
    assert np.abs(counts / 40_000 - 1 / 14).max() < 0.006
    assert abs(np.corrcoef(kind.T)[0, 1]) < 0.03
    published = {
        ops.ROTATE: (math.radians(9), -math.radians(9)),
        ops.SOLARIZE: (178.5,),
        ops.POSTERIZE: (7.0,),
        **dict.fromkeys((ops.COLOR, ops.CONTRAST, ops.BRIGHTNESS, ops.SHARPNESS), (0.73, 1.27)),
        **dict.fromkeys((ops.SHEAR_X, ops.SHEAR_Y), (0.09, -0.09)),
        **dict.fromkeys((ops.TRANSLATE_X, ops.TRANSLATE_Y), (0.3 * 150 / 331, -0.3 * 150 / 331)),
    }
    for one, expected in published.items():
        found = argument[kind == one]
        assert set(found) == {np.float32(value) for value in expected}
        assert len(expected) == 1 or abs((found == found[0]).mean() - 0.5) < 0.05
    weak = rand_augment(AugmentConfig(rand_augment="1,0"), 0, EPOCH, IDS)
    assert set(weak.argument.numpy().ravel()) == {0.0, 1.0, 8.0, 255.0}


def test_augmix() -> None:
    drawn = augmix(AugmentConfig(augmix=3.0), 0, EPOCH, IDS)
    kind, argument, shares = (part.numpy() for part in drawn)
    assert kind.shape == argument.shape == (20_000, 3, 3)
    assert set(np.unique(kind)) == {ops.IDENTITY, *AUGMIX_KINDS}
    depths = (kind != ops.IDENTITY).sum(axis=2)
    assert np.abs(np.bincount(depths.ravel(), minlength=4) / 60_000 - [0, 1 / 3, 1 / 3, 1 / 3]).max() < 0.01
    turns = argument[kind == ops.ROTATE]
    assert math.radians(0.3) - 1e-6 <= np.abs(turns).min() < np.abs(turns).max() <= math.radians(9)
    assert set(argument[kind == ops.POSTERIZE]) == {3.0, 4.0}
    assert 256 - 76 <= argument[kind == ops.SOLARIZE].min() < argument[kind == ops.SOLARIZE].max() <= 254
    assert np.abs(argument[kind == ops.TRANSLATE_X]).max() == pytest.approx(0.1, abs=1e-3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert shares.min() >= 0
    assert abs(shares[:, 0].mean() - 0.5) < 0.01
    assert shares[:, 0].var() == pytest.approx(1 / 12, abs=0.003)  # uniform, as Beta(1, 1)
    parts = shares[:, 1:] / np.maximum(1 - shares[:, :1], 1e-9)
    assert np.abs(parts.mean(axis=0) - 1 / 3).max() < 0.01
    assert np.abs(parts.var(axis=0) - 1 / 18).max() < 0.003  # Dirichlet(1, 1, 1)


def test_three_augment() -> None:
    still = draw(AugmentConfig(rotation_degrees=0.0, horizontal_flip=False), 0, EPOCH, IDS)
    drawn, solarized = three_augment(still, 0, EPOCH, IDS)
    gray, blurred = drawn.color[:, 2].numpy() == 0, drawn.sigma.numpy() > 0
    np.testing.assert_array_equal(gray.astype(int) + blurred + solarized.numpy(), 1)
    assert max(abs(one.mean() - 1 / 3) for one in (gray, blurred)) < 0.01
    sigmas = drawn.sigma.numpy()[blurred]
    assert 0.1 <= sigmas.min() < 0.12 < 1.98 < sigmas.max() <= 2.0
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 5, 3)).astype(np.float32)
    pixels[0, 0, 0] = 128
    found = invert_bright(tf.constant([True, False]), tf.constant(pixels))
    np.testing.assert_array_equal(found[0], np.where(pixels[0] >= 128, 255 - pixels[0], pixels[0]))
    np.testing.assert_array_equal(found[1], pixels[1])


def test_draws_do_not_depend_on_the_batch_and_differ_by_seed_epoch_and_view() -> None:
    config = AugmentConfig(rand_augment="3,9")
    whole = rand_augment(config, 5, EPOCH, IDS[:99]).kind.numpy()
    np.testing.assert_array_equal(rand_augment(config, 5, EPOCH, IDS[40:50]).kind, whole[40:50])
    others = [
        rand_augment(config, 6, EPOCH, IDS[:99]),
        rand_augment(config, 5, EPOCH + 1, IDS[:99]),
        rand_augment(config, 5, EPOCH, IDS[:99], 1),
    ]
    assert len({whole.tobytes(), *(other.kind.numpy().tobytes() for other in others)}) == 4
    # Pinned: a run that is resumed would otherwise see other images.
    assert rand_augment(AugmentConfig(rand_augment="2,9"), 0, EPOCH, IDS[:4]).kind.numpy().tolist() == GOLDEN


GOLDEN = [[6, 8], [12, 3], [4, 12], [3, 8]]


@pytest.mark.parametrize("given", ["", "9", "2,9,1", "a,b", "0,9", "9,9", "2,31", "2,-1", "2.5,9"])
def test_a_wrong_rand_augment(given: str) -> None:
    with pytest.raises(
        UsageError, match=f"--rand_augment={given}: should be N,M with 1..8 operations per image and a "
    ):
        AugmentConfig(rand_augment=given)


def test_policies_exclude_each_other() -> None:
    with pytest.raises(UsageError, match=r"--augmix=3\.0 and --rand_augment=2,9: use one of them"):
        AugmentConfig(rand_augment="2,9", augmix=3.0)


@pytest.mark.parametrize(
    ("options", "most"),
    [({"augmix": -1.0}, 10), ({"noise": 129.0}, 128), ({"erase": 1.5}, 1), ({"mixup": -0.1}, 8), ({"cutmix": 9.0}, 8)],
)
def test_a_wrong_strength(options: dict[str, float], most: int) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UsageError, match=rf"--{name}={value}: should be 0\.\.{most}\."):
        AugmentConfig(**options)
