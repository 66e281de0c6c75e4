"""A run that is stopped anywhere goes on as if it had not been; a damaged checkpoint is skipped."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.errors import CheckpointError, ModelError, TrainingError, TrainingInterrupted, UsageError
from simimg.models.backbones import NETWORKS
from simimg.models.dropout import ExampleDropout
from simimg.models.heads import PROBABILITIES
from simimg.training import StepInfo, TrainConfig, Watcher, load_model, loop, train, train_step

pytestmark = pytest.mark.own_process
SHOWS_AUGMENTED = True


def config(dataset_dir: Path, model_dir: Path, **changes: Any) -> TrainConfig:
    given = {
        "dataset_dir": dataset_dir,
        "model_dir": model_dir,
        "preset": "small",
        "epochs": 3,
        "global_batch_size": 9,
        "seed": 4,
        "learning_rate": 0.002,
        "checkpoint_every_s": 0.0,
        "test_views": "mirrored",  # crops are looked at once, after the last epoch, and take long to compile
        **changes,
    }
    return TrainConfig.with_preset(given)


def weights(model_dir: Path) -> list[np.ndarray]:
    return [weight.numpy() for weight in load_model(model_dir)[0].weights]


def build(image_size: int, num_classes: int) -> keras.Model:
    """A network with all that has a state: weights, statistics of batches, dropout. It is compiled in no time."""
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(8, 5, strides=4, name="conv")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="embedding")(keras.layers.ReLU()(x))
    x = ExampleDropout(0.2, stream=1, name="dropout")(x)
    x = keras.layers.Dense(num_classes, "softmax", name=PROBABILITIES, dtype="float32")(x)
    return keras.Model(pixels, x, name="small")


@pytest.fixture(scope="module", autouse=True)
def _tiny_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", build)
        yield


@pytest.fixture(scope="module")
def undisturbed(datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> loop.TrainResult:
    return train(config(datasets["raw"], tmp_path_factory.mktemp("runs") / "undisturbed"))


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Returns a watcher that sends this process a signal once a step has been trained; every step is reported."""
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)

    def make(step: int, number: int = signal.SIGINT, notes: list[str] | None = None) -> Watcher:
        def watch(info: StepInfo) -> None:
            if info.step == step:
                os.kill(os.getpid(), number)

        return Watcher(step=watch, note=(notes if notes is not None else []).append)

    return make


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (8, signal.SIGTERM)])
def test_stopped_and_gone_on(
    datasets: dict[str, Path], tmp_path: Path, undisturbed: loop.TrainResult, stop_at, step: int, number: int
) -> None:
    run = config(datasets["raw"], tmp_path / "run")
    with pytest.raises(TrainingInterrupted, match="Give the same command again to resume") as stopped:
        train(run, stop_at(step, number))
    assert stopped.value.exit_code == 130
    with pytest.raises(ModelError, match="its training is not finished"):
        load_model(run.model_dir)
    notes: list[str] = []
    result = train(run, Watcher(note=notes.append))
    assert any("resuming from epoch" in note for note in notes)
    assert [line["epoch"] for line in result.history] == [1, 2, 3]
    for mine, theirs in zip(result.history, undisturbed.history, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    for mine, theirs in zip(weights(run.model_dir), weights(undisturbed.model_dir), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_damaged_checkpoint_is_passed_over(
    datasets: dict[str, Path], tmp_path: Path, undisturbed: loop.TrainResult, stop_at
) -> None:
    run = config(datasets["raw"], tmp_path / "run")
    with pytest.raises(TrainingInterrupted):
        train(run, stop_at(14))
    older, newest = sorted((run.model_dir / "checkpoints").iterdir())
    state = newest / "state.npz"
    state.write_bytes(state.read_bytes()[:-100])
    copy = tmp_path / "copy"
    shutil.copytree(run.model_dir, copy)

    notes: list[str] = []
    result = train(run, Watcher(note=notes.append))
    assert any(str(newest) in note and "skipped" in note for note in notes)
    assert result.history[-1] == pytest.approx(undisturbed.history[-1], abs=1e-5)

    (copy / "checkpoints" / older.name / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match="all of its 2 checkpoints are damaged"):
        train(config(datasets["raw"], copy))


def test_a_finished_run_is_left_as_it_is(datasets: dict[str, Path], undisturbed: loop.TrainResult) -> None:
    notes: list[str] = []
    again = train(config(datasets["raw"], undisturbed.model_dir), Watcher(note=notes.append))
    assert again == undisturbed
    assert "is finished already" in notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 0.5}, "--learning_rate=0.002 there, 0.5 now"),
        ({"seed": 5}, "--seed=4 there, 5 now"),
        ({"epochs": 9}, "--epochs=3 there, 9 now"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    datasets: dict[str, Path], undisturbed: loop.TrainResult, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train(config(datasets["raw"], undisturbed.model_dir, **change))


def test_another_data_set_in_the_same_folder_is_refused(
    datasets: dict[str, Path], undisturbed: loop.TrainResult, tmp_path: Path
) -> None:
    from tfrecords.convert.engine import convert
    from tfrecords.convert.plan.convert_config import ConvertConfig

    photos = tmp_path / "photos"
    for name in ("x", "y"):
        (photos / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8 + number, 3), np.uint8)
            tf.io.write_file(str(photos / name / f"{number}.png"), tf.io.encode_png(pixels))
    other = convert(ConvertConfig(image_dir=photos, data_dir=tmp_path, image_size=32, num_workers=1)).dataset_dir
    with pytest.raises(UsageError, match="the dataset is another one"):
        train(config(other, undisturbed.model_dir))


def test_a_loss_that_is_no_number_stops_the_run(datasets: dict[str, Path], tmp_path: Path) -> None:
    run = config(datasets["raw"], tmp_path / "run", optimizer="sgd", learning_rate=1e30, schedule="constant")
    with pytest.raises(TrainingError, match=r"NaN or infinite.*smaller --learning_rate"):
        train(run)
    assert not (run.model_dir / "model.keras").exists()


def test_scalars_for_tensorboard(undisturbed: loop.TrainResult) -> None:
    scalars: dict[tuple[str, str], list[float]] = {}
    pictures: dict[str, int] = {}  # after their width and height
    others: set[tuple[str, str]] = set()
    steps: dict[tuple[str, str], list[int]] = {}
    for file in sorted((undisturbed.model_dir / "tensorboard").rglob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                plugin, key = value.metadata.plugin_data.plugin_name, (file.parent.name, value.tag)
                if plugin == "scalars":
                    scalars.setdefault(key, []).append(float(tf.make_ndarray(value.tensor)))
                    steps.setdefault(key, []).append(event.step)
                elif plugin == "images":
                    pictures[value.tag] = pictures.get(value.tag, 0) + len(value.tensor.string_val) - 2
                else:
                    others.add((plugin, value.tag))
                    if plugin == "text":
                        assert b"| seed | `" in value.tensor.string_val[0]
    for run, tag, name in (("train", "epoch_loss", "loss"), ("test", "epoch_accuracy", "test_accuracy")):
        assert scalars[run, tag] == pytest.approx([line[name] for line in undisturbed.history], abs=1e-6)
        assert steps[run, tag] == list(range(len(undisturbed.history)))  # as Keras counts
    rates = scalars["train", "epoch_learning_rate"]
    assert len(rates) == len(undisturbed.history)
    assert all(rate >= 0 for rate in rates)
    assert pictures == {"augmented": 3 * 24}
    assert others == {("hparams", "_hparams_/session_start_info"), ("text", "options")}


def test_a_network_learns(datasets: dict[str, Path], tmp_path: Path) -> None:
    result = train(
        config(datasets["raw"], tmp_path / "run", preset="lite0", resolution=32, epochs=2, learning_rate=1e-4)
    )
    assert result.figures["test"]["accuracy"] > 0.9  # one in three is right by chance
