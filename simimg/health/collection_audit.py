"""An audit: which findings need what, and all of them in one list.

The measures of single images need their pixels alone. Labels, outliers, classes and splits are judged by embeddings,
and copies are verified as by `simimg duplicates`; both come from an index.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection

import numpy as np

from simimg.errors import UsageError
from simimg.health.audited_images import AuditedImages
from simimg.health.class_findings import find_confused_classes, find_drift, find_small_classes
from simimg.health.decision_table import Decided
from simimg.health.finding import KINDS, OF_IMAGES, Finding, in_order
from simimg.health.image_findings import find_bad_images
from simimg.health.image_measures import ImageMeasures
from simimg.health.label_findings import JudgedLabels, find_copies, find_outliers, find_wrong_labels, judge
from simimg.similarity.search_index import SearchIndex

NUM_LIKELY = 9
"""Classes that are suggested for an image, a key each."""

_BY_EMBEDDINGS = frozenset({"label", "outlier", "confused_classes", "drift"})
_BY_COPIES = frozenset({"label_conflict", "leak"})
_MOST_CELLS = 20_000_000  # images times classes; judging more takes many minutes and gigabytes
_IMAGE = "image"  # all kinds that need no embeddings


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        findings: by kind, the surest first.
        num_images: that were looked at; files that cannot be read do not count.
        audited: the images, and where their files are.
        refused: files that cannot be read, with the reason.
        notes: what was left out, for people.
        label_accuracy: share of the labels that the images confirm; None if they were not judged.
        num_left_out: findings that were decided about.
        decided: what was decided about the images, by path and kind, see `simimg.health.decision_table`.
        settled: the findings that were decided about.
        agreement: the probability that the label of each image is right, float64 `[num_images]`, NaN for images without
            one; None if labels were not judged.
        likely: the classes that fit each image best, without its own, by path; only for images with findings.
    """

    findings: tuple[Finding, ...]
    num_images: int
    audited: AuditedImages = dataclasses.field(repr=False)
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    label_accuracy: float | None = None
    num_left_out: int = 0
    decided: Decided = dataclasses.field(default_factory=dict, repr=False)
    settled: tuple[Finding, ...] = dataclasses.field(default=(), repr=False)
    agreement: np.ndarray | None = dataclasses.field(default=None, repr=False)
    likely: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each kind that has some, in the order of `KINDS`."""
        return dict(Counter(one.kind for one in self.findings))

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of a kind, the surest first."""
        return tuple(one for one in self.findings if one.kind == kind)


def wanted_kinds(kinds: Collection[str]) -> frozenset[str]:
    """Return the kinds that are named; `image` stands for all that need no embeddings, and nothing for all.

    Raises UsageError for others.
    """
    for kind in kinds:
        if kind not in (*KINDS, _IMAGE, "all"):
            raise UsageError(f"--kinds={kind}: should be some of all, {_IMAGE}, {', '.join(KINDS)}.")
    if not kinds or "all" in kinds:
        return frozenset(KINDS)
    return frozenset(kind for kind in KINDS if kind in kinds or (_IMAGE in kinds and kind in OF_IMAGES))


def needs_index(kinds: Collection[str]) -> bool:
    """Whether some of the kinds need an index."""
    return bool((_BY_EMBEDDINGS | _BY_COPIES) & set(kinds))


def audit_images(
    audited: AuditedImages,
    kinds: Collection[str],
    index: SearchIndex | None = None,
    *,
    max_pixels: int = 0,
    progress: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> Audit:
    """Audit images.

    Args:
        audited: the images; those of `index`, by row, if there is one.
        kinds: some of `KINDS`.
        index: needed if `needs_index(kinds)`.
        max_pixels: as in `AuditedImages.measures`.
        progress: called with the stage (`measuring`, `judging`, `comparing`), the number of images done and the total.
    """
    images, total = audited.images, len(audited.images)
    findings: list[Finding] = []
    notes, refused = list(audited.notes), list(audited.refused)
    accuracy: float | None = None
    agreement: np.ndarray | None = None
    told: JudgedLabels | None = None
    num_unreadable = 0
    if set(kinds) & set(OF_IMAGES):
        measures: list[ImageMeasures | None] = []
        for row, measured in enumerate(audited.measures(max_pixels)):
            measures.append(None if isinstance(measured, str) else measured)
            if isinstance(measured, str):
                refused.append((images[row].path, measured))
            progress("measuring", row + 1, total)
        num_unreadable = measures.count(None)
        findings += find_bad_images(images, measures)
    if "few_images" in kinds and audited.has_labels:
        findings += find_small_classes(images)
    if index is not None and _BY_EMBEDDINGS & set(kinds):
        progress("judging", 0, total)
        embeddings, copies = np.asarray(index.embeddings, np.float32), copy_numbers(index)
        num_classes = len({image.label for image in images})
        are_many = num_classes * len(images) > _MOST_CELLS
        judged = judge(images, embeddings, copies) if audited.has_labels and not are_many else None
        if not audited.has_labels:
            notes.append("labels are not judged, since the images of this dataset do not have one class each")
        elif are_many:
            notes.append(f"labels are not judged: {num_classes:,} classes of {len(images):,} images are too many")
        elif judged is None:
            notes.append("labels are not judged: that needs two classes, and 20 images with labels")
        else:
            accuracy = judged.judgment.accuracy
            if judged.can_be_judged:
                told = judged
                agreement = np.full(total, np.nan)
                agreement[judged.rows] = 1 - judged.judgment.wrong
                findings += find_wrong_labels(images, embeddings, judged)
                shown = [images[row] for row in judged.rows.tolist()]
                probable = np.where(judged.judgment.wrong > 0.5, judged.judgment.suggested, judged.labels)
                findings += find_confused_classes(shown, judged.class_names, probable, judged.judgment.probabilities)
            else:
                notes.append(
                    f"labels are not judged: the images confirm only {accuracy:.0%} of them, so they are no classes "
                    "that can be seen, or this model does not see them"
                )
        findings += find_outliers(images, embeddings, copies, judged)
        findings += find_drift(images, embeddings)
        progress("judging", total, total)
    if index is not None and _BY_COPIES & set(kinds):
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            progress("comparing", done, total)

        findings += find_copies(index, images, advance)
    listed = tuple(in_order(one for one in findings if one.kind in kinds))
    likely = {} if told is None else _likely_classes(audited, told, {one.path for one in listed})
    return Audit(
        listed,
        total - num_unreadable,
        audited,
        tuple(refused),
        tuple(notes),
        accuracy,
        agreement=agreement,
        likely=likely,
    )


def _likely_classes(audited: AuditedImages, judged: JudgedLabels, paths: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the most probable classes of images, best first, without their own; first the suggested one."""
    found = {}
    for place, row in enumerate(judged.rows.tolist()):
        path = audited.images[row].path
        if path in paths:
            order = np.argsort(-judged.judgment.probabilities[place], kind="stable")[: NUM_LIKELY + 2].tolist()
            ranked = dict.fromkeys([int(judged.judgment.suggested[place]), *order])
            others = [number for number in ranked if number != judged.labels[place]]
            found[path] = tuple(judged.class_names[number] for number in others[:NUM_LIKELY])
    return found


def copy_numbers(index: SearchIndex) -> np.ndarray:
    """Return equal numbers for images of equal bytes or hashes: int64 `[num_images]`; no pair is verified for it."""
    _, by_bytes = np.unique(index.images.column("sha256").astype(str), return_inverse=True)
    hashes = index.images.column("phash").astype(np.uint64)
    first: dict[int, int] = {}
    return np.array(
        [
            first.setdefault(value, same) if value else same
            for value, same in zip(hashes.tolist(), by_bytes.tolist(), strict=True)
        ]
    )
