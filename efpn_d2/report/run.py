"""All that a report knows of one run."""

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
    """Name, verdicts and AP of a run, and the score from which its detections are shown."""

    name: str
    analysis: RunAnalysis
    result: CocoResult
    threshold: float


@dataclass(frozen=True)
class Evaluated:
    """What an evaluator has of a run, so that a report need not make it again.

    Attributes:
        truth: the data set.
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
        name: what the page calls the run.
        predictions: the file; see :func:`efpn_d2.evaluation.coco_arrays.load_detections`.
        truth: the data set it is of.
        rules: of its numbers.
        threshold: least score of a shown detection; None: where F1 is highest.
        backend: of AP and AR; see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
        result: AP and AR by these rules, if they are known.

    Raises:
        ValueError: the file does not fit the data set, or the result is by other rules.
        OSError: it cannot be read.
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
