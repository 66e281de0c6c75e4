"""The optimizers against Keras's own, whose updates they compute with fewer operations."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.training.builders import WarmUpCosine, build_optimizer
from simimg.training.train_config import TrainConfig

THEIRS = {
    "adamw": keras.optimizers.AdamW,
    "lamb": keras.optimizers.Lamb,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **options),
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("name", THEIRS)
def test_updates_are_those_of_keras(name: str, weight_decay: float) -> None:
    """Of a matrix, which decays, and of a bias, which does not; the same state in the same order."""
    config = TrainConfig(dataset_dir=Path(), optimizer=name, learning_rate=0.1, weight_decay=weight_decay)
    theirs = THEIRS[name](WarmUpCosine(0.1, 40), weight_decay=weight_decay)
    theirs.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    expected = after_20_updates(theirs)
    for mine, value in zip(after_20_updates(build_optimizer(config, 40)), expected, strict=True):
        np.testing.assert_allclose(mine, value, rtol=0, atol=2e-5)  # of updates of 0.1 each


def after_20_updates(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """The two weights, and the optimizer's own variables."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    weights = [keras.Variable(rng.normal(size=shape), dtype="float32", name=name) for name, shape in shapes.items()]
    optimizer.build(weights)
    step = tf.function(lambda gradients: optimizer.apply(gradients, weights))
    for _ in range(20):
        step([tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes.values()])
    return [variable.numpy() for variable in (*weights, *optimizer.variables)]
