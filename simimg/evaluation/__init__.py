"""How good a model is, in figures and pictures."""

from simimg.evaluation.classification import Classification, classify, compiled, predict, wilson_interval
from simimg.evaluation.copy_recall import CopyFigures, CopySearch, copy_of, search_copies
from simimg.evaluation.file_predictions import PredictedFiles, predict_files

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
