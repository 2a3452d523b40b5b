"""Evaluator for Tsinghua-Tencent 100K."""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from efpn_d2.data.converters.tt100k import EVALUATED_CLASSES
from efpn_d2.evaluation.boxes import image_boxes
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator, percent_cell, pipe_table
from efpn_d2.evaluation.tt100k import (
    IOU_THRESHOLD,
    SIZE_BINS,
    SIZE_RULES,
    OperatingPoint,
    ScoreSweep,
    sweep_scores,
)
from efpn_d2.utils.run_record import write_record

logger = logging.getLogger(__name__)


class TT100KEvaluator(ProtocolEvaluator):
    """Accuracy, recall and F1 by the rules of :mod:`efpn_d2.evaluation.tt100k`.

    The results have one task for each size rule, "tt100k_long_side" (the dataset's own) and
    "tt100k_sqrt_area", with numbers like "recall_small_at_0.4" and, at the threshold of the best F1
    in that bin, "F1_small_best", in percent; NaN where there is no object. With ``output_dir``, the
    curves are written to ``accuracy_recall_<dataset>.json`` in it.
    """

    def __init__(
        self,
        dataset_name: str,
        *args: Any,
        classes: Sequence[str] = (),
        score_thresholds: Sequence[float] = (0.4,),
        **kwargs: Any,
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset.
            args: see :class:`COCOEvaluator`.
            classes: names of the evaluated classes; default ``evaluated_classes`` of the metadata,
                else the 45 classes of the first release whose classes are all in the dataset.
            score_thresholds: in [0, 1]; 0.4 is the default of the dataset's tools.
            kwargs: see :class:`COCOEvaluator`.

        Raises:
            ValueError: if the dataset lacks an evaluated class.
        """
        super().__init__(dataset_name, *args, **kwargs)
        self._score_thresholds = list(score_thresholds)
        ids = {name: category_id for category_id, name in self._class_names().items()}
        names = list(classes) or self._metadata.get("evaluated_classes")
        self._classes = list(names or _classes_of_release(ids, dataset_name))
        missing = [name for name in self._classes if name not in ids]
        if missing:
            raise ValueError(
                f"Dataset '{dataset_name}' does not have the evaluated classes "
                f"{', '.join(missing)}: correct EVALUATION.CLASSES or the metadata's "
                "evaluated_classes."
            )
        self._class_ids = [ids[name] for name in self._classes]

    def rules(self) -> dict[str, Any]:
        """Return the classes, thresholds, size bins and size rules."""
        return {
            "protocol": "tt100k",
            "maxDets": "no limit",
            "IoU": f"above {IOU_THRESHOLD}, highest IoU first",
            "bins in pixels": {name: list(edges) for name, edges in SIZE_BINS.items()},
            "size rules": list(SIZE_RULES),
            "classes": self._classes,
            "score thresholds": self._score_thresholds,
            "backend": "numpy",
        }

    def evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """Evaluate boxes by each size rule; see the base class."""
        images = [
            (image_boxes(a for a in annotations if not a.get("iscrowd", 0)), image_boxes(found))
            for _, annotations, found in self._records_by_image(results, img_ids)
        ]
        metrics, curves = {}, {}
        for rule in SIZE_RULES:
            sweeps = sweep_scores(images, self._class_ids, rule)
            metrics[f"tt100k_{rule}"] = self._metrics(rule, sweeps)
            curves[rule] = {name: _curve(sweep) for name, sweep in sweeps.items()}
        numbers = {"classes": len(self._classes), "IoU": IOU_THRESHOLD, "images": len(images)}
        metrics["tt100k_protocol"] = {key: float(value) for key, value in numbers.items()}
        if self._output_dir:
            name = f"accuracy_recall_{self._dataset_name.replace('/', '_')}.json"
            content = {"data set": self._dataset_name, "rules": self.rules(), "curves": curves}
            write_record(os.path.join(self._output_dir, name), content)
        return metrics

    def _metrics(self, rule: str, sweeps: dict[str, ScoreSweep]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        rows = []
        for name, sweep in sweeps.items():
            points = {f"at_{t:g}": sweep.at(t) for t in self._score_thresholds}
            points["best"] = sweep.best()
            for suffix, point in points.items():
                values = _percentages(point, sweep.objects)
                metrics |= {f"{key}_{name}_{suffix}": value for key, value in values.items()}
                cells = [percent_cell(value, sweep.objects) for value in values.values()]
                low, high = SIZE_BINS[name]
                threshold = f"{point.threshold:.4g}" + " (best F1)" * (suffix == "best")
                size = f"{name} [{low}, {high})"
                rows.append([size, f"{sweep.objects}", threshold, *cells])
            metrics[f"threshold_{name}_best"] = points["best"].threshold
            metrics[f"objects_{name}"] = sweep.objects
        headers = [f"{rule} [px]", "objects", "score threshold", "accuracy", "recall", "F1"]
        logger.info(
            f"Evaluation results by the protocol tt100k, size rule {rule}, {len(self._classes)} "
            f"classes, IoU > {IOU_THRESHOLD}, all detections:\n{pipe_table(rows, headers)}"
        )
        return metrics


def _classes_of_release(ids: dict[str, int], dataset_name: str) -> Sequence[str]:
    for classes in EVALUATED_CLASSES.values():
        if ids.keys() >= set(classes):
            return classes
    raise ValueError(
        f"Dataset '{dataset_name}' has the 45 evaluated classes of neither release of TT100K: "
        "list the classes to evaluate in EVALUATION.CLASSES."
    )


def _percentages(point: OperatingPoint, objects: int) -> dict[str, float]:
    values = {"accuracy": point.accuracy, "recall": point.recall, "F1": point.f1}
    return {key: 100 * value if objects else float("nan") for key, value in values.items()}


def _curve(sweep: ScoreSweep) -> dict[str, list[float]]:
    recall, accuracy = sweep.curve()
    return {"recall": recall.tolist(), "accuracy": accuracy.tolist()}
