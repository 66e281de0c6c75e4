"""The programs of docs/train_py.md run, on two logical devices, and what they promise holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import app, flags

import simimg
from simimg.errors import UsageError
from simimg.input.sampler import Position
from simimg.sample import draw_sample

pytestmark = pytest.mark.own_process

DOCUMENT = Path(__file__).parents[2] / "simimg" / "docs" / "train_py.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
PER_CLASS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train_py")
    draw_sample(folder / "photos", per_class=PER_CLASS)
    for name, encoding in (("photos", "raw"), ("jpegs", "jpeg")):
        simimg.convert(
            folder / "photos", name=name, data_dir=str(folder / "data"), image_size=16, encoding=encoding, num_workers=1
        )
    return folder


@pytest.fixture(scope="module")
def strategy() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def here(folder: Path, strategy: tf.distribute.Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: strategy)


def folder_of(folder: Path, name: str = "photos") -> Path:
    return folder / "data" / name / "1.0.0"


def network(folder: Path, dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout, seed=1),
            keras.layers.Dense(5),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 8


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_programs_run(number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = PROGRAMS[number]
    if "app.run" not in text:
        exec(compile(text, f"program {number}", "exec"), {"__name__": "__main__"})
        return
    values = flags.FlagValues()
    monkeypatch.setattr(simimg.flags.define_input, "__kwdefaults__", {"prefix": "", "flag_values": values})
    monkeypatch.setattr(simimg.flags.load, "__kwdefaults__", {"prefix": "", "flag_values": values})
    monkeypatch.setattr(app, "run", lambda main: main(values(["train.py", "--dataset_dir=data/photos/1.0.0"])))
    exec(compile(text, f"program {number}", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "5 2\n"


def ids_of(dataset: Any) -> list[list[int]]:
    return [batch.id.numpy().tolist() for batch in dataset]


@pytest.mark.parametrize(
    ("name", "reader"),
    [("photos", "resident"), ("photos", "mapped"), ("photos", "stream"), ("jpegs", "mapped")],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_epochs_and_positions(folder: Path, name: str, reader: str, shuffle: bool) -> None:
    options: dict[str, Any] = {"batch_size": 7, "shuffle": shuffle, "ids": True, "reader": reader}
    dataset = simimg.load(folder_of(folder, name), **options)
    steps = 6 if shuffle else 7
    epochs = [ids_of(dataset) for _ in range(3)]
    assert dataset.position == Position(3, 0)
    assert [list(map(len, epoch)) for epoch in epochs] == 3 * [6 * [7] + ([] if shuffle else [3])]
    assert len(dataset) == int(dataset.cardinality()) == dataset.steps_per_epoch == steps
    assert (epochs[0] == epochs[1]) is not shuffle
    for epoch in epochs:
        assert len({id for ids in epoch for id in ids}) == sum(map(len, epoch))
    derived = dataset.map(lambda *batch: batch)
    assert int(derived.cardinality()) == (-2 if reader == "stream" else steps)
    for start in ((0, 4), (2, 1), (1, steps - 1)):
        rest = simimg.load(folder_of(folder, name), **options, start=start)
        assert rest.position == Position(*start)
        assert ids_of(rest) == epochs[start[0]][start[1] :]
        assert rest.position == Position(start[0] + 1, 0)
    dataset.position = (1, 2)
    iterator = iter(dataset)
    assert next(iterator).id.numpy().tolist() == epochs[1][2]
    assert dataset.position == Position(1, 3)
    assert ids_of(dataset) == epochs[1][2:]  # what was not finished is repeated
    next(iterator)
    dataset.position = (0, 0)
    assert ids_of(dataset.repeat(2)) == [*epochs[0], *epochs[1]]
    together = simimg.load(folder_of(folder, name), **options, epochs=2)
    assert ids_of(together) == [*epochs[0], *epochs[1]]
    assert len(together) == 2 * steps


def test_a_position_does_not_go_back(folder: Path) -> None:
    """An iteration that began before the position was set changes it no more."""
    dataset = simimg.load(folder_of(folder), batch_size=9, shuffle=True, ids=True)
    old = iter(dataset)
    next(old)
    dataset.position = (4, 2)
    assert len(list(old)) == 4
    assert dataset.position == Position(4, 2)
    expected = simimg.load(folder_of(folder), batch_size=9, shuffle=True, ids=True, start=(4, 2))
    assert ids_of(dataset) == ids_of(expected)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_strategy_gets_the_same_batches(folder: Path, strategy: tf.distribute.Strategy, shuffle: bool) -> None:
    options: dict[str, Any] = {"batch_size": 8, "shuffle": shuffle, "ids": True}
    expected = simimg.load(folder_of(folder), **options)
    with strategy.scope():
        dataset = simimg.load(folder_of(folder), **options, strategy=strategy)
    assert len(dataset) == int(dataset.cardinality) == len(expected)
    for epoch in range(2):
        found = []
        for number, batch in enumerate(dataset, 1):
            parts = strategy.experimental_local_results(batch.id)
            assert len(parts) == 2
            found.append(np.concatenate([part.numpy() for part in parts]).tolist())
            assert dataset.position == Position(*divmod(epoch * len(dataset) + number, len(dataset)))
        assert found == ids_of(expected)
    assert dataset.class_names == expected.class_names
    with pytest.raises(UsageError, match="batch_size=9 cannot be divided among the 2 replicas"):
        simimg.load(folder_of(folder), batch_size=9, strategy=strategy)
    assert simimg.load(folder_of(folder), strategy=tf.distribute.get_strategy()).image_size == 16


@pytest.mark.parametrize("batch_size", [14, 100])
def test_no_replica_is_left_without_a_part(folder: Path, strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Fourteen of 15 images in the first batch would leave one for two replicas."""

    def network() -> keras.Model:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
        last = [keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
        model = keras.Sequential([keras.layers.Input((16, 16, 3)), *layers, *last])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    test = simimg.load(folder_of(folder), "test", batch_size=batch_size, strategy=strategy)
    assert test.num_examples == 15
    sizes = [[len(part) for part in strategy.experimental_local_results(images)] for images, _ in test]
    assert sizes == [[6, 6], [2, 1]]
    with strategy.scope():
        several = network()
    expected = network().evaluate(simimg.load(folder_of(folder), "test", batch_size=5), verbose=0)
    np.testing.assert_allclose(several.evaluate(test, verbose=0), expected, rtol=1e-5)


class Recorder(keras.Model):
    """Notes the batches that it is trained on: the sums of their pixels, for each replica."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.seen = keras.layers.Dense(5), []

    def call(self, images: Any) -> Any:
        return self.dense(tf.reshape(tf.cast(images, tf.float32), [-1, 16 * 16 * 3]) / 255)

    def train_step(self, data: Any) -> Any:
        total = tf.reduce_sum(tf.cast(data[0], tf.int64))
        tf.numpy_function(lambda total: self.seen.append(int(total)), [total], [])
        return super().train_step(data)


@pytest.mark.parametrize("several", ["one", "plain", "strategy"])
def test_fit_trains_on_each_batch_once(folder: Path, strategy: tf.distribute.Strategy, several: str) -> None:
    """With weights, a `map` after the dataset, and further calls of fit."""
    scope = tf.distribute.get_strategy() if several == "one" else strategy
    with scope.scope():
        model = Recorder()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    options = {"strategy": strategy} if several == "strategy" else {}
    plain = simimg.load(folder_of(folder), batch_size=4, shuffle=True)
    train = simimg.load(folder_of(folder), batch_size=4, shuffle=True, **options)
    test = simimg.load(folder_of(folder), "test", batch_size=4, **options)
    history = model.fit(train, epochs=2, validation_data=test, verbose=0).history
    assert np.isfinite([*history["loss"], *history["val_loss"]]).all()
    if several == "one":
        assert train.position == Position(2, 0)
        model.fit(train.map(lambda image, label: (image, label)), class_weight=train.class_weights, verbose=0)
    else:
        model.fit(train, verbose=0)
    expected = [
        int(np.sum(part, dtype=np.int64))
        for _ in range(3)
        for images, _ in plain
        for part in ([images] if several == "one" else np.split(images, 2))
    ]
    assert sorted(model.seen) == sorted(expected)
    if several == "one":
        assert model.seen == expected


def test_fit_refuses_an_iterator(folder: Path) -> None:
    """As that of any tf.data.Dataset; what it yields has no third part that could be taken for weights."""
    train = simimg.load(folder_of(folder), batch_size=9)
    assert len(next(iter(train))) == 2
    with pytest.raises(ValueError, match="Unrecognized data type"):
        network(folder).fit(iter(train), verbose=0)


class Stop(keras.callbacks.Callback):
    """Ends the training within a batch."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def train_until(
    folder: Path, strategy: tf.distribute.Strategy, stop: keras.callbacks.Callback, kind: str
) -> np.ndarray:
    """Three epochs of three batches, with a `map` between, or of `steps`; returns the weights."""
    with strategy.scope():
        model = network(folder, dropout=0.3)
    options = {"strategy": strategy} if kind == "strategy" else {}
    train = simimg.load(folder_of(folder), batch_size=12, shuffle=True, **options)
    assert train.steps_per_epoch == 3
    backup = simimg.callbacks.BackupAndRestore(folder / f"backup_{kind}", train, save_freq=2)
    data = train if kind == "strategy" else train.map(lambda image, label: (image, label))
    steps = 4 if kind == "steps" else None
    model.fit(data.repeat() if steps else data, epochs=3, steps_per_epoch=steps, verbose=0, callbacks=[backup, stop])
    assert train.position == backup.position == Position(steps or 3, 0)
    assert int(model.optimizer.iterations.numpy()) == 3 * (steps or 3)
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])


@pytest.mark.filterwarnings("error:Your input ran out of data")
@pytest.mark.parametrize("kind", ["one", "plain", "strategy", "steps"])
def test_a_stopped_run_sees_the_batches_that_it_has_not_seen(
    folder: Path, strategy: tf.distribute.Strategy, kind: str
) -> None:
    """Stopped within an epoch, after its first batch, and before its last: the weights end with the same bits."""
    scope = strategy if kind in ("plain", "strategy") else tf.distribute.get_strategy()
    expected = train_until(folder, scope, Stop(0), kind)
    backup = folder / f"backup_{kind}"
    assert not backup.exists()
    for after in (5, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            train_until(folder, scope, Stop(after), kind)
        assert len(list(backup.iterdir())) == 2
    assert np.array_equal(train_until(folder, scope, Stop(0), kind), expected)
    assert not backup.exists()


def test_a_backup_changes_no_batch_of_an_iteration_that_reads_epochs_ahead(folder: Path, tmp_path: Path) -> None:
    seen = []
    for save_freq in (0, 2):
        model = Recorder()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        train = simimg.load(folder_of(folder), batch_size=12, shuffle=True)
        callbacks = [simimg.callbacks.BackupAndRestore(tmp_path, train, save_freq)] if save_freq else []
        data = train.repeat().prefetch(8)
        model.fit(data, epochs=6, steps_per_epoch=train.steps_per_epoch, callbacks=callbacks, verbose=0)
        seen.append(model.seen)
    assert len(seen[0]) == len(set(seen[0])) == 18
    assert seen[1] == seen[0]


KILLED = """
import os, sys
from pathlib import Path
import keras, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.simimg.test_train_py import train_until

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 5:
            os._exit(9)

train_until(Path(sys.argv[1]), tf.distribute.get_strategy(), Kill(), "killed")
"""


def test_a_killed_run_sees_the_batches_that_it_has_not_seen(folder: Path) -> None:
    one = tf.distribute.get_strategy()
    expected = train_until(folder, one, Stop(0), "killed")
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=DOCUMENT.parents[2])
    assert done.returncode == 9, done.stderr[-3000:]
    (folder / "backup_killed" / "weights-5.weights.h5").write_bytes(b"part of a file")
    assert np.array_equal(train_until(folder, one, Stop(0), "killed"), expected)


def test_mistakes_with_backups_are_named(folder: Path, tmp_path: Path) -> None:
    train = simimg.load(folder_of(folder), batch_size=9, shuffle=True)
    with pytest.raises(UsageError, match=r"what simimg.load returns. Received: .*Dataset"):
        simimg.callbacks.BackupAndRestore(tmp_path, train.prefetch(1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="save_freq=0: should be 'epoch' or a number"):
        simimg.callbacks.BackupAndRestore(tmp_path, train, save_freq=0)
    backup = simimg.callbacks.BackupAndRestore(tmp_path, train, delete_checkpoint=False)
    model = network(folder)
    model.fit(train, epochs=1, callbacks=[backup], verbose=0)
    other = simimg.load(folder_of(folder), batch_size=4, shuffle=True)
    with pytest.raises(UsageError, match="made with steps_per_epoch=5, and the dataset has 11 now"):
        model.fit(other, callbacks=[simimg.callbacks.BackupAndRestore(tmp_path, other)], verbose=0)
    with pytest.raises(UsageError, match="model has no weights yet"):
        unbuilt = Recorder()
        unbuilt.compile("sgd", "mse")
        unbuilt.fit(train, callbacks=[simimg.callbacks.BackupAndRestore(tmp_path, train)], verbose=0)
    (tmp_path / "backup.json").write_text("{}")
    with pytest.raises(UsageError, match=r"backup.json is no backup of this version"):
        model.fit(train, callbacks=[simimg.callbacks.BackupAndRestore(tmp_path, train)], verbose=0)


def test_flags_join_those_of_a_program(folder: Path) -> None:
    values = flags.FlagValues()
    flags.DEFINE_integer("seed", 5, "the program's own", flag_values=values)
    with pytest.raises(UsageError, match="has a flag --seed already. Give another prefix"):
        simimg.flags.define_input(flag_values=values)
    with pytest.raises(UsageError, match=r"no flag 'size'. It has: dataset_dir, batch_size"):
        simimg.flags.define_input(flag_values=values, size=3)
    with pytest.raises(UsageError, match=r"Call simimg.flags.define_input\(\)"):
        simimg.flags.load("train", flag_values=values)
    simimg.flags.define_input(prefix="input_", flag_values=values, batch_size=9)
    with pytest.raises(flags.IllegalFlagValueError, match="input_dataset_dir"):
        values(["train.py"])
    values(["train.py", f"--input_dataset_dir={folder_of(folder)}", "--input_seed=3", "--input_reader=mapped"])
    given = {"prefix": "input_", "flag_values": values, "shuffle": True, "ids": True}
    found = ids_of(simimg.flags.load("train", **given))
    assert found == ids_of(simimg.load(folder_of(folder), batch_size=9, seed=3, shuffle=True, ids=True))
    assert len(simimg.flags.load("train", **given, batch_size=4)) == 11
    assert "input_seed" in [flag.name for flag in values.get_key_flags_for_module(SimpleNamespace(__name__=__name__))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 100, "shuffle": True}, r"batch_size=100 is more than the 45 examples of split 'train'"),
        ({"start": (0, 2)}, r"position=\(0, 2\): an epoch has 2 steps"),
        ({"start": "x"}, r"position='x': should be \(epoch, step\)"),
        ({"features": ["age"]}, r"features='age': .* has no such feature. It has: none"),
    ],
)
def test_mistakes_are_named(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        simimg.load(folder_of(folder), **options)
