"""Confident learning, against what cleanlab 2.9.0 returned for the same problem, and by its definition."""

import numpy as np

from simimg.health.confident_learning import confident_joint, prune_by_noise_rate


def problem() -> tuple[np.ndarray, np.ndarray]:
    """120 images of 4 classes with 14 wrong labels, and probabilities that are not always right."""
    rng = np.random.default_rng(3)
    true = np.arange(120) % 4
    labels = true.copy()
    labels[::9] = (labels[::9] + 1 + np.arange(len(labels[::9])) % 3) % 4
    logits = np.round(rng.normal(size=(120, 4)) + 2.0 * np.eye(4)[true], 3)
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_it_is_what_the_library_returns() -> None:
    labels, probabilities = problem()
    joint = [[26, 1, 0, 2], [1, 26, 1, 2], [1, 2, 27, 0], [4, 1, 3, 23]]
    pruned = [0, 2, 9, 16, 18, 19, 27, 35, 36, 45, 54, 61, 63, 72, 81, 91, 117]
    assert confident_joint(labels, probabilities).tolist() == joint
    assert np.flatnonzero(prune_by_noise_rate(labels, probabilities)).tolist() == pruned


def test_labels_that_the_model_agrees_with_are_right() -> None:
    labels, probabilities = problem()
    right = np.eye(4)[labels] * 0.9 + 0.025
    assert not prune_by_noise_rate(labels, right).any()
    assert confident_joint(labels, probabilities).sum(axis=1).tolist() == np.bincount(labels).tolist()
