"""COCO's average precision and recall in object-size bins of one's own."""

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True)
class SizeBin:
    """Objects with ``low <= sqrt(area) < high``, in pixels of the annotation."""

    low: float
    high: float

    @property
    def label(self) -> str:
        """The bin in names of metrics, e.g. ``8_16``."""
        return f"{self.low:g}_{self.high:g}"

    @property
    def area_range(self) -> list[float]:
        """The bin as pycocotools takes it: squared, closed at both ends."""
        # pycocotools keeps areas that equal the upper end; here they belong to the next bin.
        return [self.low**2, math.nextafter(self.high**2, 0.0)]


def size_bins(edges: Sequence[float]) -> list[SizeBin]:
    """The bins between ascending edges, and the one from the last edge on.

    Raises:
        ValueError: the edges are not ascending from zero or more.
    """
    pairs = list(itertools.pairwise([*edges, math.inf]))
    if any(low < 0 or low >= high for low, high in pairs):
        raise ValueError(
            f"EVALUATION.SIZE_BINS {list(edges)} must be ascending sizes in pixels, none negative."
        )
    return [SizeBin(float(low), float(high)) for low, high in pairs]


def evaluate_size_bins(
    coco_gt: COCO,
    coco_dt: COCO | None,
    iou_type: str,
    bins: Sequence[SizeBin],
    *,
    max_dets: int = 100,
    img_ids: Iterable[int] | None = None,
) -> dict[str, float]:
    """Evaluate detections by COCO's protocol within each size bin.

    COCO's own rule says which size counts: an object's is its annotated ``area`` (the mask's, where
    there are masks, also for boxes); a detection that matches no object counts as false in the bin
    of its own area (width * height for "bbox", the mask's for "segm"). Objects outside of the bin,
    and crowds, neither count nor punish.

    Args:
        coco_gt: ground truth.
        coco_dt: detections, from ``coco_gt.loadRes``; None if there are none at all.
        iou_type: "bbox" or "segm".
        bins: the size bins.
        max_dets: how many detections per image and class count, best scores first.
        img_ids: images to evaluate; default all.

    Returns:
        For each bin, in percent, ``AP_<label>`` (mean over IoU 0.5:0.95), ``AP50_<label>`` and
        ``AR_<label>`` (recall, mean over the same IoUs), each a mean over the classes that occur in
        the bin, and ``objects_<label>``, the number of objects. A bin without objects has NaN, one
        with objects but no detection has 0.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        detections = _no_detections(coco_gt) if coco_dt is None else coco_dt
        coco_eval = COCOeval(coco_gt, detections, iou_type)
        params = coco_eval.params
        params.maxDets = [max_dets]
        params.areaRng = [size_bin.area_range for size_bin in bins]
        params.areaRngLbl = [size_bin.label for size_bin in bins]
        if img_ids is not None:
            params.imgIds = list(img_ids)
        coco_eval.evaluate()
        coco_eval.accumulate()

    # precision: (IoU, recall, class, size, detections); recall: (IoU, class, size, detections)
    precision, recall = coco_eval.eval["precision"], coco_eval.eval["recall"]
    iou_50 = np.isclose(params.iouThrs, 0.5)
    results = {}
    for a, label in enumerate(params.areaRngLbl):
        results[f"AP_{label}"] = _mean_percent(precision[:, :, :, a])
        results[f"AP50_{label}"] = _mean_percent(precision[iou_50][:, :, :, a])
        results[f"AR_{label}"] = _mean_percent(recall[:, :, a])
        results[f"objects_{label}"] = _count_objects(coco_eval, params.areaRng[a])
    return results


def _mean_percent(values: np.ndarray) -> float:
    # pycocotools marks classes without an object by -1.
    values = values[values > -1]
    return float(values.mean() * 100) if values.size else math.nan


def _count_objects(coco_eval: COCOeval, area_range: list[float]) -> int:
    return sum(
        int(np.count_nonzero(image["gtIgnore"] == 0))
        for image in coco_eval.evalImgs
        if image is not None and image["aRng"] == area_range
    )


def _no_detections(coco_gt: COCO) -> COCO:
    # loadRes refuses an empty list.
    coco_dt = COCO()
    coco_dt.dataset = {**coco_gt.dataset, "annotations": []}
    coco_dt.createIndex()
    return coco_dt
