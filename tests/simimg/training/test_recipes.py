"""Distillation, stochastic depth, and crops that grow during the training."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.augment import augment_and_mix, partners
from simimg.errors import TrainingInterrupted, UsageError
from simimg.input import PADDING_ID, Batch, Position, open_reader
from simimg.input.crops import growing_sizes
from simimg.models.backbones import NETWORKS
from simimg.models.dropout import ExampleDropout
from simimg.models.heads import EMBEDDING, PROBABILITIES
from simimg.models.model_folder import RunInfo, save_folder, save_model
from simimg.models.stochastic_depth import with_stochastic_depth
from simimg.training import TrainConfig, Watcher, load_model, load_result, load_run, train, train_step
from simimg.training.distillation import distillation_losses
from simimg.training.train_step import _label_gradients
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

pytestmark = pytest.mark.own_process

ZERO = tf.constant(0, tf.int64)


def residual(image_size: int, num_classes: int) -> keras.Model:
    """A network for any size, with two residual blocks, that is compiled in no time."""
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(6, 4, strides=4, name="stem")(keras.layers.Rescaling(1 / 127.5, -1)(pixels))
    y = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, padding="same", name="one")(x))
    x = keras.layers.Add(name="sum1")([keras.layers.Conv2D(6, 3, padding="same", name="two")(y), x])
    y = keras.layers.Conv2D(8, 3, padding="same", name="four")(
        keras.layers.Conv2D(8, 3, padding="same", name="three")(x)
    )
    x = keras.layers.Conv2D(8, 1, name="shortcut")(x) + y
    x = keras.layers.GlobalAveragePooling2D(name=EMBEDDING)(x)
    x = keras.layers.Dense(num_classes, "softmax", dtype="float32", name=PROBABILITIES)(x)
    return keras.Model(pixels, x, name="residual")


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "small", residual)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 images of 24 shapes in two classes, as JPEG, two thirds of them to train on."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for number in range(24):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = rng.integers(0, 256, (4, 4, 3), np.uint8)
        colors[..., number % 2] //= 2
        Image.fromarray(colors).resize(tuple(rng.integers(70, 120, 2))).save(path)
    given: dict[str, Any] = {"resize": "short", "image_size": 64, "splits": "train=0.67,test=0.33", "num_workers": 1}
    return convert(ConvertConfig(image_dir=str(folder / "photos"), data_dir=folder, name="shapes", **given)).dataset_dir


def options(dataset_dir: Path, model_dir: Path, **changes: Any) -> TrainConfig:
    given = {"preset": "small", "epochs": 2, "global_batch_size": 8, "optimizer": "sgd", "ema": 0.0, "num_devices": 1}
    given |= {"learning_rate": 0.05, "test_views": "one", "colour_jitter": 0.0, "rotation_degrees": 0.0}
    return TrainConfig.with_preset({**given, "dataset_dir": dataset_dir, "model_dir": model_dir, **changes})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence(temperature: float) -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 3, (5, 7)), rng.normal(0, 3, (5, 7))
    teacher[0, 0], student[1, 0] = 300, 300  # the probabilities of the others are 0
    variable = tf.Variable(student, dtype=tf.float32)
    with tf.GradientTape() as tape:
        taught = tf.nn.softmax(tf.constant(teacher, tf.float32))
        losses = distillation_losses(taught, tf.nn.softmax(variable), temperature)
        total = tf.reduce_sum(losses)
    gradient = tape.gradient(total, variable).numpy()
    own, other = log_softmax(teacher / temperature), log_softmax(student / temperature)
    expected = temperature**2 * (np.exp(own) * (own - other)).sum(axis=1)
    usual = [0, 2, 3, 4]  # float32 knows no probability below 1e-30, which costs a student 69 for a logit
    np.testing.assert_allclose(losses.numpy()[usual], expected[usual], rtol=1e-4)
    np.testing.assert_allclose(gradient[usual], temperature * (np.exp(other) - np.exp(own))[usual], atol=1e-4)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()


def test_labels_and_teacher_share_the_loss() -> None:
    """Of mixed images, with weights of classes; the teacher sees the mixed pixels."""
    config = TrainConfig(
        dataset_dir=Path(), mixup=0.4, cutmix=1.0, label_smoothing=0.0, teacher=Path("t"), teacher_weight=0.7
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    ids = tf.constant([5, 2, 9, 4, 7, PADDING_ID, 1, 3], tf.int64)
    batch = Batch(tf.constant(pixels), tf.constant([0, 1, 2, 0, 1, 1, 2, 2]), ids)
    model, teacher = residual(8, 3), residual(8, 3)
    state = SimpleNamespace(model=model, optimizer=SimpleNamespace(scale_loss=lambda loss: loss))
    weights = np.array([0.5, 1.0, 3.0])
    arguments = config, state, SimpleNamespace(global_batch_size=8), tf.constant(weights, tf.float32), teacher
    _, sums = _label_gradients(*arguments)(batch, ZERO, ZERO, ZERO)
    images, shares = augment_and_mix(config.augmentation, 0, ZERO, batch.id, batch.image)
    learned, taught = (np.log(network(images).numpy().astype(np.float64)) for network in (model, teacher))
    own, other = batch.label.numpy(), partners(batch.label).numpy()
    mine, theirs = shares.numpy() * weights[own], (1 - shares.numpy()) * weights[other]
    rows = np.arange(8)
    labels = -mine * learned[rows, own] - theirs * learned[rows, other]
    divergence = (mine + theirs) * (np.exp(taught) * (taught - learned)).sum(axis=1)
    np.testing.assert_allclose(sums[0], np.delete(0.3 * labels + 0.7 * divergence, 5).sum(), rtol=1e-4)


def test_a_student_approaches_its_teacher(shapes: Path, tmp_path: Path) -> None:
    """On one device as on two, with crops of half the teacher's size, which are enlarged for it."""
    teacher = residual(64, 2)
    for weight in teacher.weights:
        weight.assign(np.random.default_rng(1).normal(0, 0.25, weight.shape))
    described = {"image_size": 64, "resize": "center", "class_names": ("a", "b"), "dataset_sha256": "", "shuffle": ""}
    save_folder(tmp_path / "teacher", teacher, RunInfo(config={}, **described))
    given = {"teacher": tmp_path / "teacher", "epochs": 16, "image_size": 32, "optimizer": "adamw"}
    results = [train(options(shapes, tmp_path / f"on{count}", num_devices=count, **given)) for count in (1, 2)]
    losses = [[line["loss"] for line in result.history] for result in results]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-2, atol=1e-4)
    assert losses[0][-1] < 0.2 * losses[0][0]  # of a divergence, whose least value is 0
    assert load_run(tmp_path / "on1").config["teacher"] == str(tmp_path / "teacher")
    there = json.loads((tmp_path / "on1" / "result.json").read_text())
    assert there["teacher"] == str(tmp_path / "teacher") == load_result(tmp_path / "on1").teacher
    given["teacher"] = (tmp_path / "teacher").rename(tmp_path / "moved")
    again = options(shapes, tmp_path / "on1", num_devices=1, **given)
    assert train(again).history == results[0].history  # it is the same teacher
    save_model(tmp_path / "moved", residual(64, 2))
    with pytest.raises(UsageError, match=r"has another run: the teacher is another one\."):
        train(again)
    student, (reader, _) = load_model(tmp_path / "on1")[0], open_reader(shapes, "test", image_size=32)
    images = next(iter(reader.eval_batches(8))).image
    enlarged = tf.image.resize(images, (64, 64))
    outputs = (network(seen).numpy() for network, seen in ((teacher, enlarged), (student, images)))
    logits = [np.diff(np.log(probabilities)) for probabilities in outputs]
    assert np.abs(logits[0] - logits[1]).mean() < 0.5 * np.abs(logits[0]).mean()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher_temperature": 2.0}, "--teacher_temperature=2 is for distillation. Add --teacher"),
        ({"teacher": Path("none")}, "none is not the folder of a trained model"),
        ({"teacher": Path("other")}, r"learned 3 classes \(a, b, c\), and the dataset has 2 classes \(a, b\)\."),
        ({"teacher": Path("same"), "image_size": 64}, "takes images of 32 x 32 px with 3 channels, .* 64 x 64 px"),
        ({"teacher": Path("same"), "image_size": (32, 24)}, "have 32 x 24 px.*neither reduced nor stretched"),
        ({"teacher": Path("same"), "objective": "similarity"}, "not --objective=similarity"),
        ({"train_size": "64", "image_size": 32, "teacher": Path("same")}, "have 64 x 64 px with 3"),
        ({"train_size": "30"}, "--train_size=30: should be off, or multiples of 32 px such as 160 or 160:192"),
        ({"train_size": "64:32"}, "--train_size=64:32: should be"),
        ({"train_size": "32", "model": "lite0", "resolution": 64}, "--resolution=64 enlarges all images to one size"),
        ({"train_size": "64", "image_size": 32, "model": "tutorial"}, "tutorial takes images of 32 px, but not of 64"),
        (
            {"stochastic_depth": 0.1, "model": "tutorial", "image_size": 32},
            "has no sums of a shortcut and a branch",
        ),
        ({"stochastic_depth": 1.0}, "--stochastic_depth=1.0: should be 0 or more, and below 1"),
        ({"teacher_weight": 0.0}, "--teacher_weight=0.0: should be above 0, and at most 1"),
    ],
)
def test_what_is_refused(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    described = {"resize": "center", "dataset_sha256": "", "shuffle": "uniform", "config": {}}
    for name, classes in (("other", ["a", "b", "c"]), ("same", ["a", "b"])):
        Path(name).mkdir()
        (Path(name) / "model.keras").touch()
        (Path(name) / "config.json").write_text(json.dumps({"image_size": 32, "class_names": classes, **described}))
    with pytest.raises(Exception, match=words) as caught:
        train(options(shapes, tmp_path / "run", **changes))
    assert type(caught.value).__name__ in ("UsageError", "ModelError")
    assert not (tmp_path / "run").exists()


def test_without_crops_sizes_stay(tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--train_size: the images of .* are not cut while they are decoded"):
        train(options(tiny["two"], tmp_path / "run", train_size="32"))


@pytest.mark.parametrize(
    ("text", "num_epochs", "sizes"),
    [
        ("off", 3, ()),
        ("160", 3, (160,) * 3),
        ("160:192", 16, (160,) * 8 + (192,) * 8),
        ("96:192", 7, (96, 128, 128, 128, 160, 192, 192)),  # 96, 112, 128, …: halves go to even multiples
        ("160:192", 1, (192,)),
        ("160:192", 0, ()),
    ],
)
def test_sizes_grow(text: str, num_epochs: int, sizes: tuple[int, ...]) -> None:
    assert growing_sizes(text, num_epochs) == sizes


def test_growing_crops(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on two replicas that is stopped within an epoch sees the same crops as one on one replica."""
    seen: list[tuple[int, Position, int]] = []
    compiled: list[Any] = []
    distribute, several_steps = train_step.distribute, train_step._several_steps

    def distributed(strategy: Any, reader: Any, order: Any) -> Any:
        seen.append((reader.split.image_size, order.start, order.num_epochs))
        return distribute(strategy, reader, order)

    def made(*arguments: Any, **more: Any) -> Any:
        compiled.append(several_steps(*arguments, **more))
        return compiled[-1]

    monkeypatch.setattr(train_step, "distribute", distributed)
    monkeypatch.setattr(train_step, "_several_steps", made)
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)
    given = {"train_size": "32:64", "image_size": 64, "mixup": 0.3, "checkpoint_every_s": 0.0}
    losses = [line["loss"] for line in train(options(shapes, tmp_path / "one", **given)).history]
    assert seen == [(32, Position(0), 1), (64, Position(1), 2)]
    assert [function.experimental_get_tracing_count() for function in compiled] == [1, 1]
    assert load_run(tmp_path / "one").image_size == 64
    notes: list[str] = []
    config = options(shapes, tmp_path / "stopped", num_devices=2, **given)
    with monkeypatch.context() as patch, pytest.raises(TrainingInterrupted):
        patch.setattr(train_step.StepRunner, "agree_to_stop", lambda self, stop: self._num_calls == 3)
        train(config)
    again = train(config, Watcher(note=notes.append))
    assert "training on crops of 32 px from epoch 1, 64 px from epoch 2, measuring at 64 px" in notes
    assert seen[2:] == [(32, Position(0), 1), (64, Position(1), 2), (64, Position(1, 1), 2)]
    np.testing.assert_allclose(losses, [line["loss"] for line in again.history], rtol=1e-4)
    (tmp_path / "stopped" / "result.json").unlink()  # as if it had been killed after its last step
    assert train(config).history == again.history


def test_crops_of_another_size_are_those_of_a_reader_of_that_size(shapes: Path) -> None:
    small, large = (open_reader(shapes, "train", image_size=size)[0] for size in (32, 64))
    for mine, theirs in zip(small.resized(64).eval_batches(8), large.eval_batches(8), strict=True):
        np.testing.assert_array_equal(mine.image, theirs.image)
    assert small.split.image_size == 32
    assert small.resized(64).corrupt is small.corrupt


def test_branches_are_dropped_by_example() -> None:
    model = residual(16, 3)
    deep = with_stochastic_depth(model, 0.5)
    drops = [layer for layer in deep.layers if isinstance(layer, ExampleDropout)]
    assert [(drop.rate, drop.noise_shape) for drop in drops] == [(0.25, (None, 1, 1, 1)), (0.5, (None, 1, 1, 1))]
    images = np.random.default_rng(0).uniform(0, 255, (64, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images), deep(images))
    assert {drop.input.name for drop in drops} == {deep.get_layer(name).output.name for name in ("two", "four")}
    parts = keras.Model(deep.input, [drops[1].input, drops[1].output])
    branch, kept = (part.numpy() for part in parts(images, training=True))
    dropped = (kept == 0).all(axis=(1, 2, 3))
    assert 16 < dropped.sum() < 48
    np.testing.assert_allclose(kept[~dropped], 2 * branch[~dropped], rtol=1e-6)


def test_siblings_are_no_residual_block() -> None:
    """Both terms were made of the same map; neither is that map or a projection of it, or both are, alike."""
    pixels = keras.Input((8, 8, 3))
    one, other = (keras.layers.ReLU()(keras.layers.Conv2D(3, 1)(pixels)) for _ in range(2))
    other = keras.layers.ReLU()(keras.layers.Conv2D(3, 1)(other))
    pooled = [keras.layers.AveragePooling2D(1)(one) for _ in range(2)]
    for siblings in ((one, other), pooled):
        model = keras.Model(pixels, keras.layers.Add()(siblings), name="siblings")
        with pytest.raises(UsageError, match="siblings has no sums of a shortcut and a branch that can be told"):
            with_stochastic_depth(model, 0.5)


def test_two_replicas_drop_as_one(tiny: dict[str, Path], tmp_path: Path) -> None:
    losses = []
    for count in (1, 2):
        config = options(tiny["two"], tmp_path / str(count), num_devices=count, stochastic_depth=0.5)
        losses.append([line["loss"] for line in train(config).history])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    saved = load_model(tmp_path / "1")[0]
    drops = [layer for layer in saved.layers if type(layer) is keras.layers.Dropout]
    assert [(drop.rate, drop.noise_shape) for drop in drops] == [(0.25, (None, 1, 1, 1)), (0.5, (None, 1, 1, 1))]


def test_the_recipe_of_imagenet(shapes: Path, tmp_path: Path) -> None:
    """An epoch of it, with a small network, small crops and few images."""
    changes = {"model": "small", "epochs": 1, "global_batch_size": 8, "image_size": 64, "train_size": "32"}
    given = {"preset": "imagenet", "dataset_dir": shapes, "model_dir": tmp_path / "run", "num_devices": 1, **changes}
    config = TrainConfig.with_preset(given)
    assert dataclasses.replace(config, model="ResNet50").start == "none"
    assert config.resolved(1).learning_rate == pytest.approx(8e-3 * (8 / 2048) ** 0.5)
    result = train(config)
    assert result.steps == 2
    assert "accuracy" in result.figures["test"]
