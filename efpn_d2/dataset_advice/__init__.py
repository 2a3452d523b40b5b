"""Recommend config settings from the objects of a dataset."""

from efpn_d2.dataset_advice.analyze import DatasetAnalysis, analyze_dataset
from efpn_d2.dataset_advice.report import format_analysis, format_settings

__all__ = ["DatasetAnalysis", "analyze_dataset", "format_analysis", "format_settings"]
