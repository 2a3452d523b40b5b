"""Evaluator for VisDrone-DET."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from efpn_d2.evaluation.boxes import image_boxes
from efpn_d2.evaluation.protocol_evaluator import ProtocolEvaluator, percent_cell, pipe_table
from efpn_d2.evaluation.visdrone import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    VisDroneImage,
    VisDroneResult,
    evaluate_visdrone,
)

logger = logging.getLogger(__name__)

_IGNORED_REGION, _OTHERS = 0, 11
# Whether the mean of each metric suffix is weighted by images.
_MEANS = {"official": True, "class_mean": False}


class VisDroneEvaluator(ProtocolEvaluator):
    """AP and AR by the rules of :mod:`efpn_d2.evaluation.visdrone`.

    The results of "visdrone" have each number twice, in percent: "AP_official" is the toolkit's
    mean, which weights each class by the number of images with it, "AP_class_mean" the plain mean.

    The evaluator reads the benchmark's ``visdrone_category`` (0 to 11) and ``visdrone_score`` of
    annotations, which prepared datasets have. In a file without them, crowds are the ignored
    regions, and all other boxes are counted.
    """

    def rules(self) -> dict[str, Any]:
        """Return the limits, thresholds and definitions of the means."""
        return {
            "protocol": "visdrone",
            "maxDets": list(MAX_DETECTIONS),
            "limit": "per image across classes",
            "IoU": IOU_THRESHOLDS.round(2).tolist(),
            "bins": "none",
            "backend": "numpy",
            "means": {
                "official": "classes weighted by the images that have them",
                "class_mean": "plain mean over the classes",
            },
        }

    def evaluate_results(
        self, results: list[dict[str, Any]], img_ids: Iterable[Any] | None
    ) -> dict[str, dict[str, float]]:
        """Evaluate boxes; see the base class."""
        classes = sorted(self._coco_api.cats)
        images = (_image(*records) for records in self._records_by_image(results, img_ids))
        result = evaluate_visdrone(images, classes)
        metrics = {}
        for suffix, by_images in _MEANS.items():
            for name, values in _values(result).items():
                metrics[f"{name}_{suffix}"] = 100 * result.mean(values, by_images=by_images)
        metrics["objects"] = int(result.objects.sum())
        self._log(metrics)
        per_class = np.where(result.images > 0, 100 * result.precision.mean(axis=1), np.nan)
        names = [self._class_names()[label] for label in classes]
        rows = [
            [name, f"{images}", f"{objects}", percent_cell(ap, images)]
            for name, images, objects, ap in zip(
                names, result.images, result.objects, per_class, strict=True
            )
        ]
        logger.info(f"By class:\n{pipe_table(rows, ['class', 'images', 'objects', 'AP'])}")
        metrics |= {f"AP-{n}": ap for n, ap in zip(names, per_class.tolist(), strict=True)}
        numbers = {"maxDets": MAX_DETECTIONS[-1], "IoU_count": len(IOU_THRESHOLDS)}
        numbers |= {"IoU_min": IOU_THRESHOLDS[0], "IoU_max": IOU_THRESHOLDS[-1]}
        rules = {key: float(value) for key, value in numbers.items()}
        return {"visdrone": metrics, "visdrone_protocol": rules}

    def _log(self, metrics: dict[str, float]) -> None:
        names = [name.removesuffix("_official") for name in metrics if name.endswith("_official")]
        rows = [
            [name, *(percent_cell(metrics[f"{name}_{s}"], metrics["objects"]) for s in _MEANS)]
            for name in names
        ]
        logger.info(
            "Evaluation results by the protocol visdrone, at most "
            f"{MAX_DETECTIONS[-1]} detections per image across classes, IoU 0.5 to 0.95, "
            f"{metrics['objects']} objects:\n"
            + pipe_table(rows, ["", "official (weighted by images)", "mean over classes"])
        )


def _values(result: VisDroneResult) -> dict[str, np.ndarray]:
    values = {"AP": result.precision}
    for iou in (0.5, 0.75):
        values[f"AP{100 * iou:.0f}"] = result.precision[:, np.isclose(IOU_THRESHOLDS, iou)]
    for m, limit in enumerate(MAX_DETECTIONS):
        values[f"AR{limit}"] = result.recall[:, :, m]
    return values


def _image(
    image: dict[str, Any], annotations: list[dict[str, Any]], found: list[dict[str, Any]]
) -> VisDroneImage:
    kinds = [_category(annotation) for annotation in annotations]
    objects = [
        annotation
        for annotation, kind in zip(annotations, kinds, strict=True)
        if kind not in (_IGNORED_REGION, _OTHERS)
    ]
    regions = [
        annotation
        for annotation, kind in zip(annotations, kinds, strict=True)
        if kind == _IGNORED_REGION
    ]
    return VisDroneImage(
        image_boxes(objects),
        np.array([a.get("visdrone_score", 1) == 0 for a in objects], dtype=bool),
        # A converter may repeat a region for each class.
        np.unique(image_boxes(regions).boxes, axis=0),
        image_boxes(found),
        image["height"],
        image["width"],
    )


def _category(annotation: dict[str, Any]) -> int | None:
    """Return the benchmark's category; without it, None for all but ignored regions."""
    if "visdrone_category" in annotation:
        return annotation["visdrone_category"]
    return _IGNORED_REGION if annotation.get("iscrowd", 0) else None
