"""Advice on a config from the objects of a data set."""

from .analyze import DatasetAnalysis, analyze_dataset
from .report import format_analysis, format_settings

__all__ = ["DatasetAnalysis", "analyze_dataset", "format_analysis", "format_settings"]
