"""One page for a browser on what a detector finds, misses and mistakes. numpy, Pillow, HTML."""

from .build import ReportOptions, write_report
from .protocol import PROTOCOLS, ReportProtocol

__all__ = ["PROTOCOLS", "ReportOptions", "ReportProtocol", "write_report"]
