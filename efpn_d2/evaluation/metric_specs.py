"""Table of the COCO-family metrics, computed from accumulated precision and recall.

Every metric in it, and every registered one, gets a column in the printed table and in the report,
and a number for each size bin in the results.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from efpn_d2.evaluation.coco_protocols import AreaBin, CocoProtocol


@dataclass(frozen=True)
class CocoSlice:
    """Accumulated numbers of one size bin: T IoU thresholds, K classes, M limits of detections.

    Attributes:
        protocol: the rules, with the T ``iou_thresholds`` and the M ``max_dets``.
        area: the bin; its name is empty for the range that "AP" covers.
        precision: (T, 101, K, M) in [0, 1], at recall 0, 0.01, ... 1; NaN for a class without
            objects in the bin.
        recall: (T, K, M); NaN for a class without objects in the bin.
    """

    protocol: CocoProtocol
    area: AreaBin
    precision: np.ndarray
    recall: np.ndarray

    def at_iou(self, iou: float) -> "CocoSlice":
        """Return the numbers at one IoU threshold; T becomes 1, or 0 for an unknown one."""
        at = np.isclose(self.protocol.iou_thresholds, iou)
        return replace(self, precision=self.precision[at], recall=self.recall[at])


@dataclass(frozen=True)
class MetricSpec:
    """A metric of the COCO family.

    Attributes:
        name: name in results, followed by that of the size bin: "AP" in "APs" and "AP_8_16".
        meaning: a phrase for readers of the report.
        value: computes the number in percent, NaN where there is no object.
        by_size: whether the metric is reported for size bins, too.
        family: metrics of one family are reported together, bin by bin; empty: a family of its own.
        overall_name: name over all sizes if it differs, such as "AR100".
        is_of: whether the metric is reported for a bin.
    """

    name: str
    meaning: str
    value: Callable[[CocoSlice], float]
    by_size: bool = True
    family: str = ""
    overall_name: str = ""
    is_of: Callable[[AreaBin], bool] = lambda _: True

    def key(self, area: AreaBin) -> str:
        """Return the name of the metric in results for a bin."""
        return f"{self.name}{area.name}" if area.name else self.overall_name or self.name

    def is_reported(self, area: AreaBin) -> bool:
        """Check whether the metric is reported for a bin."""
        return (self.by_size or not area.name) and self.is_of(area)


_OWN_NAMES = re.compile(r"A[PR]\d*|objects|oLRP(Loc|FP|FN)?")

#: Metrics added by :func:`register_metric`, by name.
METRICS: dict[str, MetricSpec] = {}


def register_metric(spec: MetricSpec) -> MetricSpec:
    """Add a metric to all following results, tables and reports of the COCO family.

    Raises:
        ValueError: if the name is taken.
    """
    if spec.name in METRICS or _OWN_NAMES.fullmatch(spec.name):
        raise ValueError(f"The metric '{spec.name}' already exists: choose another name.")
    METRICS[spec.name] = spec
    return spec


def metric_specs(protocol: CocoProtocol) -> list[MetricSpec]:
    """Return the metrics that a protocol reports, in order."""
    ious = sorted({iou for area in protocol.areas for iou in area.ious})
    known = [iou for iou in ious if np.isclose(protocol.iou_thresholds, iou).any()]
    return [
        MetricSpec("AP", "mean over the IoU thresholds and classes", _precision, family="AP"),
        *map(_precision_at, known),
        *(_recall_with(m, limit) for m, limit in enumerate(protocol.max_dets[:-1])),
        replace(
            _recall_with(-1, protocol.max_dets[-1]),
            name="AR",
            by_size=True,
            overall_name=f"AR{protocol.max_dets[-1]}",
        ),
        *METRICS.values(),
    ]


def mean_percent(values: np.ndarray) -> float:
    """Return the mean in percent of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean() * 100) if values.size else math.nan


def _precision(part: CocoSlice) -> float:
    return mean_percent(part.precision[..., -1])


def _precision_at(iou: float) -> MetricSpec:
    return MetricSpec(
        f"AP{100 * iou:.0f}",
        f"AP at IoU {iou:g}",
        lambda part: _precision(part.at_iou(iou)),
        family="AP",
        is_of=lambda area: iou in area.ious,
    )


def _recall_with(m: int, limit: int) -> MetricSpec:
    return MetricSpec(
        f"AR{limit}",
        f"recall with at most {limit} detections per image and class, mean over the IoU thresholds "
        "and classes",
        lambda part: mean_percent(part.recall[..., m]),
        by_size=False,
        family="AR",
    )
