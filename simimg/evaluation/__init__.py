"""Figures of a model: accuracy, precision or errors on a split, and recall of copies."""

from simimg.evaluation.classification import (
    Classification,
    classify,
    predict,
    wilson_interval,
)
from simimg.evaluation.copy_recall import CopyFigures, CopySearch, copy_of, search_copies
from simimg.evaluation.label_figures import (
    MultiLabelFigures,
    RegressionFigures,
    multi_label_figures,
    regression_figures,
)
from simimg.models.saved_model import compiled

__all__ = [
    "Classification",
    "CopyFigures",
    "CopySearch",
    "MultiLabelFigures",
    "RegressionFigures",
    "classify",
    "compiled",
    "copy_of",
    "multi_label_figures",
    "predict",
    "regression_figures",
    "search_copies",
    "wilson_interval",
]
