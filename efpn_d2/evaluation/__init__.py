"""Evaluation by object size, by the protocols of data sets of small objects."""

from .build import build_evaluator
from .coco_evaluator import SizeBinnedCOCOEvaluator
from .coco_metrics import CocoResult, evaluate_coco
from .coco_protocols import PRESETS, AreaBin, CocoProtocol
from .olrp import optimal_lrp
from .size_bins import SizeBin, evaluate_size_bins, size_bins
from .tt100k import sweep_scores
from .tt100k_evaluator import TT100KEvaluator
from .visdrone import evaluate_visdrone
from .visdrone_evaluator import VisDroneEvaluator

__all__ = [
    "PRESETS",
    "AreaBin",
    "CocoProtocol",
    "CocoResult",
    "SizeBin",
    "SizeBinnedCOCOEvaluator",
    "TT100KEvaluator",
    "VisDroneEvaluator",
    "build_evaluator",
    "evaluate_coco",
    "evaluate_size_bins",
    "evaluate_visdrone",
    "optimal_lrp",
    "size_bins",
    "sweep_scores",
]
