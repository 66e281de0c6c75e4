"""The results of a conversion for people: report.html in the data set folder, and the table in the terminal."""

from simimg.report.conversion.class_counts import summary_table
from simimg.report.conversion.conversion_report import REPORT_FILE, write_conversion_report

__all__ = ["REPORT_FILE", "summary_table", "write_conversion_report"]
