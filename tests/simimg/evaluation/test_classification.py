"""Figures against ones computed by hand, intervals against published ones."""

import math
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.augment import AugmentConfig
from simimg.evaluation import (
    Classification,
    classify,
    compiled,
    precision_recall,
    predict,
    search_copies,
    wilson_interval,
    with_details,
)
from simimg.input import open_reader
from simimg.models.saved_model import num_devices
from simimg.training import make_strategy

NAMES = ("ant", "bee", "cow")


def test_figures_computed_by_hand() -> None:
    probabilities = np.array(
        [
            [0.6, 0.3, 0.1],  # ant, right
            [0.4, 0.3, 0.3],  # ant, right though no output is above one half
            [0.1, 0.8, 0.1],  # ant, taken for a bee
            [0.2, 0.7, 0.1],  # bee, right
            [0.2, 0.2, 0.6],  # bee, taken for a cow
        ]
    )
    figures = classify(probabilities, np.array([0, 0, 0, 1, 1], np.int32), NAMES)
    assert figures.num_examples == 5
    assert figures.accuracy == pytest.approx(3 / 5)
    assert figures.per_class == {"ant": pytest.approx(2 / 3), "bee": 0.5, "cow": None}  # there is no cow
    assert figures.mean_per_class == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures.confusion == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    # Of 15 outputs these are on the wrong side: the 0.4; the ant's 0.1 and 0.8; the bee's 0.2 and 0.6.
    assert figures.binary_accuracy == pytest.approx(10 / 15)
    assert figures.accuracy_ci95 == wilson_interval(3, 5)


def test_further_figures_computed_by_hand() -> None:
    probabilities = np.array(
        [
            [0.40, 0.20, 0.15, 0.10, 0.10, 0.05],  # the first class, right
            [0.30, 0.20, 0.20, 0.20, 0.06, 0.04],  # the last one: sixth
            [0.20, 0.30, 0.20, 0.20, 0.05, 0.05],  # the last but one: of two equal ones the first, so fifth
            [0.20, 0.30, 0.20, 0.20, 0.05, 0.05],  # the last one: sixth
        ]
    )
    labels = np.array([0, 5, 4, 5])
    names = tuple("abcdef")
    figures = classify(probabilities, labels, names)
    assert figures.top5_accuracy == 0.5
    assert figures.f1_per_class == {"a": pytest.approx(2 / 3), "b": 0.0, "c": None, "d": None, "e": 0.0, "f": 0.0}
    assert figures.macro_f1 == pytest.approx(2 / 3 / 4)
    assert classify(probabilities[:, :5], np.array([0, 1, 4, 1]), names[:5]).top5_accuracy is None
    curves = with_details(figures, probabilities, labels, None).curves
    assert set(curves) == {"a", "e", "f"}  # those with images
    assert curves["a"].average_precision == 1.0
    # Scores of f: 0.05, 0.04, 0.05, 0.05; the second and the fourth are wanted, and three are equal.
    assert curves["f"].recall.tolist() == [0.5, 1.0]
    assert curves["f"].precision.tolist() == [pytest.approx(1 / 3), 0.5]
    assert curves["f"].average_precision == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_average_precision_by_its_definition() -> None:
    rng = np.random.default_rng(1)
    scores, wanted = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.3
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        recall = (found & wanted).sum() / wanted.sum()
        expected += (recall - before) * (found & wanted).sum() / found.sum()
        before = recall
    assert precision_recall(scores, wanted).average_precision == pytest.approx(expected)


def test_answering_nothing_and_answering_right() -> None:
    labels = np.arange(30, dtype=np.int32) % 3
    nothing = classify(np.full((30, 3), 1 / 3), labels, NAMES)
    assert nothing.binary_accuracy == pytest.approx(2 / 3)
    right = classify(np.eye(3)[labels], labels, NAMES)
    assert (right.accuracy, right.mean_per_class, right.binary_accuracy) == (1, 1, 1)
    assert right.per_class == dict.fromkeys(NAMES, 1.0)


def test_figures_are_plain_numbers() -> None:
    """JSON can hold them."""
    figures = classify(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32), NAMES)
    assert isinstance(figures, Classification)
    assert {type(value) for value in (figures.accuracy, figures.mean_per_class, figures.binary_accuracy)} == {float}
    assert {type(cell) for row in figures.confusion for cell in row} == {int}


@pytest.mark.parametrize(
    ("num_successes", "num_trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (190, 190, 0.9802, 1.0),  # 1 - z**2 / (190 + z**2)
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(num_successes: int, num_trials: int, low: float, high: float) -> None:
    assert wilson_interval(num_successes, num_trials) == pytest.approx((low, high), abs=5.1e-5)


def test_an_interval_solves_its_equation() -> None:
    """Its ends p are where the share lies 1.96 standard errors of p away."""
    share, count = 37 / 190, 190
    for end in wilson_interval(37, 190):
        assert abs(share - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / count))


@pytest.mark.parametrize("kind", ["resident", "mapped", "stream"])
def test_predict_sees_each_example_once_and_no_padding(datasets: dict[str, Path], kind: str) -> None:
    pixels = keras.Input((32, 32, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    model = keras.Model(pixels, keras.layers.Rescaling(1 / 255)(means))
    reader, _ = open_reader(datasets["raw"], "train", kind)
    counts: list[int] = []
    answers, labels, ids = predict(compiled(model), reader, progress=counts.append)
    gathered = open_reader(datasets["raw"], "train", "resident")[0].gather(tf.range(54, dtype=tf.int64))
    assert sum(counts) == len(ids) == 54
    assert ids.tolist() == gathered.id.numpy().tolist()
    assert labels.tolist() == gathered.label.numpy().tolist()
    np.testing.assert_allclose(answers, gathered.image.numpy().mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_predict_in_several_batches(datasets: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules["simimg.evaluation.classification"], "_BATCH_SIZE", 20
    )  # a function has its name, too
    reader, _ = open_reader(datasets["raw"], "train", "resident")
    shapes = []

    def forward(images: tf.Tensor) -> tf.Tensor:
        shapes.append(images.shape)
        return tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2))

    answers, labels, ids = predict(forward, reader)
    assert shapes == [(20, 32, 32, 3)] * 3  # the last one filled up, so that nothing is compiled anew
    assert answers.shape == (54, 3)
    assert len(set(ids.tolist())) == len(labels) == 54


@pytest.mark.parametrize("batch_size", [7, 64])
def test_two_devices_compute_what_one_does(
    datasets: dict[str, Path], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """To the bit, with a strategy and without: each gets batches of the same size, the last ones with nothing but
    padding.
    """
    for name in ("classification", "copy_recall"):
        monkeypatch.setattr(sys.modules[f"simimg.evaluation.{name}"], "_BATCH_SIZE", batch_size)
    monkeypatch.setattr(sys.modules["simimg.evaluation.copy_recall"], "_MOST_EXAMPLES", 9)
    reader, _ = open_reader(datasets["raw"], "test", "resident")
    config = AugmentConfig(rotation_degrees=10.0)
    computed_on: set[str] = set()

    class Noting(keras.layers.Layer):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            computed_on.add(tf.constant(0).device[-5:])
            return inputs

    found = []
    for strategy in (make_strategy(1), make_strategy(2)):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            pixels = keras.Input((32, 32, 3))
            x = Noting()(keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels)))
            model = keras.Model(pixels, keras.layers.UnitNormalization()(keras.layers.GlobalAveragePooling2D()(x)))
        computed_on.clear()
        count = num_devices(strategy)
        outputs = predict(compiled(model, views="cropped", strategy=strategy), reader, num_devices=count)
        assert len(computed_on) == count
        forward = compiled(model, strategy=strategy)
        found.append([*outputs, search_copies(forward, reader, config, seed=1, temperature=0.1, num_devices=count)])
        if count == 1:
            forward = compiled(model, views="cropped", devices=["CPU:0", "CPU:1"])
            outputs = predict(forward, reader, num_devices=2)
            forward = compiled(model, devices=["CPU:0", "CPU:1"])
            found.append([*outputs, search_copies(forward, reader, config, seed=1, temperature=0.1, num_devices=2)])
    for others in found[1:]:
        for mine, theirs in zip(found[0][:3], others[:3], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert found[0][3].figures == others[3].figures
    assert found[0][3].figures.num_examples == (14 if batch_size == 7 else 18)
    np.testing.assert_array_equal(found[0][3].ids, found[1][3].ids)
