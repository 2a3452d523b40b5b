"""Boxes of images as arrays, and how much they overlap."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ImageBoxes:
    """Annotated or detected boxes of one image.

    Attributes:
        boxes: (N, 4) float64, x, y, width and height in pixels.
        classes: (N,) int64, ids of categories.
        scores: (N,) float64; ones for annotations.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: np.ndarray) -> "ImageBoxes":
        """Those that a mask or an array of indices picks, in its order."""
        return ImageBoxes(self.boxes[index], self.classes[index], self.scores[index])


def image_boxes(records: Iterable[Mapping[str, Any]]) -> ImageBoxes:
    """Annotations or results in COCO's format as arrays; one without a "score" has score 1."""
    records = list(records)
    return ImageBoxes(
        np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4),
        np.array([record["category_id"] for record in records], dtype=np.int64),
        np.array([record.get("score", 1.0) for record in records], dtype=np.float64),
    )


def overlaps(
    first: np.ndarray, second: np.ndarray, of_first: np.ndarray | None = None
) -> np.ndarray:
    """Intersection over union of all pairs, with areas as width times height like COCO's code.

    Args:
        first: (N, 4) boxes as x, y, width, height.
        second: (M, 4) boxes.
        of_first: (M,) bool; for these of ``second`` it is the intersection over the area of the
            box in ``first`` instead, as for regions that are to be ignored.

    Returns:
        (N, M) float64; boxes that do not touch, and boxes without area, have 0.
    """
    first, second = first[:, None], second[None]
    top_left = np.maximum(first[..., :2], second[..., :2])
    bottom_right = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=-1)
    area = first[..., 2] * first[..., 3]
    whole = area + second[..., 2] * second[..., 3] - intersection
    if of_first is not None:
        whole = np.where(of_first, area, whole)
    return np.divide(intersection, whole, out=np.zeros_like(intersection), where=intersection > 0)
