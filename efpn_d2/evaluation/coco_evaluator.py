"""COCO evaluation by protocols with their own object sizes and limits."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

from efpn_d2.evaluation.coco_backends import backend_version, choose_backend
from efpn_d2.evaluation.coco_metrics import CocoResult, evaluate_coco
from efpn_d2.evaluation.coco_protocols import PRESETS, CocoProtocol
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator, percent_cell, pipe_table
from efpn_d2.evaluation.size_bins import size_bins

logger = logging.getLogger(__name__)


class SizeBinnedCOCOEvaluator(ProtocolEvaluator):
    """:class:`COCOEvaluator` by a :class:`CocoProtocol`, with a fast backend where there is one.

    The results of "bbox" and "segm" have the names of
    :meth:`efpn_d2.evaluation.coco_metrics.CocoResult.metrics`, and "AP-<class>". Those of
    "bbox_protocol" and "segm_protocol" say by numbers which rules they are made by. Keypoints are
    evaluated as in the base class.
    """

    def __init__(
        self,
        dataset_name: str,
        *args: Any,
        protocol: CocoProtocol | None = None,
        size_bin_edges: Sequence[float] = (),
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set.
            args, kwargs: see :class:`COCOEvaluator`.
            protocol: the rules; default COCO's, with ``max_dets_per_image`` for AP.
            size_bin_edges: ascending edges of further bins, sqrt(area) in pixels of the annotation,
                half-open; the last bin has no upper end.
            backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.

        Raises:
            ValueError: the edges are not ascending, or there is no such backend.
            ModuleNotFoundError: the backend is not installed.
        """
        bins = size_bins(size_bin_edges)
        self.backend = choose_backend(backend)
        super().__init__(dataset_name, *args, **kwargs)
        if protocol is None:
            limit = self._max_dets_per_image[-1]
            limits = (*(n for n in (1, 10) if n < limit), limit)
            protocol = PRESETS["coco"].changed(max_dets=limits)
        self.protocol = protocol.changed(bins=[size_bin.area_bin for size_bin in bins])

    def rules(self) -> dict[str, Any]:
        """See the base class."""
        areas = {
            b.key or "all": [round(b.low, 6), round(b.high, 6) if b.is_bounded else None]
            for b in self.protocol.areas
        }
        return {
            "protocol": self.protocol.name,
            "maxDets": list(self.protocol.max_dets),
            "IoU": [round(iou, 6) for iou in self.protocol.iou_thresholds],
            "areas in square pixels": areas,
            "backend": backend_version(self.backend),
            "notes": list(self.protocol.notes),
        }

    def evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """See the base class."""
        metrics = {}
        for task in (task for task in self._found_tasks if task != "keypoints"):
            result = evaluate_coco(
                self._coco_api.dataset,
                results,
                self.protocol,
                task,
                backend=self.backend,
                img_ids=img_ids,
            )
            metrics[task] = self._metrics(task, result)
            metrics[f"{task}_protocol"] = self._rules_as_numbers()
        return metrics

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        # Here, for the evaluation of keypoints gives every result a mask.
        self._found_tasks = self._tasks_of(predictions)
        return [task for task in self._found_tasks if task == "keypoints"]

    def _metrics(self, task: str, result: CocoResult) -> dict[str, float]:
        metrics = result.metrics()
        rules = self.protocol.describe(backend_version(self.backend))
        logger.info(f"Evaluation results for {task}, {rules}:\n{_table(result, metrics)}")
        names = self._metadata.get("thing_classes")
        if names is None or len(names) <= 1:
            return metrics
        if len(set(names)) < len(names):
            # Of a loader that leaves equal names equal: one would replace the other.
            names = list(self._class_names().values())
        per_class = result.class_precision().tolist()
        # NaN is the AP of a class without an object.
        rows = [
            [name, percent_cell(ap, int(not math.isnan(ap)))]
            for name, ap in zip(names, per_class, strict=True)
        ]
        logger.info(f"AP of {task} by class:\n{pipe_table(rows, ['class', 'AP'])}")
        # Detectron2 leaves names with a "-" out of the lines that it prints for spreadsheets.
        return metrics | {f"AP-{name}": ap for name, ap in zip(names, per_class, strict=True)}

    def _rules_as_numbers(self) -> dict[str, float]:
        """The rules as Detectron2 takes results: numbers, so none for an edge that is not there."""
        ious = self.protocol.iou_thresholds
        rows: dict[str, float] = {"maxDets": self.protocol.max_dets[-1], "IoU_count": len(ious)}
        rows |= {
            "IoU_min": round(ious[0], 6),
            "IoU_max": round(ious[-1], 6),
            f"backend_{self.backend}": 1,
        }
        for area in self.protocol.areas:
            key = area.key or "all"
            rows[f"min_area_{key}"] = round(area.low, 6)
            if area.is_bounded:
                rows[f"max_area_{key}"] = round(area.high, 6)
        # A "-" would hide the backend; see above.
        return {name.replace("-", "_"): float(value) for name, value in rows.items()}


def _table(result: CocoResult, metrics: dict[str, float]) -> str:
    protocol = result.protocol
    ious = sorted({iou for area in protocol.areas for iou in area.ious})
    columns = ["AP", *(f"AP{100 * iou:.0f}" for iou in ious)]
    rows = []
    for area, objects in zip(protocol.areas, result.objects, strict=True):
        recall = f"AR{area.name}" if area.name else f"AR{protocol.max_dets[-1]}"
        names = [*(f"{column}{area.name}" for column in columns), recall]
        cells = [percent_cell(metrics[name], objects) if name in metrics else "" for name in names]
        rows.append([area.key or "all", area.text(math.sqrt), f"{objects:d}", *cells])
    headers = ["size", "sqrt(area) [px]", "objects", *columns, "AR"]
    table = pipe_table(rows, headers)
    names = [f"AR{n}" for n in protocol.max_dets]
    names += [name for name in metrics if name.startswith("oLRP")]
    rest = [f"{name} {percent_cell(metrics[name], int(result.objects[0]))}" for name in names]
    return f"{table}\n{', '.join(rest)}"
