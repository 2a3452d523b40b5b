"""All that a report knows of one run."""

from dataclasses import dataclass
from pathlib import Path

from efpn_d2.evaluation.coco_arrays import GroundTruth, load_detections
from efpn_d2.evaluation.error_analysis import RunAnalysis, analyze_run
from efpn_d2.evaluation.error_summary import best_threshold
from efpn_d2.report.protocol import ReportProtocol
from efpn_d2.report.run_metrics import RunMetrics, run_metrics


@dataclass(frozen=True)
class Run:
    """Name, verdicts and metrics of a run, and the score from which its detections are shown."""

    name: str
    analysis: RunAnalysis
    metrics: RunMetrics
    threshold: float


def load_run(
    name: str,
    predictions: str | Path,
    truth: GroundTruth,
    protocol: ReportProtocol,
    threshold: float | None = None,
    backend: str = "auto",
) -> Run:
    """Read and evaluate a file of COCO results.

    Args:
        name: what the page calls the run.
        predictions: the file; see :func:`efpn_d2.evaluation.coco_arrays.load_detections`.
        truth: the data set it is of.
        protocol: the rules.
        threshold: least score of a shown detection; None: where F1 is highest.
        backend: of AP and AR; see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.

    Raises:
        ValueError: the file does not fit the data set.
        OSError: it cannot be read.
    """
    detections = load_detections(predictions, truth, max_dets=protocol.max_dets)
    analysis = analyze_run(truth, detections, iou_thresholds=protocol.rules.iou_thresholds)
    if threshold is None:
        threshold = best_threshold(analysis)
    return Run(name, analysis, run_metrics(truth, detections, protocol, backend), threshold)
