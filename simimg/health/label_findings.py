"""Findings about the labels of images: wrong labels, outliers, copies with several labels, copies across splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.health.confident_learning import prune_by_noise_rate
from simimg.health.finding import Finding
from simimg.health.label_judgment import LabelJudgment, judge_labels, principal_features
from simimg.similarity.duplicate_groups import Group, Member
from simimg.similarity.image_table import IndexedImage
from simimg.similarity.nearest_neighbors import nearest

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


def find_wrong_labels(images: Sequence[IndexedImage], judged: JudgedLabels) -> list[Finding]:
    """Return the images whose label is more probably wrong than right, with the class that fits better."""
    judgment, labels = judged.judgment, judged.labels
    by_rule = prune_by_noise_rate(labels, judgment.first)
    found = []
    for place in np.flatnonzero(judgment.wrong > _WRONG).tolist():
        image, suggested = images[judged.rows[place]], int(judgment.suggested[place])
        better = judged.class_names[suggested]
        alike = np.flatnonzero((labels == suggested) & (judgment.wrong < _WRONG))
        surest = alike[np.argsort(-judgment.probabilities[alike, suggested], kind="stable")][:_NUM_EVIDENCE]
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
                evidence=tuple(images[judged.rows[one]].path for one in surest.tolist()),
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


def find_label_conflicts(groups: Sequence[Group]) -> list[Finding]:
    """Return the images of groups of copies that have several labels, each with its most similar copy under another."""
    found = []
    for group in groups:
        for member in group.members:
            others = [one for one in group.members if one.image.label not in ("", member.image.label)]
            if member.image.label and others:
                other = max(others, key=lambda one: one.similarity)
                found.append(_of_copy("label_conflict", group, member, other, f"labeled {other.image.label}"))
    return found


def find_leaks(groups: Sequence[Group]) -> list[Finding]:
    """Return the images of which a copy is in an earlier split; `train` is the first one, and `test` the last."""
    found = []
    for group in groups:
        first, *others = sorted(group.members, key=lambda one: _split_order(one.image.split))
        for member in others:
            if member.image.split and first.image.split and member.image.split != first.image.split:
                found.append(_of_copy("leak", group, member, first, f"in the split {first.image.split}"))
    return found


def _of_copy(kind: str, group: Group, member: Member, other: Member, where: str) -> Finding:
    """Similarities and reasons of a group are those of its members to its first one."""
    told = other if member is group.keeper else member
    return Finding(
        kind=kind,
        path=member.image.path,
        score=round(min(member.similarity, other.similarity), 4),
        label=member.image.label,
        split=member.image.split,
        reason=f"{other.image.path}, {where}, is a copy: {told.reason}",
        evidence=(other.image.path,),
    )


def _split_order(split: str) -> tuple[bool, bool, str]:
    return split != "train", split == "test", split


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
