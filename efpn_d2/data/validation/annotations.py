"""Validation of annotations."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, TypeGuard

from efpn_d2.data.validation.image_files import rotate_points
from efpn_d2.data.validation.images import CheckedImages
from efpn_d2.data.validation.report import ValidationReport

# Tolerance in pixels: sums of rounded coordinates may leave the image by this much.
_ROUNDING = 0.01
# Fields that are finite or removed once the other checks are done.
_CHECKED = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


@dataclass(frozen=True)
class _Record:
    """An annotation being checked: a copy that is corrected in place, and its source."""

    content: dict[str, Any]
    original: dict[str, Any]
    file: str
    id: Any
    field: str  # prefix of its field names if it has no id to report

    @property
    def name(self) -> str:
        """Return the name by which findings report the annotation."""
        return self.field or (self.file if self.id is None else f"id {self.id}")


class AnnotationChecks:
    """Check the annotations of one dataset and report every problem.

    Attributes:
        dropped: maps the id of a kept image to the kinds of findings of its dropped annotations.
    """

    def __init__(
        self, images: CheckedImages, category_ids: set[int], report: ValidationReport
    ) -> None:
        """
        Args:
            images: checked images of the dataset.
            category_ids: the valid category ids.
            report: findings are added to it.
        """
        self.dropped: dict[int | str, list[str]] = defaultdict(list)
        self._images = images
        self._category_ids = category_ids
        self._report = report
        self._by_id: dict[Any, dict[str, Any]] = {}
        self._merged = set(images.merged.values())
        self._objects: dict[tuple[Any, ...], _Record] = {}
        self._next_id = 1

    def check(self, annotations: list[Any]) -> list[dict[str, Any]]:
        """Return the valid annotations, with ``id``, ``bbox`` (XYWH), ``area`` and ``iscrowd``."""
        ids = [a["id"] for a in annotations if isinstance(a, dict) and _is_int(a.get("id"))]
        self._next_id = max(ids, default=0) + 1
        kept = []
        for number, original in enumerate(annotations):
            if not isinstance(original, dict):
                self._report.add(
                    "invalid_annotation",
                    f"{original!r} is not an object",
                    file=self._report.source,
                    field=f"annotations[{number}]",
                    action="dropped",
                )
                continue
            record = self._record(number, original)
            if self._check_one(record):
                kept.append(record.content)
        return kept

    def _record(self, number: int, original: dict[str, Any]) -> _Record:
        content, id = dict(original), original.get("id")
        if "_source" in content:
            file, source_id = content.pop("_source")
            return _Record(content, original, file, source_id, field="")
        if not _is_int(id):
            return _Record(content, original, self._report.source, None, f"annotations[{number}]")
        return _Record(content, original, self._report.source, id, "")

    def _add(
        self, kind: str, message: str, record: _Record, field: str, action: str = "dropped"
    ) -> None:
        field = ".".join(part for part in (record.field, field) if part)
        self._report.add(kind, message, file=record.file, id=record.id, field=field, action=action)
        image_id = record.content.get("image_id")
        if action == "dropped" and _is_image_id(image_id):
            self.dropped[image_id].append(f"{record.name} ({kind})")

    def _check_one(self, record: _Record) -> bool:
        """Correct one annotation in place and return whether it is kept."""
        if not (
            self._check_image(record)
            and self._check_reading(record)
            and self._check_category(record)
            and self._check_id(record)
            and self._check_numbers(record)
        ):
            return False
        # Compare boxes before clipping, which may make the boxes of two objects equal.
        key = self._identity(record.content)
        if not (
            self._check_repeated(key, record)
            and self._check_place(record)
            and self._complete(record)
        ):
            return False
        self._objects[key] = record
        self._check_other_fields(record)
        return True

    def _check_image(self, record: _Record) -> bool:
        image_id = record.content.get("image_id")
        if not _is_image_id(image_id):
            message = f"image_id is {image_id!r}, but must be the id of an image"
            self._add("invalid_annotation", message, record, "image_id")
            return False
        image_id = record.content["image_id"] = self._images.merged.get(image_id, image_id)
        if image_id in self._images.dropped:
            self._report.dropped_with_image[image_id] += 1
            return False
        if image_id not in self._images.sizes:
            message = f"there is no image with the id {image_id!r}"
            self._add("unknown_image", message, record, "image_id")
            return False
        return True

    def _check_reading(self, record: _Record) -> bool:
        """Report problems that the dataset's own reader found."""
        problem = record.content.pop("_problem", None)
        if problem is not None:
            kind, field, message = problem
            self._add(kind, message, record, field)
        return problem is None

    def _check_category(self, record: _Record) -> bool:
        category_id = record.content.get("category_id")
        if _is_int(category_id) and category_id in self._category_ids:
            return True
        message = f"there is no category with the id {category_id!r}"
        if category_id is None:
            message = "it has no category_id, so it has no class"
        self._add("unknown_category", message, record, "category_id")
        return False

    def _check_id(self, record: _Record) -> bool:
        annotation, id = record.content, record.content.get("id")
        if _is_int(id) and id not in self._by_id:
            self._by_id[id] = record.original
            return True
        if _is_int(id) and self._by_id[id] == record.original:
            message = "this annotation occurs more than once, with the same id and content"
            self._add("duplicate_annotation", message, record, "id")
            return False
        annotation["id"] = self._next_id
        self._next_id += 1
        if _is_int(id):
            message = f"the id is already used; this annotation is now {annotation['id']}"
            self._add("duplicate_annotation_id", message, record, "id", "corrected")
        else:
            message = f"its id is {id!r} and was set to {annotation['id']}"
            self._add("invalid_annotation", message, record, "id", "corrected")
        return True

    def _check_numbers(self, record: _Record) -> bool:
        annotation, box = record.content, record.content.get("bbox")
        if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_number, box)):
            message = f"the box {box!r} is not [x, y, width, height] in finite numbers"
            self._add("invalid_box", message, record, "bbox")
            return False
        if box[2] <= 0 or box[3] <= 0:
            message = f"the box {list(box)} has the width {box[2]} and the height {box[3]}"
            self._add("empty_box", message, record, "bbox")
            return False
        self._check_segmentation(record)
        if annotation["image_id"] in self._images.rotations:
            _rotate(annotation, *self._images.rotations[annotation["image_id"]])
        return True

    def _check_segmentation(self, record: _Record) -> None:
        """Keep only masks that Detectron2 can load without failing or dropping the object."""
        annotation, polygons = record.content, record.content.get("segmentation")
        if not polygons:
            annotation.pop("segmentation", None)
        elif isinstance(polygons, list):
            valid = [p for p in polygons if _is_polygon(p)]
            if len(valid) < len(polygons):
                message = (
                    f"{len(polygons) - len(valid)} of {len(polygons)} polygons do not have three "
                )
                message += "points in finite numbers and were removed; the box stays"
                self._add("invalid_segmentation", message, record, "segmentation", "corrected")
            annotation["segmentation"] = valid
            if not valid:
                annotation.pop("segmentation")
        elif not _is_run_length(polygons):
            annotation.pop("segmentation")
            message = f"{str(polygons)[:60]!r} is neither polygons nor a run-length encoding with "
            message += "size and counts, and was removed; the box stays"
            self._add("invalid_segmentation", message, record, "segmentation", "corrected")

    def _identity(self, annotation: dict[str, Any]) -> tuple[Any, ...]:
        """Return a key that is the same if one object is annotated twice."""
        ignored = bool(annotation.get("iscrowd") or annotation.get("ignore"))
        return annotation["image_id"], annotation["category_id"], ignored, *annotation["bbox"]

    def _check_repeated(self, key: tuple[Any, ...], record: _Record) -> bool:
        """Keep only the first annotation of an object that is annotated more than once."""
        image_id, _, ignored, *box = key
        merged = image_id in self._merged
        # Ignored regions may repeat: they do not change any metric, and may be ignored for two
        # reasons.
        if key not in self._objects or (ignored and not merged):
            return True
        if merged:
            message = f"the image was listed again with the same box {box}"
        else:
            first = self._objects[key].name
            message = f"it is the same object as {first}: same image, class and box {box}"
        kind = "duplicate_annotation" if merged else "duplicate_object"
        self._add(kind, message, record, "bbox")
        return False

    def _check_place(self, record: _Record) -> bool:
        annotation = record.content
        width, height = self._images.sizes[annotation["image_id"]]
        # Detectron2's resizing would truncate integers.
        box = annotation["bbox"]
        x, y, w, h = annotation["bbox"] = [float(value) for value in box]
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        size = f"the image of {width} x {height} pixels"
        if right <= left or bottom <= top:
            message = f"the box {list(box)} lies outside {size}"
            self._add("box_outside_image", message, record, "bbox")
            return False
        if max(left - x, top - y, x + w - right, y + h - bottom) > _ROUNDING:
            annotation["bbox"] = [left, top, right - left, bottom - top]
            message = f"the box {list(box)} leaves {size}; it is now {annotation['bbox']}"
            self._add("box_leaves_image", message, record, "bbox", "clipped")
            new_area = annotation["bbox"][2] * annotation["bbox"][3]
            if _is_number(annotation.get("area")):
                # The area of a mask may be smaller than that of its box.
                mask = annotation.get("segmentation")
                annotation["area"] = min(annotation["area"], new_area) if mask else new_area
        return True

    def _complete(self, record: _Record) -> bool:
        """Add fields that COCO's evaluation reads; only ``iscrowd`` marks ignored objects."""
        annotation = record.content
        _, _, width, height = annotation["bbox"]
        area = annotation.get("area")
        if area is None:
            annotation["area"] = width * height
            self._add("area_added", "the area is missing", record, "area", "corrected")
        elif not _is_number(area) or area <= 0:
            annotation["area"] = width * height
            message = f"the area is {area!r} and was set to that of the box, {width * height}"
            self._add("invalid_area", message, record, "area", "corrected")
        crowd, ignore = annotation.get("iscrowd", 0), annotation.pop("ignore", 0)
        if crowd not in (0, 1) or ignore not in (0, 1):
            name, value = ("iscrowd", crowd) if crowd not in (0, 1) else ("ignore", ignore)
            message = f"{name} is {value!r}, but must be 0 or 1; the object is ignored"
            self._add("invalid_annotation", message, record, name, "corrected")
            crowd = 1
        elif ignore and not crowd:
            self._add("ignore_to_iscrowd", "ignore is 1", record, "ignore", "corrected")
        annotation["iscrowd"] = int(bool(crowd or ignore))
        return True

    def _check_other_fields(self, record: _Record) -> None:
        """Remove unchecked fields with NaN or infinity, which JSON does not allow."""
        for field in [key for key in record.content if key not in _CHECKED]:
            if not is_json(record.content[field]):
                record.content.pop(field)
                message = "it holds NaN or infinity and was removed"
                self._add("not_finite", message, record, field, "corrected")


def _rotate(annotation: dict[str, Any], orientation: int, size: tuple[int, int]) -> None:
    """Rotate an annotation with its image. Run-length encoded masks are dropped."""
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


def is_json(value: Any) -> bool:
    """Return whether a value is standard JSON, i.e. without NaN and infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _is_image_id(value: Any) -> TypeGuard[int | str]:
    return type(value) in (int, str)


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_run_length(value: Any) -> bool:
    """Return whether a value is COCO's run-length encoding, compressed or not."""
    if not isinstance(value, dict):
        return False
    size, counts = value.get("size"), value.get("counts")
    sizes = isinstance(size, list) and len(size) == 2 and all(_is_int(n) and n > 0 for n in size)
    runs = isinstance(counts, list) and all(_is_int(n) and n >= 0 for n in counts)
    return sizes and (isinstance(counts, str) or runs)


def _is_polygon(value: Any) -> bool:
    valid = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return valid and all(map(_is_number, value))
