"""The draws are SplitMix64 of (seed, epoch, id), uniform, and never change."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simimg.augment.parameters import AugmentConfig, Parameters, draw, uniform
from simimg.errors import UsageError

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def reference(seed: int, epoch: int, ids: np.ndarray, num_draws: int) -> np.ndarray:
    """SplitMix64 in NumPy's unsigned arithmetic."""

    def mix(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

    with np.errstate(over="ignore"):
        run = mix(np.array([seed & (2**64 - 1)], np.uint64) + GOLDEN)
        run = mix(run + np.uint64(epoch) * GOLDEN)
        example = mix(run + ids.astype(np.uint64) * GOLDEN)
        bits = mix(example[:, None] + np.arange(1, num_draws + 1, dtype=np.uint64)[None, :] * GOLDEN)
    return ((bits >> np.uint64(40)).astype(np.float64) * 2.0**-24).astype(np.float32)


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    epoch=st.integers(0, 10**6),
    ids=st.lists(st.integers(0, 2**35), min_size=1, max_size=8),
)
@settings(max_examples=50)
def test_equals_the_reference(seed: int, epoch: int, ids: list[int]) -> None:
    drawn = uniform(seed, tf.constant(epoch, tf.int64), tf.constant(ids, tf.int64), 3)
    np.testing.assert_array_equal(drawn, reference(seed, epoch, np.array(ids), 3))


def test_golden_values() -> None:
    """If these change, every run that is resumed with the new version sees other augmentations than it would have."""
    drawn = uniform(7, tf.constant(3, tf.int64), tf.constant([0, 1, 2**33], tf.int64), 2).numpy()
    assert (drawn * 2**24).astype(int).tolist() == [[14626009, 14537162], [8221757, 2067428], [16537612, 1885823]]


def test_uniform_and_independent() -> None:
    numbers = uniform(0, tf.constant(0, tf.int64), tf.range(20_000, dtype=tf.int64), 2).numpy()
    counts, _ = np.histogram(numbers[:, 0], 20, (0, 1))
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 43.8  # 99.9 % quantile with 19 degrees of freedom
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.03
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_epochs_and_seeds_differ() -> None:
    ids = tf.range(100, dtype=tf.int64)
    draws = [
        uniform(seed, tf.constant(epoch, tf.int64), ids, 1).numpy().tobytes() for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len(set(draws)) == 4


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(jit_compile: bool) -> None:
    ids = tf.range(33, dtype=tf.int64)
    epoch = tf.constant(5, tf.int64)
    compiled = tf.function(lambda e, i: uniform(11, e, i, 4), jit_compile=jit_compile)
    np.testing.assert_array_equal(compiled(epoch, ids), uniform(11, epoch, ids, 4))


def test_options_change_the_parameters() -> None:
    ids, epoch = tf.range(1000, dtype=tf.int64), tf.constant(0, tf.int64)
    wide = draw(AugmentConfig(rotation_degrees=20), 0, epoch, ids)
    assert np.abs(wide.angle).max() <= np.deg2rad(20)
    assert np.abs(wide.angle).max() > np.deg2rad(19.5)
    assert 0.4 < wide.flip.numpy()[:, 0].mean() < 0.6
    assert not wide.flip.numpy()[:, 1].any()
    still = draw(AugmentConfig(rotation_degrees=0, horizontal_flip=False), 0, epoch, ids)
    assert not still.flip.numpy().any()
    assert not still.angle.numpy().any()
    np.testing.assert_array_equal(still.color, np.ones((1000, 3), np.float32))
    np.testing.assert_array_equal(still.crop, np.tile([0.5, 0.5, 1, 1], (1000, 1)).astype(np.float32))


def test_crops_lie_inside_the_picture_and_have_the_area_that_was_asked_for() -> None:
    crop = draw(AugmentConfig(crop_min_area=0.3), 0, tf.constant(0, tf.int64), tf.range(5000, dtype=tf.int64)).crop
    middle, size = crop[:, :2].numpy(), crop[:, 2:].numpy()
    assert (middle - size / 2 >= -1e-6).all()
    assert (middle + size / 2 <= 1 + 1e-6).all()
    area = size.prod(axis=1)
    assert 0.29 < area.min() < 0.31
    assert 0.6 < area.mean() < 0.66  # below the 0.65 of the draw: what would stick out is cut off
    assert size[:, 0].max() / size[:, 1].min() > 1.2


def test_parameters_of_degradation_fill_their_ranges() -> None:
    ids, epoch = tf.range(4000, dtype=tf.int64), tf.constant(0, tf.int64)
    config = AugmentConfig(vertical_flip=True, grayscale=0.25, blur=3.0, min_jpeg_quality=40, cutout=0.5)
    drawn = draw(config, 0, epoch, ids)
    flips = drawn.flip.numpy()
    assert [0.45 < share < 0.55 for share in (*flips.mean(axis=0), (flips[:, 0] == flips[:, 1]).mean())] == [True] * 3
    assert 0.22 < (drawn.color.numpy()[:, 2] == 0).mean() < 0.28
    sides = drawn.cutout.numpy()[:, 2]
    np.testing.assert_array_equal(sides, drawn.cutout[:, 3])
    for values, low, high in (
        (drawn.sigma, 0, 3),
        (drawn.quality, 40, 100),
        (sides, 0, 0.5),
        (drawn.cutout[:, 0], 0, 1),
        (drawn.cutout[:, 1], 0, 1),
    ):
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts.sum() == 4000
        assert ((counts - 400) ** 2 / 400).sum() < 27.9  # 99.9 % quantile with 9 degrees of freedom
    still = draw(AugmentConfig(), 0, epoch, ids)
    assert not still.sigma.numpy().any()
    assert not still.cutout.numpy()[:, 2:].any()
    assert (still.quality.numpy() == 100).all()
    np.testing.assert_array_equal(still.angle, drawn.angle)  # what is added moves no other draw


def test_views_are_further_draws_of_the_same_example() -> None:
    """Of one sequence, 64 a view: so views are independent, and the first is what it was before there were others."""
    ids, epoch = tf.constant([4, 9, 2**33], tf.int64), tf.constant(3, tf.int64)
    drawn = uniform(7, epoch, ids, 5, tf.constant([0, 1, 2], tf.int64)).numpy()
    long = reference(7, 3, ids.numpy(), 3 * 64)
    for row, view in enumerate((0, 1, 2)):
        np.testing.assert_array_equal(drawn[row], long[row, 64 * view : 64 * view + 5])
    np.testing.assert_array_equal(uniform(7, epoch, ids, 5, 1), long[:, 64:69])
    many = tf.range(4000, dtype=tf.int64)
    angles = [draw(AugmentConfig(), 0, epoch, many, view).angle.numpy() for view in (0, 1)]
    assert abs(np.corrcoef(angles)[0, 1]) < 0.05


def test_quarter_turns_pasting_and_bars_have_their_probabilities() -> None:
    ids, epoch = tf.range(6000, dtype=tf.int64), tf.constant(0, tf.int64)
    config = AugmentConfig(rotation_degrees=0, crop_min_area=0.5, quarter_turns=0.3, paste=0.25, bars=0.2)
    drawn = Parameters(*(part.numpy() for part in draw(config, 0, epoch, ids)))
    quarters = np.rint(drawn.angle / (np.pi / 2))
    np.testing.assert_allclose(drawn.angle, quarters * np.pi / 2, atol=1e-6)
    assert [round((quarters == k).mean(), 2) for k in (1, 2, 3)] == pytest.approx([0.1] * 3, abs=0.015)
    middle, size = drawn.crop[:, :2], drawn.crop[:, 2:]
    assert drawn.pasted.mean() == pytest.approx(0.25, abs=0.02)
    assert (size[drawn.pasted] >= 1).all()
    assert (size[~drawn.pasted] <= 1).all()
    assert (middle - size / 2 <= 1e-6)[drawn.pasted].all()  # the whole example is in the larger picture
    assert (middle + size / 2 >= 1 - 1e-6)[drawn.pasted].all()
    assert size[drawn.pasted].max() == pytest.approx(2.5, abs=0.05)
    thickness, gray = drawn.bars.T
    assert (thickness > 0).mean() == pytest.approx(0.2, abs=0.02)
    assert thickness[thickness > 0].min() >= 0.05
    assert thickness.max() <= 0.2
    assert [(gray == value).mean() for value in (0, 255)] == pytest.approx([1 / 3] * 2, abs=0.03)
    assert drawn.ground.min() >= 0
    assert 250 < drawn.ground.max() < 255
    still = draw(AugmentConfig(rotation_degrees=0), 0, epoch, ids)
    assert not any(np.any(part) for part in (still.angle, still.pasted, still.bars[:, 0]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotation_degrees", -5),
        ("crop_min_area", 0),
        ("colour_jitter", 1.5),
        ("grayscale", -0.1),
        ("blur", 17),
        ("min_jpeg_quality", 0),
        ("cutout", 1.1),
        ("quarter_turns", 2),
        ("paste", -1),
        ("bars", 1.5),
        ("border", "wrap"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: float | str) -> None:
    with pytest.raises(UsageError, match=f"--{name}={value}"):
        AugmentConfig(**{name: value})


def test_color_factors_fill_their_range_independently() -> None:
    color = draw(AugmentConfig(colour_jitter=0.4), 0, tf.constant(0, tf.int64), tf.range(5000, dtype=tf.int64)).color
    assert 0.6 <= color.numpy().min() < 0.61
    assert 1.39 < color.numpy().max() <= 1.4
    assert np.abs(np.corrcoef(color.numpy().T) - np.eye(3)).max() < 0.05
