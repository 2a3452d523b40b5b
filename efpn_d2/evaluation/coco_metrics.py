"""Metrics of the COCO family by any :class:`CocoProtocol`, in numpy and COCO's formats alone."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from efpn_d2.data.datasets.record_checks import (
    ANNOTATION,
    CATEGORY,
    FLAG,
    IMAGE,
    MASK,
    NUMBER,
    RESULT,
    SIZE,
    Field,
    check_content,
    check_records,
)
from efpn_d2.evaluation.boxes import ImageBoxes, image_boxes
from efpn_d2.evaluation.coco_backends import CocoSettings, accumulate, choose_backend
from efpn_d2.evaluation.coco_protocols import AreaBin, CocoProtocol
from efpn_d2.evaluation.olrp import OptimalLRP, optimal_lrp


@dataclass(frozen=True)
class CocoResult:
    """What an evaluation gives for T thresholds, K categories, A areas and M limits.

    Attributes:
        protocol: the rules.
        backend: what computed it.
        precision: (T, 101, K, A, M), interpolated; NaN for a category without an object.
        recall: (T, K, A, M), likewise.
        objects: (A,) objects of each of the protocol's ``areas``, crowds not counted.
        olrp: None unless the protocol asks for it.
    """

    protocol: CocoProtocol
    backend: str
    precision: np.ndarray
    recall: np.ndarray
    objects: np.ndarray
    olrp: OptimalLRP | None = None

    def metrics(self) -> dict[str, float]:
        """By name and in percent, NaN where there is no object.

        "AP" is the mean over IoU thresholds and categories, "AP50" that at IoU 0.5, "APs" that of
        a bin; "AR10" the recall with 10 detections per image and category, "ARs" that of a bin
        with all that count; "objects_s" the number of objects, not a percentage.
        """
        rows: dict[str, float] = {}
        for a, area in enumerate(self.protocol.areas):
            rows |= self._precisions(a, area)
        for m, limit in enumerate(self.protocol.max_dets):
            rows[f"AR{limit}"] = _mean_percent(self.recall[:, :, 0, m])
        for a, area in enumerate(self.protocol.bins, start=1):
            rows[f"AR{area.name}"] = _mean_percent(self.recall[:, :, a, -1])
        if self.olrp is not None:
            rows |= self.olrp.means()
        for area, count in zip(self.protocol.areas, self.objects, strict=True):
            rows[f"objects_{area.key}" if area.key else "objects"] = int(count)
        return rows

    def class_precision(self) -> np.ndarray:
        """(K,) AP of each category in percent, over all sizes."""
        return np.array([_mean_percent(x) for x in np.moveaxis(self.precision[..., 0, -1], 2, 0)])

    def _precisions(self, a: int, area: AreaBin) -> dict[str, float]:
        values = self.precision[:, :, :, a, -1]
        rows = {f"AP{area.name}": _mean_percent(values)}
        for iou in area.ious:
            at = np.isclose(self.protocol.iou_thresholds, iou)
            if at.any():
                rows[f"AP{100 * iou:.0f}{area.name}"] = _mean_percent(values[at])
        return rows


def evaluate_coco(
    dataset: dict[str, Any],
    results: Sequence[dict[str, Any]],
    protocol: CocoProtocol,
    iou_type: str = "bbox",
    *,
    backend: str = "auto",
    img_ids: Iterable[Any] | None = None,
) -> CocoResult:
    """Evaluate detections.

    COCO's own rule says which size counts: an object's is its annotated ``area`` (the mask's,
    where there are masks, also for boxes); a detection that matches no object counts as false in
    the bin of its own size (width * height for "bbox", the mask's for "segm").

    Args:
        dataset: the content of a COCO JSON.
        results: detections in COCO's format, in any order; of equal scores the first comes first.
        protocol: the rules.
        iou_type: "bbox" or "segm". oLRP is computed for boxes only.
        backend: see :func:`choose_backend`.
        img_ids: images to evaluate; default all, also those without detections.

    Raises:
        ValueError: a record of the data set or a result lacks what is read, or holds something else
            such as NaN, or a result is of an image or category that the data set does not have; the
            message names the first by its index.
    """
    backend = choose_backend(backend)
    _check_dataset(dataset, iou_type)
    _check_results(dataset, results, iou_type)
    dataset = _selected(dataset, protocol, img_ids)
    runs = _runs(dataset, protocol)
    parts = [
        accumulate(
            run_dataset,
            results,
            CocoSettings(iou_type, protocol.iou_thresholds, protocol.max_dets, ranges),
            backend,
        )
        for run_dataset, ranges in runs
    ]
    precision = np.concatenate([p for p, _ in parts], axis=3)
    recall = np.concatenate([r for _, r in parts], axis=2)
    olrp = None
    if protocol.olrp and iou_type == "bbox":
        labels = sorted(category["id"] for category in dataset["categories"])
        images = _by_image(dataset, results)
        olrp = optimal_lrp(images, labels, max_dets=protocol.max_dets[-1])
    counts = _count_objects(dataset, protocol)
    return CocoResult(protocol, backend, precision, recall, counts, olrp)


def _check_dataset(dataset: dict[str, Any], iou_type: str) -> None:
    annotation = [*ANNOTATION, Field("area", NUMBER), Field("iscrowd", FLAG, required=False)]
    image = [*IMAGE]
    if iou_type == "segm":
        image += SIZE
        annotation.append(Field("segmentation", MASK))
    lists = {"images": image, "categories": CATEGORY, "annotations": annotation}
    check_content(dataset, "the data set", **lists)


def _check_results(
    dataset: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str
) -> None:
    fields = [field for field in RESULT if iou_type == "bbox" or field.name != "bbox"]
    if iou_type == "segm":
        fields.append(Field("segmentation", MASK))
    check_records(results, "results[{}]", fields)
    for key, what in (("image_id", "images"), ("category_id", "categories")):
        unknown = {result[key] for result in results} - {entry["id"] for entry in dataset[what]}
        if unknown:
            raise ValueError(
                f"The results have the {key} {min(unknown, key=str)!r}, which the data set does "
                f"not have ({len(unknown)} such ids): use the one that they were made on."
            )


def _selected(
    dataset: dict[str, Any], protocol: CocoProtocol, img_ids: Iterable[Any] | None
) -> dict[str, Any]:
    """The images that are evaluated, with what the protocol excuses marked as crowds."""
    images = dataset["images"]
    if img_ids is not None:
        chosen = set(img_ids)
        images = [image for image in images if image["id"] in chosen]
    annotations = dataset["annotations"]
    if protocol.excused_fields:
        annotations = [
            _as_crowd(a) if any(a.get(field) for field in protocol.excused_fields) else a
            for a in annotations
        ]
    known = {image["id"] for image in images}
    annotations = [a for a in annotations if a["image_id"] in known]
    return {**dataset, "images": images, "annotations": annotations}


def _runs(
    dataset: dict[str, Any], protocol: CocoProtocol
) -> list[tuple[dict[str, Any], tuple[tuple[float, float], ...]]]:
    """Data sets to evaluate, each with the area ranges that are read from it."""
    ranges = tuple((area.low, area.high) for area in protocol.areas)
    if not protocol.excuse_outside:
        return [(dataset, ranges)]
    return [(_excuse_outside(dataset, *area_range), (area_range,)) for area_range in ranges]


def _excuse_outside(dataset: dict[str, Any], low: float, high: float) -> dict[str, Any]:
    annotations = [a if low <= a["area"] <= high else _as_crowd(a) for a in dataset["annotations"]]
    return {**dataset, "annotations": annotations}


def _as_crowd(annotation: dict[str, Any]) -> dict[str, Any]:
    return {**annotation, "iscrowd": 1}


def _by_image(
    dataset: dict[str, Any], results: Sequence[dict[str, Any]]
) -> Iterator[tuple[ImageBoxes, np.ndarray, ImageBoxes]]:
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for records, of_image in ((dataset["annotations"], annotations), (results, found)):
        for record in records:
            of_image[record["image_id"]].append(record)
    for image in dataset["images"]:
        annotated = annotations[image["id"]]
        crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotated], dtype=bool)
        yield image_boxes(annotated), crowd, image_boxes(found[image["id"]])


def _count_objects(dataset: dict[str, Any], protocol: CocoProtocol) -> np.ndarray:
    known = {category["id"] for category in dataset["categories"]}
    area = np.array(
        [
            a["area"]
            for a in dataset["annotations"]
            if not a.get("iscrowd", 0) and a["category_id"] in known
        ],
        dtype=float,
    )
    return np.array([((b.low <= area) & (area <= b.high)).sum() for b in protocol.areas])


def _mean_percent(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean() * 100) if values.size else math.nan
