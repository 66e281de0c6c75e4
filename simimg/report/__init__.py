"""What people see of a run: pictures of its figures, sheets of its pictures, and one HTML page of it all.

Nothing here imports TensorFlow.
"""

from simimg.report.copies_report import CopiesContent, CopyRow, write_copies_report
from simimg.report.demo_report import ReportContent, Stage, write_report
from simimg.report.evaluation_report import BenchContent, write_bench_report, write_evaluation_report
from simimg.report.png_charts import Tile, calibration_curves, confusion_matrix, tile_sheet, training_curves
from simimg.report.training_report import RunGroup, TrainingContent, write_comparison, write_training_report

__all__ = [
    "BenchContent",
    "CopiesContent",
    "CopyRow",
    "ReportContent",
    "RunGroup",
    "Stage",
    "Tile",
    "TrainingContent",
    "calibration_curves",
    "confusion_matrix",
    "tile_sheet",
    "training_curves",
    "write_bench_report",
    "write_comparison",
    "write_copies_report",
    "write_evaluation_report",
    "write_report",
    "write_training_report",
]
