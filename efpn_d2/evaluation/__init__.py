"""Evaluation by object size."""

from .build import build_evaluator
from .coco_evaluator import SizeBinnedCOCOEvaluator
from .size_bins import SizeBin, evaluate_size_bins, size_bins

__all__ = [
    "SizeBin",
    "SizeBinnedCOCOEvaluator",
    "build_evaluator",
    "evaluate_size_bins",
    "size_bins",
]
