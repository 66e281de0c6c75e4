"""Figures of a model: accuracy, precision or errors on a split, and recall of copies."""

from simimg.evaluation.calibration import Calibration, ReliabilityBin, calibration, fit_temperature, scaled
from simimg.evaluation.classification import (
    Classification,
    accuracies,
    classify,
    predict,
    wilson_interval,
    with_details,
)
from simimg.evaluation.copy_recall import CopyFigures, CopySearch, copy_of, search_copies
from simimg.evaluation.label_figures import (
    MultiLabelFigures,
    PrecisionRecall,
    RegressionFigures,
    multi_label_figures,
    precision_recall,
    regression_figures,
)
from simimg.models.saved_model import compiled

__all__ = [
    "Calibration",
    "Classification",
    "CopyFigures",
    "CopySearch",
    "MultiLabelFigures",
    "PrecisionRecall",
    "RegressionFigures",
    "ReliabilityBin",
    "accuracies",
    "calibration",
    "classify",
    "compiled",
    "copy_of",
    "fit_temperature",
    "multi_label_figures",
    "precision_recall",
    "predict",
    "regression_figures",
    "scaled",
    "search_copies",
    "wilson_interval",
    "with_details",
]
