"""One page for a browser on what a detector finds, misses and mistakes. numpy, Pillow, HTML."""

from efpn_d2.report.build import ReportOptions, write_report
from efpn_d2.report.protocol import PROTOCOLS, ReportProtocol

__all__ = ["PROTOCOLS", "ReportOptions", "ReportProtocol", "write_report"]
