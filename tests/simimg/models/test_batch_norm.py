"""Batch normalization: Keras's values and gradients on one replica, and those of the whole batch on two."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import UsageError
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.training import make_strategy


def some_pixels(rows: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(1, 2, (rows, 3, 2, 4)).astype(np.float32)


def outcome(layer: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the layer returns in training for the loss sum(y ** 3), all gradients, and its state afterwards."""
    pixels = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        y = layer(pixels, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    gradients = tape.gradient(loss, [pixels, *layer.trainable_variables])
    found = {"y": y, "dx": gradients[0]}
    found |= {
        variable.name: gradient for variable, gradient in zip(layer.trainable_variables, gradients[1:], strict=True)
    }
    found |= {f"new {variable.name}": variable.value for variable in layer.non_trainable_variables}
    return {name: tf.cast(value, tf.float32).numpy() for name, value in found.items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False, "epsilon": 1e-5}, {"momentum": 0.5}, {"dtype": "mixed_bfloat16"}],
    ids=str,
)
def test_one_replica_has_the_values_of_keras(options: dict[str, Any]) -> None:
    common = {"gamma_initializer": "he_normal", "beta_initializer": "he_normal", "name": "norm", **options}
    theirs, mine = keras.layers.BatchNormalization(**common), SynchronizedBatchNormalization(**common)
    for layer in (theirs, mine):
        layer.build((None, 3, 2, 4))
    mine.set_weights(theirs.get_weights())
    expected, found = outcome(theirs, some_pixels()), outcome(mine, some_pixels())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        atol = 0.1 if "dtype" in options else 2e-5  # gradients of Keras's layer pass through bfloat16
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=atol, err_msg=name)
    mine.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(mine(some_pixels()), theirs(some_pixels()))  # by the moving statistics


def test_two_replicas_have_the_statistics_of_the_whole_batch() -> None:
    """Each has half of the rows, and gradients of the loss of the whole batch."""
    x = some_pixels(8)
    whole = SynchronizedBatchNormalization(momentum=0.9)
    whole.build((None, 3, 2, 4))
    expected = outcome(whole, x)
    strategy = make_strategy(2)
    with strategy.scope():
        layer = SynchronizedBatchNormalization(momentum=0.9)
        layer.build((None, 3, 2, 4))

    @tf.function
    def halves() -> Any:
        def replica() -> Any:
            half = tf.constant(x.reshape(2, 4, 3, 2, 4))[tf.distribute.get_replica_context().replica_id_in_sync_group]
            with tf.GradientTape() as tape:
                tape.watch(half)
                y = layer(half, training=True)
                loss = tf.reduce_sum(y**3)
            return y, tape.gradient(loss, [half, *(variable.value for variable in layer.trainable_variables)])

        return strategy.run(replica)

    y, (dx, dgamma, dbeta) = halves()
    for value, name in ((y, "y"), (dx, "dx")):
        both = np.concatenate([part.numpy() for part in strategy.experimental_local_results(value)])
        np.testing.assert_allclose(both, expected[name], rtol=1e-5, atol=1e-4, err_msg=name)
    for value, name in ((dgamma, "gamma"), (dbeta, "beta")):
        both = sum(part.numpy() for part in strategy.experimental_local_results(value))
        np.testing.assert_allclose(both, expected[name], rtol=1e-5, err_msg=name)
    for variable in layer.non_trainable_variables:
        for copy in strategy.experimental_local_results(variable.value):
            np.testing.assert_allclose(copy.numpy(), expected[f"new {variable.name}"], rtol=1e-5, err_msg=variable.name)


def test_saved_and_loaded() -> None:
    layer = SynchronizedBatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")
    again = SynchronizedBatchNormalization.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    old = keras.layers.BatchNormalization(momentum=0.9, synchronized=False)
    assert SynchronizedBatchNormalization.from_config(old.get_config()).synchronized


@pytest.mark.parametrize("options", [{"axis": 1}, {"renorm": True}], ids=str)
def test_what_it_does_not_compute_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=r"the channels should be the last axis, and renorm is not supported\. Received: axis="
    ):
        SynchronizedBatchNormalization(**options)
