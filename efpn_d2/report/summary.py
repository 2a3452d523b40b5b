"""Numbers of the page's charts, as JSON types."""

import math
from typing import Any

import numpy as np

from efpn_d2.error_analysis.summary import (
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
from efpn_d2.error_analysis.verdicts import Kind
from efpn_d2.evaluation.metric_specs import mean_percent
from efpn_d2.report.rules import ReportRules, area_ends, area_text, bin_text
from efpn_d2.report.run import Run
from efpn_d2.report.run_metrics import precision_curve

_MAX_CONFUSION_CLASSES = 24


def summarize(runs: list[Run], rules: ReportRules) -> dict[str, Any]:
    """Return curves, histograms, error counts and confusion of one or two runs on a dataset."""
    truth = runs[0].analysis.truth
    shown = confused_classes(runs)
    return {
        "runs": [
            {
                "name": run.name,
                "threshold": round(run.threshold, 4),
                "headline": headline(run, rules),
            }
            for run in runs
        ],
        "classes": truth.class_names,
        "bins": [bin_text(size_bin) for size_bin in rules.bins],
        "areas": [area_text(area) for area in rules.coco.areas],
        "edges": [float(edge) for edge in rules.edges],
        "iou": rules.iou,
        "precision": [_precision_curves(run, rules) for run in runs],
        "accuracy": [_accuracy_curves(run, rules) for run in runs],
        "sizeRecall": _size_recall(runs),
        "histogram": [_histograms(run, rules) for run in runs],
        "errors": [
            error_counts(run.analysis, rules.bounds, run.threshold).tolist() for run in runs
        ],
        "confusionClasses": shown,
        "confusion": [_reduced_confusion(run, shown) for run in runs],
    }


def headline(run: Run, rules: ReportRules) -> dict[str, float | None]:
    """Return the few numbers at the top of the page, in percent."""
    rate = rates(run.analysis, select(run.analysis), run.threshold)
    found = run.result.part()
    values = {
        "AP": mean_percent(found.precision[..., -1]),
        f"AP at IoU {rules.iou:g}": mean_percent(found.at_iou(rules.iou).precision[..., -1]),
        "AR": mean_percent(found.recall[..., -1]),
        "F1 at the threshold": 100 * rate.f1,
    }
    return {name: None if math.isnan(v) else round(v, 4) for name, v in values.items()}


def _selections(run: Run, rules: ReportRules) -> list[Any]:
    """Select the protocol's areas, all objects first, then each class, as in the page's menu."""
    areas = [select(run.analysis, *area_ends(area)) for area in rules.coco.areas]
    classes = range(len(run.analysis.truth.class_names))
    by_class = (select(run.analysis, class_index=k) for k in classes)
    return [*areas, *by_class]


def _precision_curves(run: Run, rules: ReportRules) -> list[list[float | None]]:
    curves = [precision_curve(run.result, size) for size in range(len(rules.coco.areas))]
    classes = range(len(run.analysis.truth.class_names))
    curves += [precision_curve(run.result, class_index=k) for k in classes]
    return [_numbers(curve) if not np.isnan(curve).any() else [] for curve in curves]


def _accuracy_curves(run: Run, rules: ReportRules) -> list[dict[str, Any]]:
    # Fewer points for classes, since a dataset may have a thousand of them.
    points = [240] * len(rules.coco.areas) + [80] * len(run.analysis.truth.class_names)
    curves = [
        accuracy_recall(run.analysis, selection, most)
        for selection, most in zip(_selections(run, rules), points, strict=True)
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


def _histograms(run: Run, rules: ReportRules) -> list[list[list[int]]]:
    return [
        score_histogram(run.analysis, selection).tolist() for selection in _selections(run, rules)
    ]


def confused_classes(runs: list[Run]) -> list[int]:
    """Return the classes of the confusion table: all, or those with the most confusions.

    Ties are decided by the number of objects and detections.
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
    """Reduce the confusion counts to the shown classes, the others, and background or missed."""
    full = confusion(run.analysis, run.threshold)
    k = len(full) - 1
    group = np.full(k + 1, len(shown))
    group[shown], group[k] = np.arange(len(shown)), len(shown) + 1
    reduced = np.zeros((len(shown) + 2,) * 2, dtype=int)
    np.add.at(reduced, (group[:, None], group[None]), full)
    return reduced.tolist()


def kind_names() -> list[str]:
    """Return the kinds' names in the page's script, by number; the last one is for comparisons."""
    return [*(kind.name.lower() for kind in Kind), "only here"]


def _numbers(values: np.ndarray) -> list[float | None]:
    """Round for JSON, with None for NaN."""
    return [None if math.isnan(v) else round(float(v), 5) for v in values]
