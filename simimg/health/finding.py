"""A finding of an audit, and the kinds of findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

KINDS = {
    "label": "the label is probably wrong; the score is that probability, as the collection shows it",
    "label_conflict": "copies of one image have several labels; the score is their similarity",
    "leak": "a copy of it is in an earlier split; the score is their similarity",
    "outlier": "it resembles neither the images of its class nor others; 0.5 is where outliers begin",
    "blurred": "even the sharpest edges are wide, in one direction at least",
    "dark": "even the lightest parts are dark",
    "bright": "even the darkest parts are light",
    "plain": "it shows nothing: one color or an even slope",
    "low_information": "nearly all of it is empty",
    "bordered": "an even border takes a large part of it",
    "text": "it is a page or a screenshot of text",
    "grayscale": "it is gray, while most of the others are in color",
    "odd_size": "it has far more or fewer pixels than the others",
    "odd_shape": "it is far wider or higher than the others",
    "confused_classes": "two classes that are hardly told apart; the score is the share of confused images",
    "few_images": "a class with too few images to learn or measure it",
    "drift": "a split whose images differ from those for training; the score is 2 AUC - 1 of telling them apart",
}
"""What an audit finds, in the order in which findings are listed, with the meaning of each score (0..1, 1 is surest).
Where nothing else is said, 0.5 is the threshold of the kind and 1 the clearest case."""

OF_PIXELS = ("blurred", "dark", "bright", "plain", "low_information", "bordered", "text", "grayscale")
OF_IMAGES = (*OF_PIXELS, "odd_size", "odd_shape")
"""Kinds that need no embeddings."""

COLUMNS = ("path", "kind", "score", "label", "split", "suggestion", "reason", "decision")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about an image, a class or a split that a person should look at.

    Attributes:
        kind: one of `KINDS`.
        path: of the image, as the index or the manifest has it; "" for findings about classes and splits.
        score: 0..1; 1 is surest. `KINDS` says what it means.
        suggestion: what to do: the name of a class for `label`, otherwise `drop` or `look`.
        reason: a sentence part for people.
        label: the given class of the image, or the class that it is about; "" if there is none.
        split: of the image, or that it is about; "" if there is none.
        evidence: paths of images that show it: copies, nearest images of the suggested class, typical examples.
    """

    kind: str
    score: float
    reason: str
    path: str = ""
    suggestion: str = "look"
    label: str = ""
    split: str = ""
    evidence: tuple[str, ...] = ()


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by kind, in the order of `KINDS`, the surest first."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda one: (places[one.kind], -one.score, one.path))
