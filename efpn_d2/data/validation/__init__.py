"""Validation of COCO-format datasets: errors are corrected or dropped, and always reported."""

from efpn_d2.data.validation.clean import clean_coco
from efpn_d2.data.validation.report import KINDS, NOTES, Finding, ValidationReport, counted

__all__ = ["KINDS", "NOTES", "Finding", "ValidationReport", "clean_coco", "counted"]
