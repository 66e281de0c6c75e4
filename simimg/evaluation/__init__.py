"""Figures of a model: accuracy on a split, predictions for image files, and recall of copies."""

from simimg.evaluation.classification import (
    Classification,
    PredictedFiles,
    classify,
    predict,
    predict_files,
    wilson_interval,
)
from simimg.evaluation.copy_recall import CopyFigures, CopySearch, copy_of, search_copies
from simimg.models import compiled

__all__ = [
    "Classification",
    "CopyFigures",
    "CopySearch",
    "PredictedFiles",
    "classify",
    "compiled",
    "copy_of",
    "predict",
    "predict_files",
    "search_copies",
    "wilson_interval",
]
