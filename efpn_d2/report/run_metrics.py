"""AP and AR of a run by class and size bin, from COCO's evaluation."""

from typing import Any

import numpy as np

from efpn_d2.evaluation.coco_arrays import Detections, GroundTruth
from efpn_d2.evaluation.coco_metrics import CocoResult, evaluate_coco
from efpn_d2.report.rules import ReportRules


def precision_curve(
    result: CocoResult, area: int = 0, class_index: int | None = None
) -> np.ndarray:
    """Return (101,) precision at the first IoU threshold, of one class or the mean over all."""
    values = result.part(area, class_index).precision[0, :, :, -1]
    known = values[:, ~np.isnan(values[0])]
    return known.mean(axis=1) if known.size else np.full(len(values), np.nan)


def run_metrics(
    truth: GroundTruth, detections: Detections, rules: ReportRules, backend: str = "auto"
) -> CocoResult:
    """Evaluate boxes by the rules of the report; see :func:`evaluate_coco`."""
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
    return evaluate_coco(dataset, results, rules.coco, backend=backend, is_checked=True)


def _entries(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> list[dict[str, Any]]:
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    columns = (image.tolist(), xywh.tolist(), classes.tolist())
    return [
        {"image_id": i, "bbox": box, "category_id": k} for i, box, k in zip(*columns, strict=True)
    ]
