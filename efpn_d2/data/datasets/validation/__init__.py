"""Checks of COCO-format data sets: what is wrong is corrected or dropped, and always reported."""

from .clean import clean_coco
from .report import KINDS, NOTES, Finding, Report, counted

__all__ = ["KINDS", "NOTES", "Finding", "Report", "clean_coco", "counted"]
