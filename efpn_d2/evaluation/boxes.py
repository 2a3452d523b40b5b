"""Boxes of images as arrays, and their overlaps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask


@dataclass(frozen=True)
class ImageBoxes:
    """Annotated or detected boxes of one image.

    Attributes:
        boxes: (N, 4) float64, x, y, width and height in pixels.
        classes: (N,) int64, category ids.
        scores: (N,) float64; ones for annotations.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: np.ndarray) -> "ImageBoxes":
        """Select boxes by a mask or an array of indices."""
        return ImageBoxes(self.boxes[index], self.classes[index], self.scores[index])


def image_boxes(records: Iterable[Mapping[str, Any]]) -> ImageBoxes:
    """Convert annotations or results in COCO format to arrays; the default score is 1."""
    records = list(records)
    return ImageBoxes(
        np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4),
        np.array([record["category_id"] for record in records], dtype=np.int64),
        np.array([record.get("score", 1.0) for record in records], dtype=np.float64),
    )


def box_iou(boxes: np.ndarray, objects: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Compute the intersection over union of all pairs with pycocotools.

    Args:
        boxes: (D, 4) x, y, width, height.
        objects: (G, 4) x, y, width, height.
        crowd: (G,) bool; for these ``objects``, the intersection over the area of the box in
            ``boxes`` is computed instead; None: no crowds.

    Returns:
        (D, G) float64; 0 for boxes that do not touch and for boxes without area.
    """
    if not len(boxes) or not len(objects):
        return np.zeros((len(boxes), len(objects)))
    crowd = np.zeros(len(objects), dtype=bool) if crowd is None else crowd
    boxes, objects = (np.ascontiguousarray(x, dtype=np.float64) for x in (boxes, objects))
    return np.asarray(mask.iou(boxes, objects, crowd.astype(np.uint8)))
