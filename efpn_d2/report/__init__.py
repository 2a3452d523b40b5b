"""HTML report on what a detector finds, misses and confuses, written with numpy and Pillow."""

from efpn_d2.report.build import ReportOptions, write_report
from efpn_d2.report.rules import REPORT_RULES, ReportRules
from efpn_d2.report.run import Evaluated

__all__ = ["REPORT_RULES", "Evaluated", "ReportOptions", "ReportRules", "write_report"]
