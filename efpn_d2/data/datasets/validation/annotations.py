"""Checks of a data set's annotations, one after the other."""

from __future__ import annotations

import math
from typing import Any

from .image_files import rotate_points
from .images import CheckedImages
from .report import Report

__all__ = ["AnnotationChecks"]

# Sums of rounded coordinates leave the image by this many pixels without meaning anything.
_ROUNDING = 0.01


class AnnotationChecks:
    """The checks of one data set's annotations; each that is found wrong is reported."""

    def __init__(self, images: CheckedImages, category_ids: set[int], report: Report) -> None:
        """
        Args:
            images: of the data set, checked.
            category_ids: those there are.
            report: findings are added to it.
        """
        self._images = images
        self._category_ids = category_ids
        self._report = report
        self._by_id: dict[Any, dict[str, Any]] = {}
        self._seen_on_merged: set[tuple[Any, ...]] = set()
        self._next_id = 1

    def check(self, annotations: list[Any]) -> list[dict[str, Any]]:
        """The annotations that stay, with ``id``, ``bbox`` (XYWH), ``area`` and ``iscrowd``."""
        ids = [a["id"] for a in annotations if isinstance(a, dict) and _is_int(a.get("id"))]
        self._next_id = max(ids, default=0) + 1
        kept = []
        for number, original in enumerate(annotations):
            if not isinstance(original, dict):
                self._report.add(
                    "invalid_annotation",
                    f"{original!r} is no object",
                    file=self._report.source,
                    field=f"annotations[{number}]",
                    action="dropped",
                )
                continue
            annotation = dict(original)
            source = annotation.pop("_source", (self._report.source, annotation.get("id")))
            if self._check_one(annotation, original, source):
                kept.append(annotation)
        return kept

    def _add(
        self, kind: str, message: str, source: tuple[str, Any], field: str, action: str = "dropped"
    ) -> None:
        file, id = source
        self._report.add(kind, message, file=file, id=id, field=field, action=action)

    def _check_one(
        self, annotation: dict[str, Any], original: dict[str, Any], source: tuple[str, Any]
    ) -> bool:
        """Correct one annotation, a copy of the original, in place; whether it stays."""
        return (
            self._check_references(annotation, source)
            and self._check_id(annotation, original, source)
            and self._check_numbers(annotation, source)
            and self._check_merged(annotation, source)
            and self._check_place(annotation, source)
            and self._complete(annotation, source)
        )

    def _check_references(self, annotation: dict[str, Any], source: tuple[str, Any]) -> bool:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if type(image_id) not in (int, str):
            message = f"image_id is {image_id!r}, but must be the id of an image"
            self._add("invalid_annotation", message, source, "image_id")
            return False
        image_id = annotation["image_id"] = self._images.merged.get(image_id, image_id)
        if image_id in self._images.dropped:
            self._report.dropped_with_image[image_id] += 1
            return False
        if image_id not in self._images.sizes:
            message = f"there is no image with the id {image_id!r}"
            self._add("unknown_image", message, source, "image_id")
            return False
        if not _is_int(category_id) or category_id not in self._category_ids:
            message = f"there is no category with the id {category_id!r}"
            self._add("unknown_category", message, source, "category_id")
            return False
        return True

    def _check_id(
        self, annotation: dict[str, Any], original: dict[str, Any], source: tuple[str, Any]
    ) -> bool:
        id = annotation.get("id")
        if _is_int(id) and id not in self._by_id:
            self._by_id[id] = original
            return True
        if _is_int(id) and self._by_id[id] == original:
            message = "the annotation is there already, with this id and the same content"
            self._add("duplicate_annotation", message, source, "id")
            return False
        annotation["id"] = self._next_id
        self._next_id += 1
        if _is_int(id):
            message = f"the id is used before; this annotation is now {annotation['id']}"
            self._add("duplicate_annotation_id", message, source, "id", "corrected")
        else:
            message = f"its id is {id!r} and was set to {annotation['id']}"
            self._add("invalid_annotation", message, source, "id", "corrected")
        return True

    def _check_numbers(self, annotation: dict[str, Any], source: tuple[str, Any]) -> bool:
        box = annotation.get("bbox")
        if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_number, box)):
            message = f"the box {box!r} is not [x, y, width, height] in finite numbers"
            self._add("invalid_box", message, source, "bbox")
            return False
        if box[2] <= 0 or box[3] <= 0:
            message = f"the box {list(box)} has the width {box[2]} and the height {box[3]}"
            self._add("empty_box", message, source, "bbox")
            return False
        self._check_segmentation(annotation, source)
        if annotation["image_id"] in self._images.rotations:
            _rotate(annotation, *self._images.rotations[annotation["image_id"]])
        return True

    def _check_segmentation(self, annotation: dict[str, Any], source: tuple[str, Any]) -> None:
        """Keep valid polygons: for want of one, Detectron2 would lose the whole annotation."""
        polygons = annotation.get("segmentation")
        if not polygons:
            annotation.pop("segmentation", None)
        elif isinstance(polygons, list):
            valid = [p for p in polygons if _is_polygon(p)]
            if len(valid) < len(polygons):
                message = f"{len(polygons) - len(valid)} of {len(polygons)} polygons have no three "
                message += "points in finite numbers and were removed; the box stays"
                self._add("invalid_segmentation", message, source, "segmentation", "corrected")
            annotation["segmentation"] = valid
            if not valid:
                annotation.pop("segmentation")

    def _check_merged(self, annotation: dict[str, Any], source: tuple[str, Any]) -> bool:
        """On an image that was listed more than once, an object counts once."""
        if annotation["image_id"] not in self._images.merged.values():
            return True
        key = (annotation["image_id"], annotation["category_id"], *annotation["bbox"])
        if key in self._seen_on_merged:
            message = f"the image was listed again with the same box {list(key[2:])}"
            self._add("duplicate_annotation", message, source, "bbox")
            return False
        self._seen_on_merged.add(key)
        return True

    def _check_place(self, annotation: dict[str, Any], source: tuple[str, Any]) -> bool:
        width, height = self._images.sizes[annotation["image_id"]]
        # Integers would be cut to integers again whenever Detectron2 resizes the image.
        box = annotation["bbox"]
        x, y, w, h = annotation["bbox"] = [float(value) for value in box]
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        size = f"the image of {width} x {height} pixels"
        if right <= left or bottom <= top:
            message = f"the box {list(box)} lies outside of {size}"
            self._add("box_outside_image", message, source, "bbox")
            return False
        if max(left - x, top - y, x + w - right, y + h - bottom) > _ROUNDING:
            annotation["bbox"] = [left, top, right - left, bottom - top]
            message = f"the box {list(box)} leaves {size}; it is now {annotation['bbox']}"
            self._add("box_leaves_image", message, source, "bbox", "clipped")
            new_area = annotation["bbox"][2] * annotation["bbox"][3]
            if _is_number(annotation.get("area")):
                # Of a mask it may be less than the box's.
                mask = annotation.get("segmentation")
                annotation["area"] = min(annotation["area"], new_area) if mask else new_area
        return True

    def _complete(self, annotation: dict[str, Any], source: tuple[str, Any]) -> bool:
        """Add what COCO's evaluation reads, and let ``iscrowd`` alone say what is ignored."""
        _, _, width, height = annotation["bbox"]
        area = annotation.get("area")
        if area is None:
            annotation["area"] = width * height
            self._add("area_added", "the area is missing", source, "area", "corrected")
        elif not _is_number(area) or area <= 0:
            annotation["area"] = width * height
            message = f"the area is {area!r} and was set to the box's, {width * height}"
            self._add("invalid_area", message, source, "area", "corrected")
        crowd, ignore = annotation.get("iscrowd", 0), annotation.pop("ignore", 0)
        if crowd not in (0, 1) or ignore not in (0, 1):
            name, value = ("iscrowd", crowd) if crowd not in (0, 1) else ("ignore", ignore)
            message = f"{name} is {value!r}, but must be 0 or 1; the object is ignored"
            self._add("invalid_annotation", message, source, name, "corrected")
            crowd = 1
        elif ignore and not crowd:
            self._add("ignore_to_iscrowd", "ignore is 1", source, "ignore", "corrected")
        annotation["iscrowd"] = int(bool(crowd or ignore))
        return True


def _rotate(annotation: dict[str, Any], orientation: int, size: tuple[int, int]) -> None:
    """Move an annotation with its image. A mask that is run-length encoded is left out."""
    x, y, w, h = annotation["bbox"]
    (x0, y0), (x1, y1) = rotate_points([(x, y), (x + w, y + h)], orientation, size)
    annotation["bbox"] = [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]
    polygons = annotation.pop("segmentation", None)
    if isinstance(polygons, list):
        annotation["segmentation"] = [
            [
                value
                for point in rotate_points(
                    list(zip(polygon[::2], polygon[1::2], strict=True)), orientation, size
                )
                for value in point
            ]
            for polygon in polygons
        ]
    annotation.pop("keypoints", None)


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_polygon(value: Any) -> bool:
    valid = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return valid and all(map(_is_number, value))
