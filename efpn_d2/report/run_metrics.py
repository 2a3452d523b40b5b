"""AP and AR of a run by class and size bin, from COCO's own evaluation."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from efpn_d2.evaluation.coco_arrays import Detections, GroundTruth
from efpn_d2.evaluation.coco_backends import backend_version
from efpn_d2.evaluation.coco_metrics import CocoResult, evaluate_coco
from efpn_d2.report.protocol import ReportProtocol


@dataclass(frozen=True)
class RunMetrics:
    """What COCO's evaluation gives, for K classes and the protocol's A areas, all objects first."""

    result: CocoResult

    @property
    def backend(self) -> str:
        """What computed the numbers, with its version."""
        return backend_version(self.result.backend)

    def average_precision(
        self, area: int = 0, class_index: int | None = None, iou: float | None = None
    ) -> float:
        """AP in percent: mean over the IoU thresholds (or at one) and the classes (or of one).

        NaN where the classes have no object of that size.
        """
        return _mean_percent(self._pick(self.result.precision, area, class_index, iou))

    def average_recall(self, area: int = 0, class_index: int | None = None) -> float:
        """AR in percent: mean over the IoU thresholds and the classes (or of one)."""
        return _mean_percent(self._pick(self.result.recall, area, class_index, None))

    def precision_curve(self, area: int = 0, class_index: int | None = None) -> np.ndarray:
        """(101,) precision at the first IoU threshold, mean over the classes (or of one)."""
        values = self.result.precision[0, :, :, area, -1]
        values = values if class_index is None else values[:, [class_index]]
        known = values[:, ~np.isnan(values[0])]
        return known.mean(axis=1) if known.size else np.full(len(values), np.nan)

    def _pick(
        self, values: np.ndarray, area: int, class_index: int | None, iou: float | None
    ) -> np.ndarray:
        values = values[..., area, -1]
        if iou is not None:
            values = values[np.isclose(self.result.protocol.iou_thresholds, iou)]
        return values if class_index is None else values[..., class_index]


def run_metrics(
    truth: GroundTruth, detections: Detections, protocol: ReportProtocol, backend: str = "auto"
) -> RunMetrics:
    """Evaluate boxes by the protocol's rules; see :func:`evaluate_coco`."""
    objects = _entries(truth.image, truth.boxes, truth.classes)
    more = (truth.sizes**2).tolist(), truth.crowd.tolist()
    for number, (entry, area, crowd) in enumerate(zip(objects, *more, strict=True), start=1):
        entry.update(id=number, area=area, iscrowd=int(crowd))
    results = _entries(detections.image, detections.boxes, detections.classes)
    for entry, score in zip(results, detections.scores.tolist(), strict=True):
        entry["score"] = score
    dataset = {
        "images": [{**image, "id": i} for i, image in enumerate(truth.images)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.class_names)],
        "annotations": objects,
    }
    return RunMetrics(evaluate_coco(dataset, results, protocol.rules, backend=backend))


def _entries(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> list[dict[str, Any]]:
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    columns = (image.tolist(), xywh.tolist(), classes.tolist())
    return [
        {"image_id": i, "bbox": box, "category_id": k} for i, box, k in zip(*columns, strict=True)
    ]


def _mean_percent(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean() * 100) if values.size else math.nan
