"""Labels judged by embeddings that are drawn around a center per class."""

import numpy as np
import pytest

from simimg.health.label_judgment import judge_labels

NUM_CLASSES, PER_CLASS = 6, 40


def drawn(spread: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of L2 norm 1, float32 [240, 48], and the true labels."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(NUM_CLASSES, 48))
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    found = centers[labels] + spread * rng.normal(size=(len(labels), 48))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), labels


def flipped(labels: np.ndarray, number: int, *, confused: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which some are wrong, by chance or always the next class, and which."""
    rng = np.random.default_rng(5)
    rows = rng.permutation(len(labels))[:number]
    given = labels.copy()
    given[rows] = (given[rows] + (1 if confused else rng.integers(1, NUM_CLASSES, number))) % NUM_CLASSES
    return given, np.isin(np.arange(len(labels)), rows)


@pytest.mark.parametrize("confused", [False, True])
def test_wrong_labels_are_found_and_named(confused: bool) -> None:
    embeddings, labels = drawn()
    given, wrong = flipped(labels, 36, confused=confused)
    judged = judge_labels(embeddings, given, np.arange(len(labels)), NUM_CLASSES)
    reported = judged.wrong > 0.5
    assert reported[wrong].mean() >= 0.9
    assert wrong[reported].mean() >= 0.95
    assert (judged.suggested[wrong & reported] == labels[wrong & reported]).mean() > 0.95
    assert 0.1 < judged.noise < 0.2
    np.testing.assert_allclose(judged.first.sum(axis=1), 1)
    np.testing.assert_allclose(judged.probabilities.sum(axis=1), 1)


def test_right_labels_are_left_alone() -> None:
    embeddings, labels = drawn()
    judged = judge_labels(embeddings, labels, np.arange(len(labels)), NUM_CLASSES)
    assert (judged.wrong > 0.5).sum() <= 2
    assert judged.accuracy > 0.97


def test_what_images_do_not_show_is_not_claimed() -> None:
    """Labels by chance: no class can be seen, and next to nothing is reported."""
    embeddings, labels = drawn()
    judged = judge_labels(embeddings, np.random.default_rng(1).permutation(labels), np.arange(len(labels)), NUM_CLASSES)
    assert judged.accuracy < 0.35


def test_a_copy_with_the_same_wrong_label_does_not_vouch_for_it() -> None:
    embeddings, labels = drawn()
    given, wrong = flipped(labels, 24, confused=False)
    embeddings, given = np.concatenate([embeddings] * 2), np.concatenate([given] * 2)
    copies = np.tile(np.arange(len(labels)), 2)
    judged = judge_labels(embeddings, given, copies, NUM_CLASSES)
    assert (judged.wrong > 0.5)[np.tile(wrong, 2)].mean() > 0.9


def test_two_classes_one_of_them_tiny() -> None:
    embeddings, labels = drawn()
    rows = np.flatnonzero(labels < 2)[: PER_CLASS + 3]
    judged = judge_labels(embeddings[rows], labels[rows], np.arange(len(rows)), 2)
    assert np.isfinite(judged.wrong).all()
    again = judge_labels(embeddings[rows], labels[rows], np.arange(len(rows)), 2)
    np.testing.assert_array_equal(judged.wrong, again.wrong)
