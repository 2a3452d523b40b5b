"""Checks of COCO-format data sets: what is wrong is corrected or dropped, and always reported."""

from efpn_d2.data.datasets.validation.clean import clean_coco
from efpn_d2.data.datasets.validation.report import KINDS, NOTES, Finding, Report, counted

__all__ = ["KINDS", "NOTES", "Finding", "Report", "clean_coco", "counted"]
