"""What people see of a run: pictures of its figures, sheets of its pictures, and one HTML page of it all.

Nothing here imports TensorFlow.
"""

from simimg.report.pictures import Tile, calibration_curves, confusion_matrix, tile_sheet, training_curves
from simimg.report.report import ReportContent, Stage, write_report
from simimg.report.training import RunGroup, TrainingContent, write_comparison, write_training_report

__all__ = [
    "ReportContent",
    "RunGroup",
    "Stage",
    "Tile",
    "TrainingContent",
    "calibration_curves",
    "confusion_matrix",
    "tile_sheet",
    "training_curves",
    "write_comparison",
    "write_report",
    "write_training_report",
]
