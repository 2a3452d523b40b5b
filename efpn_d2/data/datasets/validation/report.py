"""The report of a validation: every bad record by its file, id and field, and counts."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

# Problems: what was wrong in the source.
KINDS = {
    "missing_image": "images listed, but not on disk",
    "unreadable_image": "image files that are truncated, damaged or no image",
    "image_16_bit": "images with 16 bits per pixel",
    "image_too_large": "images with more pixels than Pillow opens",
    "image_listed_twice": "images listed more than once",
    "duplicate_image_id": "image ids used more than once",
    "invalid_image_record": "image records without a usable id or file name",
    "image_size_mismatch": "images whose size is not the one in the annotations",
    "image_in_two_splits": "images that belong to more than one split",
    "rotated_image": "boxes given for an image before its EXIF rotation",
    "image_without_annotations": "images listed in a split, but unknown to the annotations",
    "duplicate_annotation_id": "annotation ids used more than once",
    "duplicate_annotation": "annotations that are there twice, by id or with an image",
    "duplicate_object": "objects annotated twice, by two ids with the same class and box",
    "unknown_image": "annotations of an image that is not listed",
    "unknown_category": "annotations of a class that is not listed",
    "invalid_annotation": "annotations that lack what they need, or hold something else",
    "invalid_box": "boxes that are not four finite numbers",
    "empty_box": "boxes whose width or height is zero or negative",
    "box_outside_image": "boxes that do not touch their image",
    "box_leaves_image": "boxes that leave their image",
    "boxes_like_corners": "boxes that look like corners, not like x, y, width and height",
    "boxes_like_fractions": "boxes that look like fractions of the image's sides, not like pixels",
    "invalid_area": "areas that are no positive number",
    "invalid_segmentation": "segmentations without a valid polygon or run-length encoding",
    "not_finite": "further fields with NaN or infinity",
    "duplicate_category_name": "class names used more than once",
    "unexpected_classes": "classes that this data set does not have",
    "repeated_key": "keys that a JSON object has more than once",
}

# Notes: what is no mistake, but good to know.
NOTES = {
    "empty_image": "images kept although they have no object",
    "class_without_object": "classes without an object",
    "category_gap": "gaps in the category ids",
    "ignore_to_iscrowd": "objects marked 'ignore', which are now 'iscrowd'",
    "area_added": "objects without an area, which is now that of the box",
    "exif_orientation": "images with an EXIF rotation, which Detectron2 applies",
    "grayscale_image": "grayscale images, which Detectron2 reads as three equal channels",
    "large_image": "images so large that scaling them to the input loses small objects",
    "image_in_no_split": "images with annotations, but in no split",
    "unexpected_image_size": "images of another size than this data set's",
}

# Edges of the size bins in the counts, in pixels of the image file.
SIZE_EDGES = (8, 16, 32, 96)
# The same for the longer side, as TT100K's own protocol has it.
LONG_SIDE_EDGES = (32, 96, 400)


@dataclass(frozen=True)
class Finding:
    """One bad or remarkable record.

    Attributes:
        kind: a key of :data:`KINDS` or :data:`NOTES`.
        file: the file that holds the record.
        id: the record's id there (image, annotation, category, or line number).
        field: the part of the record that it is about; may be empty.
        message: what is wrong, with the values.
        action: what was done: "dropped", "clipped", "corrected", "merged" or "kept".
    """

    kind: str
    file: str
    id: int | str | None
    field: str
    message: str
    action: str


class Report:
    """Findings and counts of one data set; made to be written as JSON and printed.

    Attributes:
        name: of the data set.
        source: the file or folder that was read.
        problems: what was wrong, in the order it was found.
        notes: what is only good to know.
        read: how many images and annotations the source has.
        dropped_with_image: by the id of a dropped image, how many annotations went with it.
        counts: totals of the result; filled by :meth:`count`.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []
        self.read = {"images": 0, "annotations": 0}
        self.dropped_with_image: Counter[int | str] = Counter()
        self.counts: dict[str, Any] = {}

    def add(
        self,
        kind: str,
        message: str,
        *,
        file: str,
        id: int | str | None = None,
        field: str = "",
        action: str = "kept",
    ) -> None:
        """Add a finding; its kind decides whether it is a problem or a note."""
        findings = self.problems if kind in KINDS else self.notes
        assert kind in KINDS or kind in NOTES, kind
        findings.append(Finding(kind, file, id, field, message, action))

    def count(self, coco: dict[str, Any]) -> None:
        """Count the checked content by class and by size; sizes are sqrt(width * height)."""
        names = {category["id"]: category["name"] for category in coco["categories"]}
        rows: dict[int, Counter[str]] = {i: Counter() for i in names}
        long_side: Counter[str] = Counter()
        sizes, long_sides = size_labels(SIZE_EDGES), size_labels(LONG_SIDE_EDGES)
        for annotation in coco["annotations"]:
            row = rows[annotation["category_id"]]
            if annotation["iscrowd"]:
                row["ignored"] += 1
                continue
            _, _, width, height = annotation["bbox"]
            row["objects"] += 1
            row[sizes[bisect_right(SIZE_EDGES, math.sqrt(width * height))]] += 1
            long_side[long_sides[bisect_right(LONG_SIDE_EDGES, max(width, height))]] += 1
        with_objects = {a["image_id"] for a in coco["annotations"] if not a["iscrowd"]}
        # One region may be ignored for several classes.
        regions = {(a["image_id"], *a["bbox"]) for a in coco["annotations"] if a["iscrowd"]}
        columns = ("objects", *sizes, "ignored")
        self.counts = {
            "images": len(coco["images"]),
            "images_without_object": len(coco["images"]) - len(with_objects),
            "annotations": len(coco["annotations"]),
            "total": {key: sum(row[key] for row in rows.values()) for key in columns}
            | {"ignored": len(regions)},
            "by_class": {names[i]: {key: row[key] for key in columns} for i, row in rows.items()},
            "by_long_side": {key: long_side[key] for key in long_sides},
        }
        self._note_classes(coco)

    def _note_classes(self, coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            if not self.counts["by_class"][category["name"]]["objects"]:
                message = f"class '{category['name']}' has no object"
                self.add("class_without_object", message, file=self.source, id=category["id"])

    def as_dict(self) -> dict[str, Any]:
        """All of it, as written beside the data set."""
        return {
            "name": self.name,
            "source": self.source,
            "read": self.read,
            "counts": self.counts,
            "annotations_dropped_with_their_image": dict(self.dropped_with_image),
            "problem_counts": dict(Counter(finding.kind for finding in self.problems)),
            "note_counts": dict(Counter(finding.kind for finding in self.notes)),
            "problems": [asdict(finding) for finding in self.problems],
            "notes": [asdict(finding) for finding in self.notes],
        }

    def summary(self, examples: int = 3) -> str:
        """A text to print: counts, and of each kind of finding the number and some examples."""
        counts, total = self.counts, self.counts["total"]
        sizes = ", ".join(f"{label} px: {total[label]}" for label in size_labels(SIZE_EDGES))
        lines = [
            f"{self.name}: {counted(counts['images'], 'image')} "
            f"({counts['images_without_object']} without an object), "
            f"{counted(total['objects'], 'object')} of "
            f"{counted(len(counts['by_class']), 'class', 'classes')}, {total['ignored']} ignored",
            f"  objects by size, sqrt(w * h): {sizes}",
        ]
        lost = sum(self.dropped_with_image.values())
        if lost:
            images = len(self.dropped_with_image)
            lines.append(
                f"  {counted(lost, 'annotation')} dropped with their {counted(images, 'image')}"
            )
        for noun, findings, kinds, shown in (
            ("problem", self.problems, KINDS, examples),
            ("note", self.notes, NOTES, 1),
        ):
            lines.append(f"  {counted(len(findings), noun)}")
            lines += _summarize(findings, kinds, shown)
        return "\n".join(lines)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 problem", "2 problems"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def size_labels(edges: Iterable[int]) -> list[str]:
    """Names of the half-open bins between 0, the edges and infinity: "0-8", ..., "96+"."""
    edges = [0, *edges]
    return [f"{low}-{high}" for low, high in zip(edges, edges[1:], strict=False)] + [
        f"{edges[-1]}+"
    ]


def _summarize(findings: list[Finding], kinds: dict[str, str], examples: int) -> list[str]:
    lines = []
    for kind, description in kinds.items():
        members = [finding for finding in findings if finding.kind == kind]
        if not members:
            continue
        actions = Counter(finding.action for finding in members)
        done = ", ".join(f"{number} {action}" for action, number in actions.items())
        lines.append(f"    {kind}: {description} ({done})")
        for finding in members[:examples]:
            place = f"{finding.file}" + ("" if finding.id is None else f", id {finding.id}")
            field = f", {finding.field}" if finding.field else ""
            lines.append(f"      {place}{field}: {finding.message}")
        if len(members) > examples:
            lines.append(f"      ... {len(members) - examples} more in the report")
    return lines
