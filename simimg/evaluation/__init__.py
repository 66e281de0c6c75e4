"""How good a model is, in figures and pictures."""

from simimg.evaluation.classify import Classification, classify, compiled, predict, wilson_interval
from simimg.evaluation.files import PredictedFiles, predict_files

__all__ = [
    "Classification",
    "PredictedFiles",
    "classify",
    "compiled",
    "predict",
    "predict_files",
    "wilson_interval",
]
