"""Figures of a model: accuracy on a split, and recall of copies."""

from simimg.evaluation.classification import (
    Classification,
    classify,
    predict,
    wilson_interval,
)
from simimg.evaluation.copy_recall import CopyFigures, CopySearch, copy_of, search_copies
from simimg.models.saved_model import compiled

__all__ = [
    "Classification",
    "CopyFigures",
    "CopySearch",
    "classify",
    "compiled",
    "copy_of",
    "predict",
    "search_copies",
    "wilson_interval",
]
