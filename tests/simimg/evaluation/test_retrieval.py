"""The figures of a retrieval against ones that were worked out by hand."""

import numpy as np
import pytest

from simimg.evaluation.retrieval import average_precision, mean_kind_precision, recall_at_precision

PAIRS = [(0.9, True), (0.8, False), (0.7, True), (0.6, False), (0.5, True)]


def test_average_precision_counts_what_was_never_found() -> None:
    assert average_precision(PAIRS, 3) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(PAIRS, 6) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 6)


def test_recall_at_precision_is_that_of_the_best_cut() -> None:
    assert recall_at_precision(PAIRS, 3, 0.9) == pytest.approx(1 / 3)
    assert recall_at_precision(PAIRS, 3, 0.6) == pytest.approx(1)
    assert recall_at_precision([(0.5, False)], 3, 0.9) == 0


def test_mean_kind_precision_leaves_the_query_and_the_clutter_out() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1]], np.float32)
    labels = np.array(["cat", "clutter", "cat", "clutter"])
    # Each cat finds the clutter at (0.9, 0.1) before the other cat.
    assert mean_kind_precision(vectors, labels, without="clutter") == pytest.approx(1 / 2)
