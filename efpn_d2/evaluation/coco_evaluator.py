"""COCO evaluation with object-size bins of one's own."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from detectron2.evaluation import COCOEvaluator
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from .size_bins import SizeBin, evaluate_size_bins, size_bins

logger = logging.getLogger(__name__)


class SizeBinnedCOCOEvaluator(COCOEvaluator):
    """:class:`COCOEvaluator` that also reports AP, AP50 and AR per object-size bin.

    The results of "bbox" and "segm" gain the keys of
    :func:`efpn_d2.evaluation.size_bins.evaluate_size_bins`, e.g. "AP_8_16" for objects with
    8 <= sqrt(area) < 16 pixels. Everything else is as in the base class.
    """

    def __init__(
        self,
        dataset_name: str,
        *args: Any,
        size_bin_edges: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set.
            args, kwargs: see :class:`COCOEvaluator`.
            size_bin_edges: ascending edges of the bins in pixels, the last bin has no upper end.

        Raises:
            ValueError: the edges are not ascending.
        """
        self._bins = size_bins(size_bin_edges)
        super().__init__(dataset_name, *args, **kwargs)
        self._img_ids: list[int] | None = None

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None
    ) -> None:
        self._img_ids = img_ids
        super()._eval_predictions(predictions, img_ids=img_ids)

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if not self._bins or iou_type == "keypoints":
            return results
        binned = evaluate_size_bins(
            self._coco_api,
            None if coco_eval is None else coco_eval.cocoDt,
            iou_type,
            self._bins,
            max_dets=self._max_dets_per_image[-1],
            img_ids=self._img_ids,
        )
        logger.info(f"Evaluation results for {iou_type} by size:\n{_table(binned, self._bins)}")
        return {**results, **binned}


def _table(results: dict[str, float], bins: Sequence[SizeBin]) -> str:
    def row(size_bin: SizeBin) -> list[str]:
        """One line of the table."""
        count = results[f"objects_{size_bin.label}"]
        values = [results[f"{metric}_{size_bin.label}"] for metric in ("AP", "AP50", "AR")]
        cells = ["n/a (0 objects)" if math.isnan(v) else f"{v:.3f}" for v in values]
        return [f"[{size_bin.low:g}, {size_bin.high:g})", f"{count:d}", *cells]

    return tabulate(
        [row(size_bin) for size_bin in bins],
        headers=["sqrt(area) [px]", "objects", "AP", "AP50", "AR"],
        tablefmt="pipe",
        disable_numparse=True,
    )
