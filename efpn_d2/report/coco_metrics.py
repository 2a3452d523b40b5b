"""AP and AR of a run by class and size bin, from COCO's own evaluation."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..evaluation.coco_arrays import Detections, GroundTruth, box_sizes
from .protocol import ReportProtocol


@dataclass(frozen=True)
class CocoMetrics:
    """What COCO's evaluation accumulates, for K classes and 1 + B sizes: all, then each bin.

    NaN where a class has no object of the size. Values are in [0, 1].
    """

    precision: np.ndarray  # (T, 101, K, 1 + B), interpolated, at recall 0, 0.01, ... 1
    recall: np.ndarray  # (T, K, 1 + B)
    iou_thresholds: tuple[float, ...]
    backend: str

    def average_precision(
        self, size: int = 0, class_index: int | None = None, iou: float | None = None
    ) -> float:
        """AP in percent: mean over the IoU thresholds (or at one) and the classes (or of one)."""
        return _mean_percent(self._pick(self.precision, size, class_index, iou))

    def average_recall(self, size: int = 0, class_index: int | None = None) -> float:
        """AR in percent: mean over the IoU thresholds and the classes (or of one)."""
        return _mean_percent(self._pick(self.recall, size, class_index, None))

    def precision_curve(self, size: int = 0, class_index: int | None = None) -> np.ndarray:
        """(101,) precision at the first IoU threshold, mean over the classes (or of one)."""
        values = self.precision[0, :, :, size]
        values = values if class_index is None else values[:, [class_index]]
        known = values[:, ~np.isnan(values[0])]
        return known.mean(axis=1) if known.size else np.full(len(values), np.nan)

    def _pick(
        self, values: np.ndarray, size: int, class_index: int | None, iou: float | None
    ) -> np.ndarray:
        values = values[..., size]
        if iou is not None:
            values = values[np.isclose(self.iou_thresholds, iou)]
        return values if class_index is None else values[..., class_index]


def coco_metrics(
    truth: GroundTruth, detections: Detections, protocol: ReportProtocol
) -> CocoMetrics:
    """Evaluate boxes by COCO's rules in the protocol's size bins.

    An object's size is that of its annotated area, a detection's that of its box; objects outside of
    a bin and crowds neither count nor punish.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*_coco_apis(truth, detections), "bbox")
        params = evaluation.params
        params.iouThrs = np.array(protocol.iou_thresholds)
        params.maxDets = [protocol.max_dets]
        ranges = [size_bin.area_range for size_bin in protocol.bins]
        params.areaRng = [[0.0, math.inf], *ranges]
        params.areaRngLbl = ["all", *(size_bin.label for size_bin in protocol.bins)]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    # pycocotools marks what has no object by -1.
    return CocoMetrics(
        np.where(precision < 0, np.nan, precision),
        np.where(recall < 0, np.nan, recall),
        tuple(protocol.iou_thresholds),
        "pycocotools",
    )


def _coco_apis(truth: GroundTruth, detections: Detections) -> tuple[COCO, COCO]:
    objects = _entries(truth.image, truth.boxes, truth.classes, truth.sizes**2)
    for entry, crowd in zip(objects, truth.crowd.tolist(), strict=True):
        entry["iscrowd"] = int(crowd)
    found = _entries(
        detections.image, detections.boxes, detections.classes, box_sizes(detections.boxes) ** 2
    )
    for entry, score in zip(found, detections.scores.tolist(), strict=True):
        entry["score"] = score
    apis = (COCO(), COCO())
    for api, annotations in zip(apis, (objects, found), strict=True):
        api.dataset = {
            "images": [{"id": i} for i in range(len(truth.images))],
            "categories": [{"id": k} for k in range(len(truth.class_names))],
            "annotations": annotations,
        }
        api.createIndex()
    return apis


def _entries(
    image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, areas: np.ndarray
) -> list[dict]:
    xywh = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    columns: Sequence[list] = (image.tolist(), xywh.tolist(), classes.tolist(), areas.tolist())
    # Ids start at 1: pycocotools takes a match with the object 0 for none.
    return [
        {"id": n, "image_id": i, "bbox": box, "category_id": k, "area": area, "iscrowd": 0}
        for n, (i, box, k, area) in enumerate(zip(*columns, strict=True), start=1)
    ]


def _mean_percent(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean() * 100) if values.size else math.nan
