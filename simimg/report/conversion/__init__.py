"""What a conversion made, as people see it: report.html in the data set folder, and the table in the terminal."""

from simimg.report.conversion.conversion_report import REPORT_FILE, write_conversion_report
from simimg.report.conversion.terminal_table import summary_table

__all__ = ["REPORT_FILE", "summary_table", "write_conversion_report"]
