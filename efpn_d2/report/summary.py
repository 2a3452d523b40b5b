"""The numbers behind the page's charts, ready for JSON."""

import math
from typing import Any

import numpy as np

from efpn_d2.evaluation.error_analysis import Kind
from efpn_d2.evaluation.error_summary import (
    Curve,
    accuracy_recall,
    confusion,
    error_counts,
    rates,
    recall_by_size,
    score_histogram,
    select,
    size_edges,
)
from efpn_d2.report.protocol import ReportProtocol, area_ends, area_text, bin_text
from efpn_d2.report.run import Run

_MAX_CONFUSION_CLASSES = 24


def summarize(runs: list[Run], protocol: ReportProtocol) -> dict[str, Any]:
    """Curves, histograms, error counts and confusion of one or two runs on the same data."""
    truth = runs[0].analysis.truth
    shown = confused_classes(runs)
    return {
        "runs": [
            {
                "name": run.name,
                "threshold": round(run.threshold, 4),
                "headline": headline(run, protocol),
            }
            for run in runs
        ],
        "classes": truth.class_names,
        "bins": [bin_text(size_bin) for size_bin in protocol.bins],
        "areas": [area_text(area) for area in protocol.rules.areas],
        "edges": [float(edge) for edge in protocol.edges],
        "iou": protocol.iou,
        "precision": [_precision_curves(run, protocol) for run in runs],
        "accuracy": [_accuracy_curves(run, protocol) for run in runs],
        "sizeRecall": _size_recall(runs),
        "histogram": [_histograms(run, protocol) for run in runs],
        "errors": [
            error_counts(run.analysis, protocol.bounds, run.threshold).tolist() for run in runs
        ],
        "confusionClasses": shown,
        "confusion": [_reduced_confusion(run, shown) for run in runs],
    }


def headline(run: Run, protocol: ReportProtocol) -> dict[str, float | None]:
    """The few numbers at the top of the page, in percent."""
    rate = rates(run.analysis, select(run.analysis), run.threshold)
    values = {
        "AP": run.metrics.average_precision(),
        f"AP at IoU {protocol.iou:g}": run.metrics.average_precision(iou=protocol.iou),
        "AR": run.metrics.average_recall(),
        "F1 at the threshold": 100 * rate.f1,
    }
    return {name: None if math.isnan(v) else round(v, 4) for name, v in values.items()}


def _selections(run: Run, protocol: ReportProtocol) -> list[Any]:
    """The protocol's areas, all objects first, then each class: the order of the page's menu."""
    areas = [select(run.analysis, *area_ends(area)) for area in protocol.rules.areas]
    classes = range(len(run.analysis.truth.class_names))
    by_class = (select(run.analysis, class_index=k) for k in classes)
    return [*areas, *by_class]


def _precision_curves(run: Run, protocol: ReportProtocol) -> list[list[float | None]]:
    curves = [run.metrics.precision_curve(size) for size in range(len(protocol.rules.areas))]
    classes = range(len(run.analysis.truth.class_names))
    curves += [run.metrics.precision_curve(class_index=k) for k in classes]
    return [_numbers(curve) if not np.isnan(curve).any() else [] for curve in curves]


def _accuracy_curves(run: Run, protocol: ReportProtocol) -> list[dict[str, Any]]:
    # Fewer points for classes: a thousand of them would make the page heavy.
    points = [240] * len(protocol.rules.areas) + [80] * len(run.analysis.truth.class_names)
    curves = [
        accuracy_recall(run.analysis, selection, most)
        for selection, most in zip(_selections(run, protocol), points, strict=True)
    ]
    return [_curve(curve, run.threshold) for curve in curves]


def _curve(curve: Curve, threshold: float) -> dict[str, Any]:
    chosen = np.flatnonzero(curve.score >= threshold)
    return {
        "recall": _numbers(curve.recall),
        "accuracy": _numbers(curve.accuracy),
        "score": _numbers(curve.score),
        "at": int(chosen[-1]) if len(chosen) else None,
    }


def _size_recall(runs: list[Run]) -> dict[str, Any]:
    truth = runs[0].analysis.truth
    edges = size_edges(truth.sizes[~truth.crowd])
    curves = [recall_by_size(run.analysis, edges, run.threshold) for run in runs]
    return {
        "edges": _numbers(edges),
        "objects": curves[0].objects.tolist(),
        "runs": [
            {
                "recall": _numbers(curve.recall),
                "average": _numbers(curve.average_recall),
                "atThreshold": _numbers(curve.recall_at_threshold),
            }
            for curve in curves
        ],
    }


def _histograms(run: Run, protocol: ReportProtocol) -> list[list[list[int]]]:
    return [
        score_histogram(run.analysis, selection).tolist()
        for selection in _selections(run, protocol)
    ]


def confused_classes(runs: list[Run]) -> list[int]:
    """The classes that the confusion table shows: all, or those with the most confusions.

    Of equally confused classes, those with the most objects and detections.
    """
    total = np.sum([confusion(run.analysis, run.threshold) for run in runs], axis=0)
    k = len(total) - 1
    if k <= _MAX_CONFUSION_CLASSES:
        return list(range(k))
    wrong = total[:k, :k] - np.diag(np.diag(total)[:k])
    confused, present = (x.sum(axis=0)[:k] + x.sum(axis=1)[:k] for x in (wrong, total))
    order = np.lexsort((-present, -confused))
    return sorted(order[:_MAX_CONFUSION_CLASSES].tolist())


def _reduced_confusion(run: Run, shown: list[int]) -> list[list[int]]:
    """Rows: the shown classes, the others, background. Columns: the same, and missed at the end."""
    full = confusion(run.analysis, run.threshold)
    k = len(full) - 1
    group = np.full(k + 1, len(shown))
    group[shown], group[k] = np.arange(len(shown)), len(shown) + 1
    reduced = np.zeros((len(shown) + 2,) * 2, dtype=int)
    np.add.at(reduced, (group[:, None], group[None]), full)
    return reduced.tolist()


def kind_names() -> list[str]:
    """Names of the kinds as the page's script knows them, by number; the last is of comparisons."""
    return [*(kind.name.lower() for kind in Kind), "only here"]


def _numbers(values: np.ndarray) -> list[float | None]:
    """Rounded for JSON, which has no NaN."""
    return [None if math.isnan(v) else round(float(v), 5) for v in values]
