"""How good a model is, in figures and pictures."""

from simimg.evaluation.classify import Classification, classify, compiled, predict, wilson_interval
from simimg.evaluation.copies import CopyFigures, CopySearch, copy_of, search_copies
from simimg.evaluation.files import PredictedFiles, predict_files

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
