"""Losses against float64 NumPy, written out from their definitions, and against the Keras losses people know."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simimg.training.metrics import EpochMetrics, are_correct, example_losses


def some_answers(num_examples: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(0, 2, (num_examples, num_classes)))
    labels = rng.integers(0, num_classes, num_examples).astype(np.int32)
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def losses(kind: str, labels: np.ndarray, probabilities: np.ndarray, smoothing: float) -> np.ndarray:
    return example_losses(kind, tf.constant(labels), tf.constant(probabilities), smoothing).numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_losses_equal_their_definitions(num_classes: int, smoothing: float) -> None:
    labels, probabilities = some_answers(40, num_classes)
    p = probabilities.astype(np.float64)
    one_hot = np.eye(num_classes)[labels]
    target = one_hot * (1 - smoothing) + smoothing / num_classes
    expected = -(target * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(losses("categorical", labels, probabilities, smoothing), expected, rtol=1e-5)

    # Keras smooths a binary target towards one half, whatever the number of outputs.
    target = one_hot * (1 - smoothing) + smoothing / 2
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(losses("binary", labels, probabilities, smoothing), expected, rtol=1e-4)


def test_the_mean_of_a_batch_is_what_keras_minimizes() -> None:
    """So that the tutorial's figures mean the same here."""
    labels, probabilities = some_answers(32, 5)
    one_hot = np.eye(5, dtype=np.float32)[labels]
    for kind, loss in (
        ("binary", keras.losses.BinaryCrossentropy()),
        ("categorical", keras.losses.CategoricalCrossentropy()),
    ):
        assert losses(kind, labels, probabilities, 0.0).mean() == pytest.approx(float(loss(one_hot, probabilities)))


def test_a_wrong_answer_given_with_certainty_has_a_finite_loss() -> None:
    probabilities = np.array([[1, 0], [0, 1]], np.float32)
    for kind in ("binary", "categorical"):
        wrong, right = losses(kind, np.array([1, 1], np.int32), probabilities, 0.0)
        assert 10 < wrong < 20
        assert 0 <= right < 1e-5


def test_are_correct() -> None:
    labels, probabilities = some_answers(40, 5)
    expected = probabilities.argmax(axis=1) == labels
    assert 0 < expected.sum() < 40
    np.testing.assert_array_equal(are_correct(tf.constant(labels), tf.constant(probabilities)), expected)


def test_epoch_metrics() -> None:
    assert (EpochMetrics().loss, EpochMetrics().score) == (0, 0)
    metrics = EpochMetrics(loss_sum=12.0, num_correct=3, num_examples=8)
    assert (metrics.loss, metrics.score) == (1.5, 0.375)
