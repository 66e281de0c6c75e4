"""Classes and splits, by embeddings that are drawn around a center per class."""

from pathlib import Path

import numpy as np

from simimg.health.class_findings import find_confused_classes, find_drift, find_small_classes
from simimg.health.decision_table import read_finding_decisions, settling, write_labels
from simimg.health.finding import Finding
from simimg.health.label_findings import find_outliers, find_wrong_labels, judge
from simimg.similarity.image_table import IndexedImage


def drawn(sizes: dict[str, int], seed: int = 0, spread: float = 0.8) -> tuple[list[IndexedImage], np.ndarray]:
    """Images of classes of some sizes, and their embeddings, float32 [n, 40]."""
    rng = np.random.default_rng(seed)
    images, embeddings = [], []
    for label, number in sizes.items():
        center = rng.normal(size=40)
        for one in range(number):
            images.append(IndexedImage(path=f"{label}/{one}.jpg", sha256="", label=label))
            embeddings.append(center + spread * rng.normal(size=40))
    found = np.array(embeddings, np.float32)
    return images, found / np.linalg.norm(found, axis=1, keepdims=True)


def test_classes_that_look_alike_and_small_ones() -> None:
    images, _ = drawn({"cat": 40, "dog": 40, "car": 40, "owl": 6})
    labels = np.repeat(np.arange(4), (40, 40, 40, 6))
    probabilities = 0.9 * np.eye(4)[labels] + 0.025
    probabilities[[0, 1, 2, 45, 46]] = probabilities[[45, 46, 47, 0, 1]]
    (found,) = find_confused_classes(images, ["cat", "dog", "car", "owl"], labels, probabilities)
    assert (found.kind, found.label, found.score) == ("confused_classes", "cat / dog", 5 / 80)
    assert set(found.evidence) <= {images[row].path for row in (0, 1, 2, 45, 46)}
    (small,) = find_small_classes(images)
    assert (small.label, small.score > 0.5) == ("owl", True)
    assert "6 images" in small.reason


def test_splits_that_differ_and_splits_that_do_not() -> None:
    images, embeddings = drawn({"cat": 60, "dog": 60})
    dealt = [
        IndexedImage(path=one.path, sha256="", label=one.label, split=("train", "train", "test")[number % 3])
        for number, one in enumerate(images)
    ]
    assert find_drift(dealt, embeddings) == []
    shifted = embeddings.copy()
    shifted[2::3] += np.float32(0.6) * np.random.default_rng(1).normal(size=40).astype(np.float32) / 6
    (found,) = find_drift(dealt, shifted)
    assert (found.kind, found.split, found.score > 0.5) == ("drift", "test", True)
    by_class = [
        IndexedImage(path=one.path, sha256="", label=one.label, split="train" if one.label == "cat" else "test")
        for one in images
    ]
    (found,) = find_drift(by_class, embeddings)
    assert "the share of" in found.reason


def test_strangers_are_outliers_and_evidence_is_of_the_suggested_class() -> None:
    images, embeddings = drawn({"cat": 40, "dog": 40, "car": 40})
    strangers, others = drawn({"cat": 3}, seed=9, spread=2.0)
    strangers = [IndexedImage(path=f"stranger{number}.jpg", sha256="", label="cat") for number in range(3)]
    wrong = [IndexedImage(path="wrong.jpg", sha256="", label="dog")]
    everyone = images[1:] + strangers + wrong
    vectors = np.concatenate([embeddings[1:], others, embeddings[:1]])
    judged = judge(everyone, vectors, np.arange(len(everyone)))
    assert judged is not None
    outliers = {one.path for one in find_outliers(everyone, vectors, np.arange(len(everyone)), judged)}
    labels = {one.path: one for one in find_wrong_labels(everyone, vectors, judged)}
    assert len({one.path for one in strangers} & (outliers | set(labels))) >= 2
    assert len(outliers) <= 6
    assert labels["wrong.jpg"].suggestion == "cat"
    assert all(path.startswith("cat/") for path in labels["wrong.jpg"].evidence)


def test_too_little_to_judge() -> None:
    images, embeddings = drawn({"cat": 12})
    assert judge(images, embeddings, np.arange(12)) is None
    assert find_small_classes(images) == []
    assert find_drift(images, embeddings) == []


def test_many_copies_of_one_image_are_no_outliers() -> None:
    images, embeddings = drawn({"cat": 200, "dog": 175, "car": 25})
    copies = np.arange(400)
    copies[375:], embeddings[375:] = 375, embeddings[0]
    found = {one.path for one in find_outliers(images, embeddings, copies, None)}
    assert not any(path.startswith("car/") for path in found)


def test_a_decision_about_one_class_leaves_the_others(tmp_path: Path) -> None:
    findings = [Finding(kind="few_images", label=label, score=0.9, reason="few") for label in ("cat", "dog")]
    decisions = tmp_path / "decided.csv"
    decisions.write_text("path,kind,label,split,suggestion,decision\n,few_images,cat,,b,relabel\n")
    decided = read_finding_decisions(decisions)
    assert [one and one.word for one in settling(findings, decided)] == ["relabel", None]
    assert write_labels(decided, tmp_path / "labels.csv") == 0
