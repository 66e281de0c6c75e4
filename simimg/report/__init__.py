"""What people see of a run: pictures of its figures, sheets of its pictures, and one HTML page of it all.

Nothing here imports TensorFlow.
"""

from simimg.report.pictures import Tile, confusion_matrix, tile_sheet, training_curves
from simimg.report.report import ReportContent, Stage, write_report

__all__ = ["ReportContent", "Stage", "Tile", "confusion_matrix", "tile_sheet", "training_curves", "write_report"]
