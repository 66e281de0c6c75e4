"""The results of a conversion for people: report.html in the dataset folder, and the table in the terminal."""

from simimg.report.conversion.class_counts import summary_table
from simimg.report.conversion.conversion_report import write_conversion_report
from tfrecords.format.naming import REPORT_FILE

__all__ = ["REPORT_FILE", "summary_table", "write_conversion_report"]
