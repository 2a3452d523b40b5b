"""Advice on a config from the objects of a data set."""

from efpn_d2.analysis.analyze import DatasetAnalysis, analyze_dataset
from efpn_d2.analysis.report import format_analysis, format_settings

__all__ = ["DatasetAnalysis", "analyze_dataset", "format_analysis", "format_settings"]
