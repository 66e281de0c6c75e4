"""One replica or two: the same step. In a process of its own, since devices are fixed once TensorFlow has started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.forked_process import run_forked

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import numpy as np
import keras
import tensorflow as tf

from simimg.models.backbones import lite, small, tutorial
from simimg.models.dropout import dropout_scope

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
pixels = np.random.default_rng(1).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
seed = tf.constant([3, 4], tf.int64)

for build in (tutorial, small):
    keras.utils.set_random_seed(2)
    with strategy.scope():
        mirrored = build(32, 5)
    keras.utils.set_random_seed(2)
    single = build(32, 5)

    def step(x, first_row, model):
        with dropout_scope(seed=seed, first_row=first_row):
            return model(x, training=True)

    @tf.function
    def both(first_half, second_half):
        halves = (first_half, second_half)
        rows = strategy.experimental_distribute_values_from_function(
            lambda context: halves[context.replica_id_in_sync_group]
        )
        def replica(x):
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            return step(x, index * 4, mirrored)
        return strategy.experimental_local_results(strategy.run(replica, (rows,)))

    one = step(pixels, 0, single).numpy()
    two = np.concatenate([part.numpy() for part in both(pixels[:4], pixels[4:])])
    np.testing.assert_allclose(two, one, atol=2e-5, err_msg=build.__name__)
    for a, b in zip(mirrored.non_trainable_variables, single.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4, err_msg=a.path)
    swapped = np.concatenate([part.numpy() for part in both(pixels[4:], pixels[:4])])
    assert not np.allclose(swapped[4:], one[:4], atol=1e-3), build.__name__

with strategy.scope():
    mirrored = lite("lite0", 32, 5)
for a, b in zip(mirrored.variables[:-2], lite("lite0", 32, 5).variables[:-2], strict=True):
    copies = strategy.experimental_local_results(a.value)
    assert len(copies) == 2 and all(np.array_equal(copy.numpy(), b.numpy()) for copy in copies), a.path
print("done")
"""


def test_two_replicas_drop_and_normalize_as_one_does() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = run_forked([sys.executable, "-c", SCRIPT], env=environment, timeout=120)
    assert done.stdout.endswith("done\n"), done.stderr[-4000:]
    assert done.returncode == 0
