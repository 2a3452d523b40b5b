"""Boxes that are all possible as [x, y, width, height], but look like something else."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from efpn_d2.data.datasets.record_checks import BOX

# Fewer boxes say nothing.
_LEAST_BOXES = 2
# The share of boxes that leave their image by more than a pixel: of corners, taken for x, y, width
# and height, all boxes do that end in the right or the lower half.
_LEAST_SHARE = 0.25


class Suspicion(NamedTuple):
    """What boxes look like.

    Attributes:
        kind: of a problem in a report.
        message: why, and what to do if it is so.
    """

    kind: str
    message: str


def suspect_boxes(
    annotations: Iterable[Any], sizes: Mapping[Any, tuple[float, float]]
) -> Suspicion | None:
    """Whether the boxes of a data set look like corners, or like fractions of the image's sides.

    Args:
        annotations: in COCO's format; those that are not valid do not count.
        sizes: width and height of the images by their ids.

    Returns:
        What all boxes look like; None if they look like x, y, width and height.
    """
    pairs = [
        (annotation["bbox"], sizes[annotation["image_id"]])
        for annotation in annotations
        if isinstance(annotation, dict)
        and not BOX.problem(annotation.get("bbox"))
        and type(annotation.get("image_id")) in (int, str)
        and annotation["image_id"] in sizes
    ]
    if len(pairs) < _LEAST_BOXES:
        return None
    boxes = np.array([box for box, _ in pairs], dtype=np.float64)
    limits = np.array([size for _, size in pairs], dtype=np.float64)
    if boxes.max() <= 1 and (boxes != np.round(boxes)).any():
        return Suspicion(
            "boxes_like_fractions",
            f"all {len(boxes)} boxes have numbers from 0 to 1, as fractions of the image's sides "
            "have them, and are read as pixels: if they are fractions, multiply x and width by "
            "the image's width, y and height by its height",
        )
    leaving = (boxes[:, :2] + boxes[:, 2:] > limits + 1).any(axis=1)
    are_corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= limits + 1).all()
    if are_corners and leaving.mean() >= _LEAST_SHARE:
        return Suspicion(
            "boxes_like_corners",
            f"{leaving.sum()} of {len(boxes)} boxes leave their image as [x, y, width, height], "
            "but as corners (XYXY), [x0, y0, x1, y1], all are within: if they are corners, "
            "subtract x0 from x1 and y0 from y1",
        )
    return None
