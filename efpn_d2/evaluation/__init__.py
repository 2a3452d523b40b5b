"""Evaluation by object size with the protocols of small-object datasets."""

from efpn_d2.evaluation.build import build_evaluator
from efpn_d2.evaluation.coco_evaluator import SizeBinnedCOCOEvaluator
from efpn_d2.evaluation.coco_metrics import CocoResult, evaluate_coco
from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS, AreaBin, CocoProtocol
from efpn_d2.evaluation.metric_specs import CocoSlice, MetricSpec, mean_percent, register_metric
from efpn_d2.evaluation.olrp import optimal_lrp
from efpn_d2.evaluation.size_bins import SizeBin, evaluate_size_bins, size_bins
from efpn_d2.evaluation.tt100k import sweep_scores
from efpn_d2.evaluation.tt100k_evaluator import TT100KEvaluator
from efpn_d2.evaluation.visdrone import evaluate_visdrone
from efpn_d2.evaluation.visdrone_evaluator import VisDroneEvaluator

__all__ = [
    "COCO_PROTOCOLS",
    "AreaBin",
    "CocoProtocol",
    "CocoResult",
    "CocoSlice",
    "MetricSpec",
    "SizeBin",
    "SizeBinnedCOCOEvaluator",
    "TT100KEvaluator",
    "VisDroneEvaluator",
    "build_evaluator",
    "evaluate_coco",
    "evaluate_size_bins",
    "evaluate_visdrone",
    "mean_percent",
    "optimal_lrp",
    "register_metric",
    "size_bins",
    "sweep_scores",
]
