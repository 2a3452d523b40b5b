"""COCO's average precision and recall in object-size bins of one's own."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycocotools.coco import COCO

from efpn_d2.evaluation.coco_metrics import evaluate_coco
from efpn_d2.evaluation.coco_protocols import AreaBin, CocoProtocol


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

    @property
    def area_bin(self) -> AreaBin:
        """The bin as protocols have it."""
        low, high = self.area_range
        return AreaBin(f"_{self.label}", low, high, ious=(0.5,))


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
    area_bins = tuple(size_bin.area_bin for size_bin in bins)
    protocol = CocoProtocol("size bins", area_bins, max_dets=(max_dets,))
    results = [] if coco_dt is None else coco_dt.dataset["annotations"]
    metrics = evaluate_coco(coco_gt.dataset, results, protocol, iou_type, img_ids=img_ids).metrics()
    names = [f"{metric}_{b.label}" for b in bins for metric in ("AP", "AP50", "AR", "objects")]
    return {name: metrics[name] for name in names}
