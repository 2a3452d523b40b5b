"""COCO evaluation by protocols with their own object sizes and limits of detections."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

from efpn_d2.data.coco.record_checks import MASK, NUMBER, Field, check_records
from efpn_d2.evaluation.coco_backends import backend_version, choose_backend
from efpn_d2.evaluation.coco_metrics import CocoResult, evaluate_coco
from efpn_d2.evaluation.coco_protocols import COCO_PROTOCOLS, CocoProtocol
from efpn_d2.evaluation.metric_specs import metric_specs
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator, percent_cell, pipe_table
from efpn_d2.evaluation.size_bins import size_bins

logger = logging.getLogger(__name__)


class SizeBinnedCOCOEvaluator(ProtocolEvaluator):
    """:class:`COCOEvaluator` by a :class:`CocoProtocol`, with a fast backend if one is installed.

    The results of "bbox" and "segm" are those of
    :meth:`efpn_d2.evaluation.coco_metrics.CocoResult.metrics` and "AP-<class>". Those of
    "bbox_protocol" and "segm_protocol" encode the rules as numbers. Keypoints are evaluated as in
    the base class.

    Attributes:
        protocol: the rules.
        coco_results: results of the last evaluation by task ("bbox", "segm").
    """

    annotation_fields = (*ProtocolEvaluator.annotation_fields, Field("area", NUMBER))

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
            dataset_name: a registered dataset.
            args: see :class:`COCOEvaluator`.
            protocol: the rules; default COCO's, with ``max_dets_per_image`` for AP.
            size_bin_edges: ascending edges of further half-open bins of sqrt(annotated area) in
                pixels; the last bin has no upper end.
            backend: see :func:`efpn_d2.evaluation.coco_backends.choose_backend`.
            kwargs: see :class:`COCOEvaluator`.

        Raises:
            ValueError: if the edges are not ascending, or the backend is unknown.
            ModuleNotFoundError: if the backend is not installed.
        """
        bins = size_bins(size_bin_edges)
        self.backend = choose_backend(backend)
        super().__init__(dataset_name, *args, **kwargs)
        if protocol is None:
            limit = self._max_dets_per_image[-1]
            limits = (*(n for n in (1, 10) if n < limit), limit)
            protocol = COCO_PROTOCOLS["coco"].changed(max_dets=limits)
        self.coco_results: dict[str, CocoResult] = {}
        self.protocol = protocol.changed(bins=[size_bin.area_bin for size_bin in bins])

    def rules(self) -> dict[str, Any]:
        """Return the protocol, its limits, thresholds and areas, and the backend."""
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
        """Evaluate boxes and masks; see the base class."""
        metrics = {}
        self.coco_results = {}
        for task in (task for task in self._found_tasks if task != "keypoints"):
            if task == "segm":  # not yet known when the file was checked
                where = f"annotations[{{}}] of {self._metadata.json_file}"
                check_records(self.dataset["annotations"], where, [Field("segmentation", MASK)])
            self.coco_results[task] = result = evaluate_coco(
                self.dataset,
                results,
                self.protocol,
                task,
                backend=self.backend,
                img_ids=img_ids,
                is_checked=True,
            )
            metrics[task] = self._metrics(task, result)
            metrics[f"{task}_protocol"] = self._rules_as_numbers()
        return metrics

    def _tasks_from_predictions(self, predictions: list[dict[str, Any]]) -> list[str]:
        # Determined before the evaluation of keypoints, which adds a mask to every result.
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
            # The dataset's loader keeps duplicate names; one result would overwrite the other.
            names = list(self._class_names().values())
        per_class = result.class_precision().tolist()
        # NaN is the AP of a class without an object.
        rows = [
            [name, percent_cell(ap, int(not math.isnan(ap)))]
            for name, ap in zip(names, per_class, strict=True)
        ]
        logger.info(f"AP of {task} by class:\n{pipe_table(rows, ['class', 'AP'])}")
        # Detectron2 omits names with a "-" from the lines that it prints for spreadsheets.
        return metrics | {f"AP-{name}": ap for name, ap in zip(names, per_class, strict=True)}

    def _rules_as_numbers(self) -> dict[str, float]:
        """Return the rules as numbers, as Detectron2 expects; missing edges are omitted."""
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
        # A name with a "-" would be omitted; see above.
        return {name.replace("-", "_"): float(value) for name, value in rows.items()}


def _table(result: CocoResult, metrics: dict[str, float]) -> str:
    protocol, overall = result.protocol, result.protocol.overall
    specs = metric_specs(protocol)
    columns = [spec for spec in specs if spec.by_size]
    rows = []
    for area, objects in zip(protocol.areas, result.objects, strict=True):
        names = [spec.key(area) for spec in columns]
        cells = [percent_cell(metrics[name], objects) if name in metrics else "" for name in names]
        rows.append([area.key or "all", area.text(math.sqrt), f"{objects:d}", *cells])
    headers = ["size", "sqrt(area) [px]", "objects", *(spec.name for spec in columns)]
    table = pipe_table(rows, headers)
    names = [s.key(overall) for s in specs if not s.by_size or s.key(overall) != s.name]
    names += [name for name in metrics if name.startswith("oLRP")]
    rest = [f"{name} {percent_cell(metrics[name], int(result.objects[0]))}" for name in names]
    return f"{table}\n{', '.join(rest)}"
