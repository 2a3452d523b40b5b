"""Detect boxes that are valid as [x, y, width, height], but seem to have another format."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from efpn_d2.data.coco.record_checks import BOX

# Fewer boxes are not enough evidence.
_MIN_BOXES = 2
# Minimum fraction of boxes that leave their image by more than a pixel: corners that are read as x,
# y, width and height do so for all boxes that end in the right or lower half.
_MIN_SHARE = 0.25


class Suspicion(NamedTuple):
    """The format that boxes seem to have.

    Attributes:
        kind: kind of problem in a report.
        message: the reason, and what to do about it.
    """

    kind: str
    message: str


def suspect_boxes(
    annotations: Iterable[Any], sizes: Mapping[Any, tuple[float, float]]
) -> Suspicion | None:
    """Check whether boxes look like corners, or like fractions of the image's sides.

    Args:
        annotations: annotations in COCO format; invalid ones are skipped.
        sizes: width and height of the images by image id.

    Returns:
        The format that all boxes seem to have; None if it is x, y, width and height.
    """
    pairs = [
        (annotation["bbox"], sizes[annotation["image_id"]])
        for annotation in annotations
        if isinstance(annotation, dict)
        and not BOX.problem(annotation.get("bbox"))
        and type(annotation.get("image_id")) in (int, str)
        and annotation["image_id"] in sizes
    ]
    if len(pairs) < _MIN_BOXES:
        return None
    boxes = np.array([box for box, _ in pairs], dtype=np.float64)
    limits = np.array([size for _, size in pairs], dtype=np.float64)
    if boxes.max() <= 1 and (boxes != np.round(boxes)).any():
        return Suspicion(
            "boxes_like_fractions",
            f"all {len(boxes)} boxes have numbers from 0 to 1, like fractions of the image's "
            "sides, but are read as pixels: if they are fractions, multiply x and width by the "
            "image's width, y and height by its height",
        )
    leaving = (boxes[:, :2] + boxes[:, 2:] > limits + 1).any(axis=1)
    are_corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= limits + 1).all()
    if are_corners and leaving.mean() >= _MIN_SHARE:
        return Suspicion(
            "boxes_like_corners",
            f"{leaving.sum()} of {len(boxes)} boxes leave their image as [x, y, width, height], "
            "but none does as corners (XYXY), [x0, y0, x1, y1]: if they are corners, subtract "
            "x0 from x1 and y0 from y1",
        )
    return None
