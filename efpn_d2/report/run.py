"""Data of one run in a report."""

from dataclasses import dataclass
from pathlib import Path

from efpn_d2.error_analysis.summary import best_threshold
from efpn_d2.error_analysis.verdicts import RunAnalysis, analyze_run
from efpn_d2.evaluation.coco_arrays import GroundTruth, load_detections
from efpn_d2.evaluation.coco_metrics import CocoResult
from efpn_d2.report.rules import ReportRules
from efpn_d2.report.run_metrics import run_metrics


@dataclass(frozen=True)
class Run:
    """Name, verdicts and AP of a run, and the minimum score of its shown detections."""

    name: str
    analysis: RunAnalysis
    result: CocoResult
    threshold: float


@dataclass(frozen=True)
class Evaluated:
    """Ground truth and result of an evaluator, so that the report need not compute them again.

    Attributes:
        truth: ground truth.
        result: AP and AR of boxes by the report's rules; None: the report computes them.
    """

    truth: GroundTruth
    result: CocoResult | None = None


def load_run(
    name: str,
    predictions: str | Path,
    truth: GroundTruth,
    rules: ReportRules,
    threshold: float | None = None,
    backend: str = "auto",
    result: CocoResult | None = None,
) -> Run:
    """Read and evaluate a file of COCO results.

    Args:
        name: name of the run on the page.
        predictions: the file; see :func:`efpn_d2.evaluation.coco_arrays.load_detections`.
        truth: ground truth of the results.
        rules: rules of the numbers.
        threshold: minimum score of shown detections; None: the threshold of the highest F1.
        backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
        result: AP and AR by these rules, if already computed.

    Raises:
        ValueError: if the file does not match the dataset, or the result is by other rules.
        OSError: if the file cannot be read.
    """
    if result is not None and result.protocol != rules.coco:
        raise ValueError(
            f"The evaluation is by other rules ({result.protocol.name}) than the report "
            f"({rules.coco.name}): use the same, or let the report compute AP."
        )
    detections = load_detections(predictions, truth, max_dets=rules.max_dets)
    analysis = analyze_run(truth, detections, iou_thresholds=rules.coco.iou_thresholds)
    if threshold is None:
        threshold = best_threshold(analysis)
    if result is None:
        result = run_metrics(truth, detections, rules, backend)
    return Run(name, analysis, result, threshold)
