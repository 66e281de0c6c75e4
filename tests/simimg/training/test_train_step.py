"""What a step does beside forwards and backwards: accumulation, clipping, averages, precision, weights of classes."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simimg.evaluation import classify, compiled, predict
from simimg.input import label_counts, open_reader
from simimg.training import load_model, load_result, train_step
from simimg.training.builders import build_optimizer
from simimg.training.metrics import balanced
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import _clipped
from tfrecords.convert.engine import convert
from tfrecords.convert.plan.convert_config import ConvertConfig

SGD = {"optimizer": "sgd", "learning_rate": 0.05}


def assert_close(mine: list[np.ndarray], theirs: list[np.ndarray], atol: float = 1e-6) -> None:
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def distance(mine: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(a - b).sum() for a, b in zip(mine, theirs, strict=True))))


def test_parts_of_a_batch_are_the_batch(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    whole = run(tiny["two"], tmp_path / "whole", epochs=3, **SGD)
    for parts in (2, 8):
        assert_close(run(tiny["two"], tmp_path / f"in{parts}", epochs=3, accumulate=parts, **SGD), whole)
    both = run(tiny["two"], tmp_path / "both", epochs=3, accumulate=2, num_devices=2, **SGD)
    assert_close(both, whole)


def test_gradients_are_shortened(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    """All by one factor, the same on one replica and on two, whose own gradients have other lengths."""
    plain = {**SGD, "global_batch_size": 16, "schedule": "constant", "weight_decay": 0.0}  # one step
    start = run(tiny["two"], tmp_path / "start", **{**plain, "learning_rate": 1e-30})
    free = run(tiny["two"], tmp_path / "free", **plain)
    clipped = run(tiny["two"], tmp_path / "clipped", clip_norm=0.01, **plain)
    factor = distance(clipped, start) / distance(free, start)
    assert factor < 0.5
    assert distance(clipped, start) == pytest.approx(0.05 * 1.9 * 0.01, rel=1e-3)  # Nesterov: 1 + momentum
    assert_close(clipped, [a + factor * (b - a) for a, b in zip(start, free, strict=True)])
    assert_close(run(tiny["two"], tmp_path / "two", clip_norm=0.01, num_devices=2, **plain), clipped)
    assert_close(run(tiny["two"], tmp_path / "long", clip_norm=1e6, **plain), free)


def test_an_infinite_gradient_is_not_made_a_number() -> None:
    """It would be trained on; NaN stops the run, or, under float16, passes the step over."""
    clipped = _clipped([tf.constant([np.inf, 1.0]), tf.constant([2.0])], tf.constant(1.0))
    assert not any(np.isfinite(part).all() for part in clipped)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_average_of_the_weights(
    tiny: dict[str, Path], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_devices: int
) -> None:
    """Recomputed from a checkpoint a step."""
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)
    options = {"epochs": 8, "checkpoint_every_s": 0.0, "keep_checkpoints": 100, "num_devices": num_devices}
    kept = run(tiny["two"], tmp_path / "run", ema=0.5, **options)
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert len(saved) == 16
    average = [np.load(saved[0] / "state.npz")[f"average/{number:04d}"] for number in range(len(kept))]
    for step, folder in enumerate(saved[1:], 2):
        state = np.load(folder / "state.npz")
        decay = min(0.5, (1 + step) / (10 + step))
        average = [decay * old + (1 - decay) * state[f"model/{i:04d}"] for i, old in enumerate(average)]
        assert_close([state[f"average/{number:04d}"] for number in range(len(kept))], average)
    assert_close(kept, average)
    state = np.load(saved[-1] / "state.npz")
    assert distance(kept, [state[f"model/{number:04d}"] for number in range(len(kept))]) > 1e-3


def test_half_precision(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    """Weights stay float32 and end near those of float32, on two devices, too."""
    options = {"epochs": 3, "clip_norm": 1.0, **SGD}
    full = run(tiny["two"], tmp_path / "full", **options)
    moved = distance(full, run(tiny["two"], tmp_path / "start", **{**options, "epochs": 1, "learning_rate": 1e-30}))
    for precision in ("bfloat16", "float16"):
        for count in (1, 2):
            model_dir = tmp_path / f"{precision} on {count}"
            found = run(tiny["two"], model_dir, precision=precision, num_devices=count, **options)
            assert all(weight.dtype == np.float32 for weight in found), model_dir.name
            assert 0 < distance(found, full) < 0.1 * moved, model_dir.name
        model, _ = load_model(model_dir)
        assert model.layers[2].compute_dtype == precision
        assert model.output.dtype == "float32"
        assert keras.config.dtype_policy().name == "float32"  # as it was


def test_float16_scales_the_loss() -> None:
    optimizer = build_optimizer(TrainConfig(dataset_dir=Path(), learning_rate=0.1, precision="float16"), 10)
    assert float(optimizer.scale_loss(1.0)) == 2**15


def test_xla_computes_the_same(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    plain = run(tiny["two"], tmp_path / "plain", epochs=2, **SGD)
    for count in (1, 2):
        compiled = run(tiny["two"], tmp_path / f"xla{count}", epochs=2, xla=True, num_devices=count, **SGD)
        assert_close(compiled, plain, atol=1e-5)


def test_the_weights_of_uneven_classes(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    np.testing.assert_allclose(balanced(np.array([6, 3, 0, 1])), [10 / 18, 10 / 9, 0, 10 / 3], rtol=1e-6)
    for number, count in (("a", 12), ("b", 4)):
        for index in range(count):
            path = tmp_path / "photos" / number / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng([ord(number), index]).integers(0, 256, (8, 8, 3), np.uint8)).save(
                path
            )
    options = {"image_dir": tmp_path / "photos", "data_dir": tmp_path, "image_size": 8, "num_workers": 1}
    uneven = convert(ConvertConfig(splits="train=0.75,test=0.25", **options)).dataset_dir
    reader, _ = open_reader(uneven, "train")
    assert label_counts(reader).tolist() == [9, 3]
    (uneven / "manifest.parquet").unlink()  # counted by reading
    assert label_counts(reader).tolist() == [9, 3]
    plain = run(uneven, tmp_path / "plain", **SGD)
    assert distance(plain, run(uneven, tmp_path / "weighted", class_weights="balanced", **SGD)) > 1e-3
    # Where classes are even, weights change nothing.
    even = run(tiny["two"], tmp_path / "even", **SGD)
    assert_close(run(tiny["two"], tmp_path / "even_weighted", class_weights="balanced", **SGD), even)


def test_answers_are_the_mean_over_views(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    run(tiny["three"], tmp_path / "run", epochs=2, test_views="cropped")
    model, info = load_model(tmp_path / "run")
    assert info.config["test_views"] == "cropped"
    result, reader = load_result(tmp_path / "run"), open_reader(tiny["three"], "test")[0]
    for views, accuracy in (
        ("mirrored", result.history[-1]["test_accuracy"]),
        ("cropped", result.figures["test"]["accuracy"]),
    ):
        probabilities, labels, _ = predict(compiled(model, views=views), reader)
        assert accuracy == classify(probabilities, labels, reader.split.class_names).accuracy
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = (model(pixels.astype(np.float32)) + model(pixels[:, :, ::-1].astype(np.float32))) / 2
    np.testing.assert_allclose(compiled(model, views="mirrored")(pixels), expected, atol=1e-6)
    # Seven eighths of the way from the first pixel to the last: at the corners and in the middle, bilinear.
    views = [pixels.astype(np.float32)]
    for top, left in ((0, 0), (0, 1 / 8), (1 / 8, 0), (1 / 8, 1 / 8), (1 / 16, 1 / 16)):
        at = [7 * np.linspace(first, first + 7 / 8, 8) for first in (top, left)]
        down, across = (np.maximum(0, 1 - np.abs(side[:, None] - np.arange(8))) for side in at)
        views.append(np.einsum("ab,nbcd,ec->naed", down, pixels, across).astype(np.float32))
    expected = np.mean([model(view[:, :, ::side]) for view in views for side in (1, -1)], axis=0)
    np.testing.assert_allclose(compiled(model, views="cropped")(pixels), expected, atol=1e-5)


def test_the_share_of_time_spent_waiting(tiny: dict[str, Path], run: Any, tmp_path: Path) -> None:
    run(tiny["two"], tmp_path / "run", epochs=30)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 < result["input_share"] < 1


@pytest.mark.parametrize(("calls_per_timed", "is_known"), [(3, True), (1000, False)])
def test_a_gpu_is_timed_in_some_calls(
    tiny: dict[str, Path],
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls_per_timed: int,
    is_known: bool,
) -> None:
    """The steps are the same, whether timed or not."""
    every = run(tiny["two"], tmp_path / "every", epochs=4, **SGD)
    made = train_step.StepRunner.__init__

    def as_on_a_gpu(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        assert self._calls_per_timed == 1  # on a processor
        self._calls_per_timed = calls_per_timed

    monkeypatch.setattr(train_step.StepRunner, "__init__", as_on_a_gpu)
    monkeypatch.setattr(train_step, "_MOST_STEPS", 1)
    some = run(tiny["two"], tmp_path / "some", epochs=4, **SGD)
    for mine, theirs in zip(some, every, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    share = json.loads((tmp_path / "some" / "result.json").read_text())["input_share"]
    assert 0 < share < 1 if is_known else share is None
