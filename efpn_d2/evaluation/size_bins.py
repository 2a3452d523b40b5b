"""COCO's average precision and recall in custom object-size bins."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycocotools.coco import COCO

from efpn_d2.evaluation.coco_metrics import evaluate_coco
from efpn_d2.evaluation.coco_protocols import AreaBin, CocoProtocol
from efpn_d2.evaluation.metric_specs import metric_specs
from efpn_d2.utils.size_labels import size_label


@dataclass(frozen=True)
class SizeBin:
    """Objects with ``low <= sqrt(area) < high``, in pixels of the annotation."""

    low: float
    high: float

    @property
    def label(self) -> str:
        """The bin in metric names, e.g. ``8_16``."""
        return size_label(self.low, self.high, "key")

    @property
    def area_range(self) -> list[float]:
        """The bin in pycocotools' form: squared, closed at both ends."""
        # pycocotools includes areas equal to the upper end; here they belong to the next bin.
        return [self.low**2, math.nextafter(self.high**2, 0.0)]

    @property
    def area_bin(self) -> AreaBin:
        """The bin as an :class:`AreaBin`."""
        low, high = self.area_range
        return AreaBin(f"_{self.label}", low, high, ious=(0.5,))


def size_bins(edges: Sequence[float]) -> list[SizeBin]:
    """Build the bins between ascending edges, and one from the last edge on.

    Raises:
        ValueError: if the edges are not ascending or negative.
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

    Sizes are defined as in :func:`evaluate_coco`. Objects outside the bin and crowds are ignored.

    Args:
        coco_gt: ground truth.
        coco_dt: detections, from ``coco_gt.loadRes``; None: no detections.
        iou_type: "bbox" or "segm".
        bins: the size bins.
        max_dets: limit of detections per image and class, best scores first.
        img_ids: images to evaluate; default all.

    Returns:
        For each bin, in percent, ``AP_<label>`` (mean over IoU 0.5:0.95), ``AP50_<label>``,
        ``AR_<label>`` (recall, mean over the same IoUs) and registered metrics, each a mean over
        the classes in the bin, and ``objects_<label>``, the number of objects. The metrics are NaN
        for a bin without objects, and 0 for one with objects but no detections.
    """
    area_bins = tuple(size_bin.area_bin for size_bin in bins)
    protocol = CocoProtocol("size bins", area_bins, max_dets=(max_dets,))
    results = [] if coco_dt is None else coco_dt.dataset["annotations"]
    metrics = evaluate_coco(coco_gt.dataset, results, protocol, iou_type, img_ids=img_ids).metrics()
    specs = [spec for spec in metric_specs(protocol) if spec.by_size]
    rows: dict[str, float] = {}
    for area in area_bins:
        rows |= {s.key(area): metrics[s.key(area)] for s in specs if s.is_reported(area)}
        rows[f"objects{area.name}"] = metrics[f"objects{area.name}"]
    return rows
