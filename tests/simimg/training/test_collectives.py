"""Three and eight replicas, in a process of their own: the same step as one, and what they sum by NCCL.

NCCL's operations cannot run between CPU devices, but they can be traced there.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.forked_process import run_forked

ROOT = Path(__file__).parents[3]

SCRIPT = """
import collections, dataclasses, json, sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from simimg.augment import augmentation
from simimg.training import TrainConfig, make_strategy, run_setup, train_step
from simimg.training.builders import build_state
from simimg.training.checkpoints import Progress
from simimg.training.strategy import _mirrored

DATASET = Path(sys.argv[1])
make_strategy(8)  # the first, so that there are 8 devices
compiled = augmentation._augmented
augmentation._augmented = lambda config, seed, _, channels: compiled(config, seed, True, channels)


def stepper(num_devices, **options):
    given = {"dataset_dir": DATASET, "model_dir": Path("none"), "epochs": 1, "global_batch_size": 16}
    given |= {"num_devices": num_devices, "rotation_degrees": 10.0}
    setup = run_setup.open_run_setup(TrainConfig.with_preset({**given, **options}))
    config, split = setup.config, setup.reader.split
    with setup.strategy.scope():
        state = build_state(config, split.image_size, len(split.class_names), setup.num_steps)
    step = train_step.training_step(config, setup.strategy, state, setup.order, setup.reader)
    return state, train_step.StepRunner(setup.strategy, step, setup.order, setup.reader, config.objective_info.others)


def trained(num_devices, way, **changes):
    options = {"preset": "tutorial", "optimizer": "sgd", "learning_rate": 0.05, "cross_device_ops": way, "ema": 0.5}
    options |= changes
    state, runner = stepper(num_devices, **options)
    progress = Progress()
    runner.call(progress)
    runner.call(dataclasses.replace(progress, position=dataclasses.replace(progress.position, epoch=0, step=0)))
    return [*state.model.get_weights(), *state.average.get_weights(), np.float32(progress.metrics.loss)]


# Runs of one process, on other devices and on the same ones again.
one = trained(1, "auto")
for num_devices, way in ((8, "auto"), (2, "auto"), (8, "auto"), (8, "hierarchical"), (4, "cpu")):
    for a, b in zip(one, trained(num_devices, way), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=f"{num_devices} {way}")

# An odd number of replicas, each with an odd number of examples, and steps of the same length in all directions.
odd = {"global_batch_size": 15, "optimizer": "lamb", "learning_rate": 0.001, "rand_augment": "2,9", "noise": 9.0}
for a, b in zip(trained(1, "auto", **odd), trained(3, "auto", **odd), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg="odd")

run_setup.make_strategy = lambda num_devices, way: _mirrored("CPU", num_devices, "nccl")
found = {}
for name, num_devices, options in json.loads(sys.argv[2]):
    _, runner = stepper(num_devices, **options)
    zero = tf.constant(0, tf.int64)
    run = train_step._several_steps(runner._step, timed=False, num_sums=3 + len(runner._others))
    graph = run.get_concrete_function(runner._batches, zero, zero, tf.constant(1)).graph.as_graph_def()
    ops = [node.op for part in (graph.node, *(body.node_def for body in graph.library.function)) for node in part]
    counts = collections.Counter(ops)
    assert not counts["CollectiveReduceV2"], counts
    found[name] = {"collectives": counts["NcclAllReduce"] / num_devices, "ops": len(ops)}
print(json.dumps(found))
"""

CLASSES = {"preset": "tutorial", "clip_norm": 1.0, "ema": 0.9, "accumulate": 2, "precision": "float16"}
LAMB = {"preset": "tutorial", "optimizer": "lamb", "augmix": 3.0, "mixup": 0.2, "cutmix": 1.0}
COPIES = {"objective": "similarity", "weights": "none", "train_backbone": True, "queue_size": 8, "blur": 0.0}
TRACED: list[tuple[str, int, dict[str, Any]]] = [
    ("tutorial on 2", 2, {"preset": "tutorial"}),
    ("clipped, averaged, in parts, float16 on 2", 2, CLASSES),
    ("mixed labels and LAMB on 2", 2, LAMB),
    ("copies on 2", 2, {**COPIES, "model": "tutorial"}),
    ("small on 2", 2, {"preset": "small"}),
    ("small on 8", 8, {"preset": "small"}),
]


@pytest.fixture(scope="module")
def found(datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Numbers of operations of each trace, by name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", SCRIPT, str(datasets["raw"]), json.dumps(TRACED)]
    done = run_forked(command, env=environment, cwd=tmp_path_factory.mktemp("collectives"), timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    numbers: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def test_collectives_of_a_step(found: dict[str, dict[str, float]]) -> None:
    """Each is a launch that all devices wait for: one for gradients and sums, one for embeddings with ids, and one in
    each direction for each of the 16 batch normalizations of `small`.
    """
    assert {name: numbers["collectives"] for name, numbers in found.items()} == {
        "tutorial on 2": 1,
        "clipped, averaged, in parts, float16 on 2": 1,
        "mixed labels and LAMB on 2": 1,
        "copies on 2": 2,
        "small on 2": 33,
        "small on 8": 33,
    }


def test_a_step_of_many_replicas_is_not_too_large_to_trace(found: dict[str, dict[str, float]]) -> None:
    """It is traced replica after replica; with 59,000 operations, that took most of a minute."""
    assert found["small on 8"]["ops"] < 15_000
    assert found["small on 8"]["ops"] < 4.1 * found["small on 2"]["ops"]
