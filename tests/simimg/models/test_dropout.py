"""Dropout: a mask belongs to (seed, step, stream, row), and nothing else."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.dropout import ExampleDropout, dropout_scope

SEED = 2**40 + 7  # beyond int32: a cast on the way would lose it


def dropped(
    rows: int,
    first_row: int = 0,
    *,
    seed: tuple[int, int] = (SEED, 11),
    stream: int = 5,
    shape: tuple[int, ...] = (5, 3),
    rate: float = 0.3,
) -> Any:
    """What the layer makes of ones: float32 [rows, *shape]."""
    with dropout_scope(seed=seed, first_row=first_row):
        return ExampleDropout(rate, stream=stream)(tf.ones((rows, *shape)), training=True).numpy()


@pytest.mark.parametrize("shape", [(5, 3), (8,), (1,), (4, 4, 2)])
def test_slices_of_the_global_batch_get_the_masks_of_the_whole(shape: tuple[int, ...]) -> None:
    whole = dropped(12, shape=shape)
    for sizes in ([6, 6], [1, 2, 3, 6], [12]):
        starts = np.cumsum([0, *sizes[:-1]])
        parts = [dropped(size, int(start), shape=shape) for size, start in zip(sizes, starts, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("row_step", [2, 3])
def test_every_other_row_gets_the_masks_that_it_has_in_the_whole(row_step: int) -> None:
    whole = dropped(12)
    for first in range(row_step):
        with dropout_scope(seed=(SEED, 11), first_row=first, row_step=row_step):
            part = ExampleDropout(0.3, stream=5)(tf.ones((12 // row_step, 5, 3)), training=True).numpy()
        np.testing.assert_array_equal(part, whole[first::row_step])


def test_a_mask_for_all_of_an_example() -> None:
    layer = ExampleDropout(0.5, stream=5, noise_shape=(None, 1, 3))
    parts = []
    for first in (0, 8):
        with dropout_scope(seed=(SEED, 11), first_row=first):
            parts.append(layer(tf.ones((8, 5, 3)), training=True).numpy())
    both = np.concatenate(parts)
    with dropout_scope(seed=(SEED, 11), first_row=0):
        np.testing.assert_array_equal(layer(tf.ones((16, 5, 3)), training=True), both)
    assert {tuple(row[0]) for row in both} > {(0, 0, 0), (2, 0, 2)}
    np.testing.assert_array_equal(both, np.broadcast_to(both[:, :1], both.shape))
    assert ExampleDropout.from_config(layer.get_config()).noise_shape == (None, 1, 3)
    assert "noise_shape" not in ExampleDropout(0.5, stream=5).get_config()  # as in files of earlier versions
    with pytest.raises(UsageError, match=r"None as its first dimension. Received: noise_shape=\(1, 3\)"):
        ExampleDropout(0.5, stream=5, noise_shape=(1, 3))


def test_rows_have_different_masks() -> None:
    masks = dropped(64, shape=(32,)) == 0
    assert len({row.tobytes() for row in masks}) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"seed": (SEED, 12)},
        {"seed": (SEED + 1, 11)},
        {"seed": (7, 11)},
        {"seed": (-SEED, 11)},
        {"stream": 6},
        {"first_row": 1},
    ],
)
def test_everything_that_a_mask_depends_on_changes_it(other: dict[str, Any]) -> None:
    np.testing.assert_array_equal(dropped(8), dropped(8))
    agreement = np.mean((dropped(8, shape=(500,)) == 0) == (dropped(8, shape=(500,), **other) == 0))
    assert abs(agreement - (0.3**2 + 0.7**2)) < 0.04  # of independent masks; 5 standard deviations


def test_masks_are_the_ones_they_always_were() -> None:
    """When this fails, a run that is resumed under the new code is not the run that was interrupted."""
    mask = dropped(2, 3, shape=(24,), rate=0.5) == 0
    assert np.packbits(mask).tobytes().hex() == "f1d3e9ddaf88"


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_the_rate_is_kept_and_the_mean_stays(rate: float) -> None:
    output = dropped(100, shape=(1000,), rate=rate)
    assert np.mean(output == 0) == pytest.approx(rate, abs=0.008)  # 5 standard deviations
    np.testing.assert_allclose(np.unique(output), [0, 1 / (1 - rate)], rtol=1e-6)


def test_gradient_passes_the_same_mask() -> None:
    x = tf.Variable(tf.ones((4, 10)))
    with tf.GradientTape() as tape, dropout_scope(seed=(1, 2), first_row=0):
        y = ExampleDropout(0.5, stream=1)(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), y)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_graph_and_xla_drop_what_eager_drops(jit_compile: bool) -> None:
    layer = ExampleDropout(0.3, stream=5)

    @tf.function(jit_compile=jit_compile)
    def run(x: Any, seed: Any, first_row: Any) -> Any:
        with dropout_scope(seed=seed, first_row=first_row):
            return layer(x, training=True)

    x = tf.ones((4, 5, 3))
    for step, first_row in ((11, 0), (11, 4), (12, 4)):
        got = run(x, tf.constant([SEED, step], tf.int64), tf.constant(first_row))
        np.testing.assert_array_equal(got, dropped(4, first_row, seed=(SEED, step)))


def test_the_compute_dtype_is_kept() -> None:
    layer = ExampleDropout(0.3, stream=5, dtype="mixed_bfloat16")
    with dropout_scope(seed=(SEED, 11), first_row=0):
        output = layer(tf.ones((8, 5, 3)), training=True)
    assert output.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(output, tf.float32) == 0, dropped(8) == 0)


def test_nothing_is_dropped_in_inference_or_at_rate_0() -> None:
    x = tf.random.stateless_uniform((3, 4), seed=(0, 0))
    with dropout_scope(seed=(1, 2), first_row=0):
        np.testing.assert_array_equal(ExampleDropout(0.5, stream=0)(x), x)
        np.testing.assert_array_equal(ExampleDropout(0, stream=0)(x, training=True), x)


def test_outside_a_scope_it_is_the_dropout_of_keras() -> None:
    x = tf.ones((4, 100))
    ours, theirs = ExampleDropout(0.5, stream=3), keras.layers.Dropout(0.5, seed=3)
    for _ in range(2):
        np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))


def test_a_scope_ends_with_its_block_and_the_inner_one_wins() -> None:
    layer, x = ExampleDropout(0.3, stream=5), tf.ones((4, 5, 3))
    with dropout_scope(seed=(SEED, 11), first_row=0):
        with contextlib.suppress(ZeroDivisionError), dropout_scope(seed=(SEED, 12), first_row=0):
            np.testing.assert_array_equal(layer(x, training=True), dropped(4, seed=(SEED, 12)))
            raise ZeroDivisionError
        np.testing.assert_array_equal(layer(x, training=True), dropped(4))
    assert not np.array_equal(layer(x, training=True), layer(x, training=True))


def test_config_gives_the_layer_back() -> None:
    layer = ExampleDropout(0.3, stream=5, seed=9, name="x")
    again = ExampleDropout.from_config(layer.get_config())
    assert (again.rate, again.stream, again.seed, again.name) == (0.3, 5, 9, "x")


@pytest.mark.parametrize("arguments", [{"rate": 1}, {"rate": -0.1}, {"stream": -1}, {"stream": 65536}])
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    name, value = next(iter(arguments.items()))
    with pytest.raises(UsageError, match=f"Received: {name}={value}"):
        ExampleDropout(**{"rate": 0.5, "stream": 0, **arguments})


def test_an_input_of_unknown_shape_is_refused() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def run(x: Any) -> Any:
        with dropout_scope(seed=(1, 2), first_row=0):
            return ExampleDropout(0.5, stream=0)(x, training=True)

    with pytest.raises(UsageError, match="know every dimension but the first"):
        run(tf.ones((2, 3)))
