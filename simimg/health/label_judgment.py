"""Labels judged by the images: the probability that each given label is wrong, and the class that fits better.

1. Each image gets the probabilities of its class from models that have not seen it: a softmax on the embeddings, fitted
   to the other four of five folds, and the labels of the nearest other images. Copies are in one fold, and no copy is a
   neighbor, because a copy with the same wrong label would agree. The two are joined by their geometric mean.
2. The given labels are those of a channel that confuses the true class k with label z at a rate T[k, z]. T and the
   sharpness of the probabilities are estimated together by expectation maximization (Dawid and Skene, "Maximum
   Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics 28, 1979, with one observer
   and the model as the prior). The probability that a label is wrong is the posterior of all other classes.
3. Steps 1 and 2 are repeated twice, in which an image counts as much as its label is probably right. Systematic errors,
   such as a tenth of the ferries under "ketch", otherwise teach the model to confirm them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.similarity.nearest_neighbors import nearest
from simimg.softmax_regression import fit_softmax

_NUM_FOLDS, _NUM_PASSES = 5, 3
_DIM = 256  # principal axes of the embeddings that are kept: the accuracy is that of all 1280, in a fifth of the time
_L2 = 1e-4  # ten times that of training: a softmax that follows single wrong labels cannot contradict them
_MOST_STEPS = 100
_MOST_FITTED = 20_000  # images that each softmax is fitted to
_NUM_NEIGHBORS, _NUM_SPARE = 20, 12  # spare ones, which replace copies
_NEIGHBOR_SHARPNESS = 8.0  # a neighbor weighs exp(8 cosine)
_NEIGHBOR_FLOOR = 0.02  # share of the neighbors' vote that is spread over all classes
_SHARPNESSES = (0.7, 1.0, 1.4, 2.0, 2.8)  # powers of the joined probabilities, of which the most likely one is taken
_RIGHT_BEFORE = 0.97  # the rate of right labels that T starts from, which also counts as much as 5 images per class
_PRIOR_IMAGES = 5.0
_ROUNDS = 30


@dataclasses.dataclass(frozen=True, eq=False)
class LabelJudgment:
    """What the images say about the labels; all rows are those of the arguments of `judge_labels`.

    Attributes:
        probabilities: float64 `[num_images, num_classes]`, of the true class, without regard to the given label.
        wrong: float64 `[num_images]`, the probability that the given label is wrong.
        suggested: int64 `[num_images]`, the most probable class, of those other than the given label.
        first: float64 `[num_images, num_classes]`, the probabilities of the first pass, in which all labels count.
        accuracy: share of the images whose given label is the most probable class.
        noise: estimated share of wrong labels.
    """

    probabilities: np.ndarray
    wrong: np.ndarray
    suggested: np.ndarray
    first: np.ndarray
    accuracy: float
    noise: float


def judge_labels(
    embeddings: np.ndarray, labels: np.ndarray, copies: np.ndarray, num_classes: int, *, seed: int = 0
) -> LabelJudgment:
    """Judge the labels of images.

    Args:
        embeddings: float `[num_images, dim]`.
        labels: int64 `[num_images]`, 0 to `num_classes` - 1; each class has an image.
        copies: int64 `[num_images]`, equal for copies of one image.
        num_classes: at least 2.
        seed: of the folds.
    """
    rows = np.arange(len(labels))
    with one_blas_thread():
        features = principal_features(embeddings)
    folds = _folds(labels, copies, seed)
    neighbors, weights = _neighbors(features, copies)
    right = np.ones(len(labels))
    first = None
    for _ in range(_NUM_PASSES):
        with one_blas_thread():
            joined = np.sqrt(
                out_of_fold(features, labels, folds, num_classes, right)
                * _votes(labels, neighbors, weights, right, num_classes)
            )
        joined /= joined.sum(axis=1, keepdims=True)
        first = joined if first is None else first
        probabilities, posterior = _posterior(joined, labels)
        right = posterior[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1.0
    assert first is not None
    return LabelJudgment(
        probabilities=probabilities,
        wrong=1 - right,
        suggested=others.argmax(axis=1),
        first=first,
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        noise=float((1 - right).mean()),
    )


def principal_features(embeddings: np.ndarray, dim: int = _DIM) -> np.ndarray:
    """Return the directions of centered embeddings along their principal axes: float32 `[num_images, at most dim]`."""
    centered = np.asarray(embeddings, np.float32) - np.mean(embeddings, axis=0, dtype=np.float32)
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6)
    centered -= centered.mean(axis=0)
    if centered.shape[1] <= dim:
        return centered
    _, axes = np.linalg.eigh(centered.T @ centered)
    return np.ascontiguousarray(centered @ axes[:, ::-1][:, :dim])


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the probabilities of each image by a softmax that was fitted to the other folds.

    Float64 `[num_images, num_classes]` for float32 `[num_images, dim]`, int64 labels and folds `[num_images]`, and
    weights of the images, 0..1. Of many images, each softmax is fitted to some, evenly chosen.
    """
    from scipy.special import softmax

    found = np.zeros((len(labels), num_classes))
    for fold in np.unique(folds):
        there = folds == fold
        fitted = np.flatnonzero(~there)
        if not len(fitted):
            fitted = np.flatnonzero(there)
        fitted = fitted[np.linspace(0, len(fitted) - 1, min(len(fitted), _MOST_FITTED)).astype(np.int64)]
        kernel, bias = fit_softmax(
            features[fitted],
            labels[fitted],
            num_classes,
            l2=_L2,
            weights=None if weights is None else weights[fitted],
            most_steps=_MOST_STEPS,
        )
        found[there] = softmax(features[there].astype(np.float64) @ kernel + bias, axis=1)
    return found


def _folds(labels: np.ndarray, copies: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each image: copies are in one, and each class is spread evenly."""
    rng = np.random.default_rng(seed)
    _, first, group = np.unique(copies, return_index=True, return_inverse=True)
    of_group = np.zeros(len(first), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        of_group[members] = (np.arange(len(members)) + rng.integers(_NUM_FOLDS)) % _NUM_FOLDS
    return of_group[group]


def _neighbors(features: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest images that are no copies, and their weights, both `[num_images, at most 20]`."""
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    cosines, rows = nearest(directions, directions[:, None], _NUM_NEIGHBORS + _NUM_SPARE)
    weights = np.where(copies[rows] == copies[:, None], 0.0, np.exp(_NEIGHBOR_SHARPNESS * cosines.astype(np.float64)))
    order = np.argsort(-weights, axis=1, kind="stable")[:, :_NUM_NEIGHBORS]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(weights, order, axis=1)


def _votes(
    labels: np.ndarray, neighbors: np.ndarray, weights: np.ndarray, right: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return the shares of the classes among the neighbors, whose labels count as much as they are probably right."""
    votes = np.zeros((len(labels), num_classes))
    everyone = np.arange(len(labels))
    for others, weight in zip(neighbors.T, weights.T, strict=True):
        votes[everyone, labels[others]] += weight * right[others]
    votes += _NEIGHBOR_FLOOR * votes.sum(axis=1, keepdims=True) / num_classes + 1e-9
    return votes / votes.sum(axis=1, keepdims=True)


def _posterior(joined: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sharpened probabilities, and the posterior of the true class given the label, both
    `[num_images, num_classes]`.
    """
    from scipy.special import softmax

    num_classes = joined.shape[1]
    before = _RIGHT_BEFORE * np.eye(num_classes) + (1 - _RIGHT_BEFORE) / num_classes
    logs = np.log(joined + 1e-12)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for sharpness in _SHARPNESSES:
        probabilities = softmax(logs * sharpness, axis=1)
        rates = before
        for _ in range(_ROUNDS):
            shares = probabilities * rates[:, labels].T
            shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
            counts = _PRIOR_IMAGES * before
            for label in range(num_classes):
                counts[:, label] += shares[labels == label].sum(axis=0)
            rates = counts / counts.sum(axis=1, keepdims=True)
        shares = probabilities * rates[:, labels].T
        total = shares.sum(axis=1, keepdims=True)
        likelihood = float(np.log(np.maximum(total, 1e-300)).sum() + (_PRIOR_IMAGES * before * np.log(rates)).sum())
        if best is None or likelihood > best[0]:
            best = likelihood, probabilities, shares / np.maximum(total, 1e-300)
    assert best is not None
    return best[1], best[2]
