"""Findings about the labels of images: wrong labels, outliers, copies with several labels, copies across splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.health.confident_learning import prune_by_noise_rate
from simimg.health.finding import Finding
from simimg.health.label_judgment import LabelJudgment, judge_labels, principal_features
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.nearest_neighbors import nearest
from simimg.similarity.search_index import SearchIndex
from simimg.similarity.split_leaks import LeakedPair, copies_between

_WRONG = 0.5
_LEAST_ACCURACY = 0.35  # with which labels agree with the images; below, they are no classes that can be seen
_FENCE, _LEAST_RANGE = 3.0, 0.5  # interquartile ranges, as for sizes; the least range of log odds
_NEAR = 5  # images to which one without a label is compared
_LEAST_DISTANCE_RANGE = 0.05
_MIN_IMAGES = 20
_NUM_EVIDENCE = 3


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedLabels:
    """What the images say about their labels.

    Attributes:
        rows: int64 `[n]`, the images that have labels.
        labels: int64 `[n]`, their labels, as numbers of `class_names`.
        class_names: sorted.
        judgment: of these images.
    """

    rows: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    judgment: LabelJudgment

    @property
    def can_be_judged(self) -> bool:
        """Whether images of a class resemble each other enough to judge labels."""
        return self.judgment.accuracy >= _LEAST_ACCURACY


def judge(images: Sequence[IndexedImage], embeddings: np.ndarray, copies: np.ndarray) -> JudgedLabels | None:
    """Judge the labels of images; None if there are fewer than two classes or 20 images with labels.

    `embeddings` are float `[num_images, dim]`; `copies`, int `[num_images]`, are equal for copies of an image.
    """
    names = np.array([image.label for image in images])
    rows = np.flatnonzero(names != "")
    class_names, labels = np.unique(names[rows], return_inverse=True)
    if len(class_names) < 2 or len(rows) < _MIN_IMAGES:
        return None
    judgment = judge_labels(embeddings[rows], labels.astype(np.int64), copies[rows], len(class_names))
    return JudgedLabels(rows, labels, tuple(class_names.tolist()), judgment)


def find_wrong_labels(images: Sequence[IndexedImage], embeddings: np.ndarray, judged: JudgedLabels) -> list[Finding]:
    """Return the images whose label is more probably wrong than right, with the class that fits better.

    Its evidence are the nearest images of that class, by the embeddings, float `[num_images, dim]`.
    """
    judgment, labels = judged.judgment, judged.labels
    by_rule = prune_by_noise_rate(labels, judgment.first)
    found = []
    for place in np.flatnonzero(judgment.wrong > _WRONG).tolist():
        image, suggested = images[judged.rows[place]], int(judgment.suggested[place])
        better = judged.class_names[suggested]
        alike = judged.rows[(labels == suggested) & (judgment.wrong < _WRONG)]
        near = alike[np.argsort(-(embeddings[alike] @ embeddings[judged.rows[place]]), kind="stable")][:_NUM_EVIDENCE]
        found.append(
            Finding(
                kind="label",
                path=image.path,
                score=round(float(judgment.wrong[place]), 4),
                suggestion=better,
                label=image.label,
                split=image.split,
                reason=f"{better} fits with {judgment.probabilities[place, suggested]:.0%}, {image.label} with "
                f"{judgment.probabilities[place, labels[place]]:.0%}"
                + ("; confident learning finds it, too" if by_rule[place] else ""),
                evidence=tuple(images[row].path for row in near.tolist()),
            )
        )
    return found


def find_outliers(
    images: Sequence[IndexedImage], embeddings: np.ndarray, copies: np.ndarray, judged: JudgedLabels | None
) -> list[Finding]:
    """Return images that resemble no class, and images that are far from all others.

    With labels, an image is an outlier if the models that have not seen it find no class probable: the log odds of the
    most probable one are beyond Tukey's outer fence. Otherwise its mean distance to the five nearest images is.
    """
    found: dict[int, Finding] = {}
    if judged is not None and judged.can_be_judged:
        most = np.clip(judged.judgment.first.max(axis=1), 1e-6, 1 - 1e-6)
        for place, score in _beyond(-np.log(most / (1 - most)), _LEAST_RANGE).items():
            row = int(judged.rows[place])
            name = judged.class_names[int(judged.judgment.first[place].argmax())]
            reason = f"it resembles no class; the nearest, {name}, fits with {most[place]:.0%}"
            found[row] = _outlier(images[row], score, reason)
    if len(images) >= _MIN_IMAGES:
        with one_blas_thread():
            features = principal_features(embeddings)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
        cosines, rows = nearest(features, features[:, None], 4 * _NEAR)
        cosines = np.where(copies[rows] == copies[:, None], -1.0, cosines)
        distances = 1 - np.sort(cosines, axis=1)[:, -_NEAR:].mean(axis=1)
        for row, score in _beyond(distances, _LEAST_DISTANCE_RANGE).items():
            near = 1 - distances[row]
            found.setdefault(
                row, _outlier(images[row], score, f"its nearest images have a similarity of only {near:.2f}")
            )
    return list(found.values())


def find_copies(
    index: SearchIndex, images: Sequence[IndexedImage], progress: Callable[[int], object] = lambda number: None
) -> list[Finding]:
    """Return images that have a copy with another label, and images that have a copy in an earlier split.

    `images` are those of the index, by row, with their splits. `train` is the first split, and `test` the last.
    `progress` is called with the number of images since its last call.
    """
    splits = sorted({image.split for image in images}, key=lambda name: (name != "train", name == "test", name))
    places = {name: place for place, name in enumerate(splits)}
    numbers: dict[tuple[int, str], int] = {}
    for image in sorted(images, key=lambda one: (places[one.split], one.label)):
        numbers.setdefault((places[image.split], image.label), len(numbers))
    if len(numbers) < 2:
        progress(len(images))
        return []
    kinds = np.array([numbers[places[image.split], image.label] for image in images], np.int64)
    found: dict[tuple[str, int], Finding] = {}
    for pair in copies_between(index, kinds, threshold=index.copy_threshold, progress=progress):
        image, other = images[pair.row], images[pair.other_row]
        if image.label != other.label and image.label and other.label:
            for row, one, copy in ((pair.row, image, other), (pair.other_row, other, image)):
                where = f"labeled {copy.label}"
                found.setdefault(("label_conflict", row), _of_copy("label_conflict", one, copy, where, pair))
        if image.split != other.split and image.split and other.split:
            found.setdefault(("leak", pair.row), _of_copy("leak", image, other, f"in {other.split}", pair))
    return list(found.values())


def _of_copy(kind: str, image: IndexedImage, copy: IndexedImage, where: str, pair: LeakedPair) -> Finding:
    return Finding(
        kind=kind,
        path=image.path,
        score=round(pair.similarity, 4),
        label=image.label,
        split=image.split,
        reason=f"{copy.path}, {where}, is a copy ({pair.reason})",
        evidence=(copy.path,),
    )


def _outlier(image: IndexedImage, score: float, reason: str) -> Finding:
    return Finding(
        kind="outlier",
        path=image.path,
        score=round(score, 4),
        suggestion="drop",
        label=image.label,
        split=image.split,
        reason=reason,
    )


def _beyond(values: np.ndarray, least_range: float) -> dict[int, float]:
    """Return the scores of the values above Tukey's outer fence, by place."""
    low, high = np.percentile(values, (25, 75))
    beyond = (values - high) / (_FENCE * max(high - low, least_range))
    return {int(place): 1 - 0.5 / float(beyond[place]) for place in np.flatnonzero(beyond > 1)}
