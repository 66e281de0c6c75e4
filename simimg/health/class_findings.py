"""Findings about classes and splits: classes that are hardly told apart or small, and splits whose images differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from simimg.determinism import one_blas_thread
from simimg.health.finding import Finding
from simimg.health.label_judgment import out_of_fold, principal_features
from simimg.similarity.image_table import IndexedImage

_CONFUSED, _MIN_CONFUSED = 0.05, 3  # share of the images of two classes, and their number
_FEW, _FEW_SHARE = 10, 0.1  # images, and the share of the median class
_DRIFT = 0.65  # AUC from which on a split is told; splits dealt at random have 0.5
_MIN_PER_SPLIT = 20
_Z = 3.0  # standard errors by which the AUC has to exceed a half
_NUM_FOLDS, _NUM_EVIDENCE = 5, 6


def find_confused_classes(
    images: Sequence[IndexedImage], class_names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray
) -> list[Finding]:
    """Return pairs of classes of which images resemble the other one more.

    `labels` int `[num_images]` are the probable classes of the images, and `probabilities` float
    `[num_images, num_classes]` come from models that have not seen them.
    """
    likeliest = probabilities.argmax(axis=1)
    counts = np.bincount(labels, minlength=len(class_names))
    pairs = Counter((min(pair), max(pair)) for pair in zip(labels.tolist(), likeliest.tolist(), strict=True))
    found = []
    for (one, other), number in pairs.items():
        share = number / max(1, counts[one] + counts[other])
        if one == other or number < _MIN_CONFUSED or share < _CONFUSED:
            continue
        mixed = np.flatnonzero(((labels == one) & (likeliest == other)) | ((labels == other) & (likeliest == one)))
        surest = mixed[np.argsort(-probabilities[mixed, likeliest[mixed]], kind="stable")][:_NUM_EVIDENCE]
        found.append(
            Finding(
                kind="confused_classes",
                score=round(min(1.0, float(share)), 4),
                label=f"{class_names[one]} / {class_names[other]}",
                reason=f"{number} of {counts[one] + counts[other]:,} images resemble the other class more",
                evidence=tuple(images[row].path for row in surest.tolist()),
            )
        )
    return found


def find_small_classes(images: Sequence[IndexedImage]) -> list[Finding]:
    """Return classes with fewer than 10 images, or than a tenth of the median class."""
    counts = Counter(image.label for image in images if image.label)
    if len(counts) < 2:
        return []
    limit = max(_FEW, _FEW_SHARE * float(np.median(list(counts.values()))))
    return [
        Finding(
            kind="few_images",
            score=round(1 - 0.5 * number / limit, 4),
            label=label,
            reason=f"{number} {'image' if number == 1 else 'images'}, while half of the classes have "
            f"{np.median(list(counts.values())):,.0f} or more",
            evidence=tuple(image.path for image in images if image.label == label)[:_NUM_EVIDENCE],
        )
        for label, number in counts.items()
        if number < limit
    ]


def find_drift(images: Sequence[IndexedImage], embeddings: np.ndarray) -> list[Finding]:
    """Return splits whose images differ from those of the first split, `train` if there is one.

    A softmax on the embeddings, float `[num_images, dim]`, tells images of the two apart that it has not seen. The
    area under its ROC curve is 0.5 if nothing distinguishes the splits (a classifier two-sample test: Lopez-Paz and
    Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017).
    """
    from scipy.stats import rankdata  # 0.5 s, which a start should not wait for

    splits = np.array([image.split for image in images])
    names = sorted({split for split in splits.tolist() if split}, key=lambda name: (name != "train", name))
    found = []
    for name in names[1:]:
        rows = np.flatnonzero((splits == names[0]) | (splits == name))
        other = splits[rows] == name
        fewest = min(int(other.sum()), int((~other).sum()))
        if fewest < _MIN_PER_SPLIT:
            continue
        folds = np.random.default_rng(0).permutation(len(rows)) % _NUM_FOLDS
        with one_blas_thread():
            likely = out_of_fold(principal_features(embeddings[rows]), other.astype(np.int64), folds, 2)[:, 1]
        num_other, num_first = int(other.sum()), int((~other).sum())
        auc = (rankdata(likely)[other].sum() - num_other * (num_other + 1) / 2) / (num_other * num_first)
        error = np.sqrt((len(rows) + 1) / (12 * num_other * num_first))
        if auc < max(_DRIFT, 0.5 + _Z * error):
            continue
        typical = rows[other][np.argsort(-likely[other], kind="stable")][:_NUM_EVIDENCE]
        found.append(
            Finding(
                kind="drift",
                score=round(float(2 * auc - 1), 4),
                split=name,
                reason=f"its images are told from those of {names[0]} with an AUC of {auc:.2f}; "
                f"{_classes(images, rows, other)}",
                evidence=tuple(images[row].path for row in typical.tolist()),
            )
        )
    return found


def _classes(images: Sequence[IndexedImage], rows: np.ndarray, other: np.ndarray) -> str:
    """Return the class whose share differs most, as far as classes explain the difference."""
    shares = [Counter(images[row].label or "no class" for row in rows[which].tolist()) for which in (~other, other)]
    sizes = [max(1, sum(counts.values())) for counts in shares]
    label = max(shares[0] | shares[1], key=lambda name: abs(shares[0][name] / sizes[0] - shares[1][name] / sizes[1]))
    before, after = (counts[label] / size for counts, size in zip(shares, sizes, strict=True))
    return f"the share of {label} is {after:.0%} there and {before:.0%} here"
