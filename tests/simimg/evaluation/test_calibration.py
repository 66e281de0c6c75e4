"""The calibration error against one computed by hand, and the temperature against the one that was hidden."""

from __future__ import annotations

import numpy as np
import pytest

from simimg.evaluation import calibration, classify, fit_temperature, scaled, with_details


def drawn(temperature: float, seed: int, num_examples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities that are too sharp by a factor, float32 `[n, 7]`, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_examples, 7))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < rng.random((num_examples, 1))).sum(axis=1)
    sharp = np.exp(logits * temperature)
    return (sharp / sharp.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_error_computed_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [1.0, 0.0], [0.5, 0.5]])
    found = calibration(probabilities, np.array([0, 1, 1, 0, 1]))
    # 0.9 twice, one right; 0.7, right; 1, right; 0.5, wrong.
    assert found.error == pytest.approx((abs(1 - 1.8) + abs(1 - 0.7) + 0 + 0.5) / 5)
    filled = {number: one for number, one in enumerate(found.bins) if one.num_examples}
    assert {number: one.num_examples for number, one in filled.items()} == {7: 1, 10: 1, 13: 2, 14: 1}
    assert filled[13].confidence == pytest.approx(0.9)
    assert filled[13].accuracy == 0.5
    assert (found.bins[0].accuracy, found.bins[0].low, found.bins[-1].high) == (None, 0.0, 1.0)


def test_a_confidence_on_an_edge_belongs_below() -> None:
    found = calibration(np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([0, 1]))
    assert [number for number, one in enumerate(found.bins) if one.num_examples] == [8, 11]  # 9/15 and 12/15


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(temperature: float) -> None:
    probabilities, labels = drawn(temperature, 0)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.03)

    def loss(at: float) -> float:
        return float(-np.log(scaled(probabilities, at)[np.arange(len(labels)), labels]).mean())

    assert loss(found) <= min(loss(found * 1.001), loss(found / 1.001))
    others, truth = drawn(temperature, 1)
    assert calibration(scaled(others, found), truth).error < 0.015
    assert (scaled(others, found).argmax(axis=1) == others.argmax(axis=1)).all()
    np.testing.assert_allclose(scaled(others, 1.0), others, atol=1e-6)


def test_no_temperature_is_the_best() -> None:
    right = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert fit_temperature(right, np.array([0, 1])) is None  # the colder, the better
    assert fit_temperature(right, np.array([1, 0])) is None  # the hotter, the better
    assert fit_temperature(np.full((4, 2), 0.5), np.array([0, 1, 1, 0])) is None
    assert fit_temperature(right[:0], np.array([], int)) is None
    certain = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)  # float32 has no logit of 0
    assert fit_temperature(certain, np.array([0, 0, 1, 1])) == pytest.approx(
        -np.log(np.finfo(np.float32).tiny) / np.log(3)
    )


def test_the_measured_images_do_not_choose_the_temperature() -> None:
    names = tuple("abcdefg")
    probabilities, labels = drawn(2.0, 2, 500)
    figures = classify(probabilities, labels, names)
    alone = with_details(figures, probabilities, labels, None)
    assert (alone.temperature, alone.scaled_calibration) == (None, None)
    assert alone.to_json()["scaled_calibration_error"] is None
    validation = drawn(2.0, 3, 2_000)
    found = with_details(figures, probabilities, labels, validation)
    assert found.temperature == fit_temperature(*validation)
    values = found.to_json()
    assert values["scaled_calibration_error"] < values["calibration_error"]
    assert len(values["reliability"]) == 15
    assert sum(one["num_examples"] for one in values["reliability"]) == 500
    assert set(values["average_precision"]) == set(names)
