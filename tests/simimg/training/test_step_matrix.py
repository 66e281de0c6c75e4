"""One step of every kind on one replica and on two: the same weights, by each way of summing over devices.

The ways are those that GPUs take: collectives, which between CPU devices go around a ring, copies in groups, and the
sum on one device. The rows are a covering array: they have every pair of values of any two options.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from simimg.models.backbones import NETWORKS
from simimg.models.batch_norm import SynchronizedBatchNormalization
from simimg.models.dropout import ExampleDropout
from simimg.models.heads import EMBEDDING, PROBABILITIES
from simimg.training import TrainConfig
from simimg.training.builders import build_state
from simimg.training.checkpoints import Progress
from simimg.training.run_setup import open_run_setup
from simimg.training.train_step import StepRunner, training_step

BASE: dict[str, Any] = {
    "epochs": 1,
    "global_batch_size": 16,  # one step
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "schedule": "constant",
    "weight_decay": 0.01,
    "rotation_degrees": 10.0,
}
SIMILARITY = {"objective": "similarity", "embedding_dim": 6, "queue_size": 8, "temperature": 0.2, "blur": 0.0}


class Row(NamedTuple):
    """A row of the covering array."""

    way: str
    precision: str
    objective: str = "classes"
    accumulate: int = 1
    clip: bool = False
    ema: bool = False
    network: str = "tutorial"  # with dropout; `small` with batch normalization, too
    cache: str = "host"

    def options(self) -> dict[str, Any]:
        kind = SIMILARITY if self.objective == "similarity" else {"preset": "tutorial", "accumulate": self.accumulate}
        more = {"precision": self.precision, "model": self.network, "cache": self.cache}
        return {**BASE, **kind, **more, "clip_norm": 0.1 if self.clip else 0.0, "ema": 0.9 if self.ema else 0.0}


ROWS = (
    Row("auto", "float32", "classes", 1, False, False, "tutorial", "host"),
    Row("hierarchical", "bfloat16", "similarity", 1, True, True, "small", "device"),
    Row("cpu", "float16", "classes", 1, True, False, "small", "host"),
    Row("hierarchical", "float32", "classes", 2, False, True, "tutorial", "device"),
    Row("auto", "bfloat16", "classes", 2, True, False, "tutorial", "host"),
    Row("auto", "float16", "classes", 2, False, True, "small", "device"),
    Row("cpu", "float32", "classes", 2, False, True, "small", "host"),
    Row("hierarchical", "float16", "similarity", 1, False, False, "tutorial", "device"),
    Row("cpu", "bfloat16", "similarity", 1, False, False, "tutorial", "device"),
    Row("auto", "float32", "similarity", 1, True, False, "small", "host"),
    Row("hierarchical", "float32", "classes", 1, False, False, "small", "host"),
)


def build(image_size: int, num_classes: int, *, normalized: bool) -> keras.Model:
    """A network that is compiled in no time, and tells pictures well apart."""
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    if normalized:
        x = keras.layers.ReLU()(SynchronizedBatchNormalization(momentum=0.9, name="norm")(x))
    x = keras.layers.Flatten()(ExampleDropout(0.2, stream=1, name="dropout")(x))
    x = keras.layers.Dense(7, name=EMBEDDING)(x)
    return keras.Model(pixels, keras.layers.Dense(num_classes, "softmax", dtype="float32", name=PROBABILITIES)(x))


@pytest.fixture(autouse=True)
def _tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tutorial", lambda size, count: build(size, count, normalized=False))
    monkeypatch.setitem(NETWORKS, "small", lambda size, count: build(size, count, normalized=True))


def trained(dataset_dir: Path, model_dir: Path, **options: Any) -> dict[str, np.ndarray]:
    """Returns the sums of the step, and all variables after it."""
    setup = open_run_setup(TrainConfig.with_preset({"dataset_dir": dataset_dir, "model_dir": model_dir, **options}))
    config, split, order = setup.config, setup.reader.split, setup.order
    with setup.strategy.scope():
        state = build_state(config, split.image_size, len(split.class_names), setup.num_steps)
    step = training_step(config, setup.strategy, state, order, setup.reader)
    progress = Progress()
    StepRunner(setup.strategy, step, order, setup.reader, config.objective_info.others).call(progress)
    assert progress.metrics.num_examples == 16
    values = {name: variable.numpy() for name, variable in state.variables().items()}
    return {**values, "loss": np.float32(progress.metrics.loss), "correct": np.float32(progress.metrics.num_correct)}


TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 2e-3}
"""Of weights and losses about 1. In half precision a replica rounds the gradients of its examples before the sum."""


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_two_replicas_are_one(tiny: dict[str, Path], tmp_path: Path, row: Row) -> None:
    one, two = (
        trained(tiny["two"], tmp_path / str(count), num_devices=count, cross_device_ops=row.way, **row.options())
        for count in (1, 2)
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], rtol=0, atol=TOLERANCES[row.precision], err_msg=name)
        assert np.isfinite(value).all(), name


def test_every_pair_of_values_is_in_a_row() -> None:
    """But parts of a batch, which the objective `similarity` does not allow."""
    seen = {field: sorted({getattr(row, field) for row in ROWS}) for field in Row._fields}
    assert [len(values) for values in seen.values()] == [3, 3, 2, 2, 2, 2, 2, 2]
    for a, b in itertools.combinations(Row._fields, 2):
        pairs = {(getattr(row, a), getattr(row, b)) for row in ROWS}
        missing = set(itertools.product(seen[a], seen[b])) - pairs
        assert missing <= {("similarity", 2)}, (a, b)


def test_parts_have_the_masks_of_the_whole(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Without batch normalization, a batch in parts is the batch, with its dropout; on one replica and on two."""
    plain = Row("auto", "float32").options()
    whole = trained(tiny["two"], tmp_path / "whole", num_devices=1, **plain)
    for count in (1, 2):
        parts = trained(tiny["two"], tmp_path / f"parts{count}", num_devices=count, **{**plain, "accumulate": 4})
        for name, value in whole.items():
            np.testing.assert_allclose(value, parts[name], rtol=0, atol=1e-6, err_msg=name)
