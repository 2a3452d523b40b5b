"""Metrics of the COCO family by any :class:`CocoProtocol`, on COCO-format data."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from efpn_d2.data.coco.record_checks import (
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
from efpn_d2.evaluation.coco_protocols import CocoProtocol
from efpn_d2.evaluation.metric_specs import CocoSlice, mean_percent, metric_specs
from efpn_d2.evaluation.olrp import OptimalLRP, optimal_lrp


@dataclass(frozen=True)
class CocoResult:
    """Result of an evaluation for T IoU thresholds, K categories, A areas and M limits.

    Attributes:
        protocol: the rules.
        backend: name of the library that computed the result.
        precision: (T, 101, K, A, M), interpolated; NaN for a category without objects.
        recall: (T, K, A, M); NaN for a category without objects.
        objects: (A,) number of objects in each of the protocol's ``areas``, without crowds.
        olrp: None unless the protocol includes it.
    """

    protocol: CocoProtocol
    backend: str
    precision: np.ndarray
    recall: np.ndarray
    objects: np.ndarray
    olrp: OptimalLRP | None = None

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name in percent, NaN where there is no object.

        They are those of :func:`efpn_d2.evaluation.metric_specs.metric_specs`, oLRP, and the
        numbers of objects, such as "objects_s". "AP" is the mean over IoU thresholds and
        categories, "AP50" the AP at IoU 0.5, "APs" the AP in a bin; "AR10" is the recall with 10
        detections per image and category, "ARs" the recall in a bin with the protocol's last limit.
        """
        rows: dict[str, float] = {}
        specs = metric_specs(self.protocol)
        for _, family in groupby(specs, key=lambda spec: spec.family or spec.name):
            members = list(family)
            for a, area in enumerate(self.protocol.areas):
                part = self.part(a)
                rows |= {s.key(area): float(s.value(part)) for s in members if s.is_reported(area)}
        if self.olrp is not None:
            rows |= self.olrp.means()
        for area, count in zip(self.protocol.areas, self.objects, strict=True):
            rows[f"objects_{area.key}" if area.key else "objects"] = int(count)
        return rows

    def part(self, area: int = 0, class_index: int | None = None) -> CocoSlice:
        """Return the numbers of one of the protocol's ``areas``, for one category or all."""
        precision, recall = self.precision[:, :, :, area], self.recall[:, :, area]
        if class_index is not None:
            precision, recall = precision[:, :, [class_index]], recall[:, [class_index]]
        return CocoSlice(self.protocol, self.protocol.areas[area], precision, recall)

    def class_precision(self) -> np.ndarray:
        """Return (K,) AP of each category in percent, over all sizes."""
        categories = range(self.precision.shape[2])
        return np.array([mean_percent(self.part(0, k).precision[..., -1]) for k in categories])


def evaluate_coco(
    dataset: dict[str, Any],
    results: Sequence[dict[str, Any]],
    protocol: CocoProtocol,
    iou_type: str = "bbox",
    *,
    backend: str = "auto",
    img_ids: Iterable[Any] | None = None,
    is_checked: bool = False,
) -> CocoResult:
    """Evaluate detections by a protocol.

    Sizes follow COCO's rule: an object has the size of its annotated ``area`` (that of the mask, if
    there are masks, also for boxes). An unmatched detection is a false positive in the bin of its
    own size (width * height for "bbox", area of the mask for "segm").

    Args:
        dataset: content of a COCO JSON.
        results: detections in COCO format, in any order; ties in score keep their order.
        protocol: the rules.
        iou_type: "bbox" or "segm". oLRP is computed for boxes only.
        backend: see :func:`choose_backend`.
        img_ids: images to evaluate; default all, including those without detections.
        is_checked: whether the records of the dataset have already been checked.

    Raises:
        ValueError: if a field of a record of the dataset or of a result is missing or invalid (e.g.
            NaN), or the image or category of a result is not in the dataset; the message names the
            first one.
    """
    backend = choose_backend(backend)
    if not is_checked:
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
    check_content(dataset, "the dataset", **lists)


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
                f"The results have the {key} {min(unknown, key=str)!r}, which is not in the "
                f"dataset ({len(unknown)} such ids): use the dataset on which they were computed."
            )


def _selected(
    dataset: dict[str, Any], protocol: CocoProtocol, img_ids: Iterable[Any] | None
) -> dict[str, Any]:
    """Return the evaluated images, with annotations that the protocol marks marked as crowds."""
    images = dataset["images"]
    if img_ids is not None:
        chosen = set(img_ids)
        images = [image for image in images if image["id"] in chosen]
    annotations = dataset["annotations"]
    if protocol.ignore_fields:
        annotations = [
            _as_crowd(a) if any(a.get(field) for field in protocol.ignore_fields) else a
            for a in annotations
        ]
    known = {image["id"] for image in images}
    annotations = [a for a in annotations if a["image_id"] in known]
    return {**dataset, "images": images, "annotations": annotations}


def _runs(
    dataset: dict[str, Any], protocol: CocoProtocol
) -> list[tuple[dict[str, Any], tuple[tuple[float, float], ...]]]:
    """Return the datasets to evaluate, each with the area ranges that are read from it."""
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
