"""Reports for people: charts, contact sheets and HTML pages. Nothing in this package imports TensorFlow."""

from simimg.report.bench_report import write_bench_report
from simimg.report.charts import calibration_curves, confusion_matrix
from simimg.report.contact_sheet import Tile, tile_sheet
from simimg.report.copies_report import CopyRow, write_copies_report
from simimg.report.demo_report import ReportContent, Stage, write_report
from simimg.report.training_report import (
    RunGroup,
    TrainingContent,
    write_comparison,
    write_evaluation_report,
    write_training_report,
)

__all__ = [
    "CopyRow",
    "ReportContent",
    "RunGroup",
    "Stage",
    "Tile",
    "TrainingContent",
    "calibration_curves",
    "confusion_matrix",
    "tile_sheet",
    "write_bench_report",
    "write_comparison",
    "write_copies_report",
    "write_evaluation_report",
    "write_report",
    "write_training_report",
]
