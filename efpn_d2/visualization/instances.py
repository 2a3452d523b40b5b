"""Detections without ground truth: one colour per class."""

import colorsys
from collections.abc import Sequence

import numpy as np

from efpn_d2.visualization.draw import Mark, detection_text, draw_marks

_MASK_OPACITY = 0.45


def class_color(class_id: int) -> tuple[int, int, int]:
    """A bright RGB colour; classes with neighbouring ids get colours far apart."""
    hue = (0.33 + class_id * 0.618034) % 1.0  # multiples of the golden ratio never come close
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.72, 1.0))
    return red, green, blue


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str] = (),
    masks: np.ndarray | None = None,
    *,
    zoom: int = 1,
) -> np.ndarray:
    """Draw detections, those with the highest score labelled first.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (D, 4) XYXY in pixels of ``image``.
        scores: (D,).
        classes: (D,) class ids.
        class_names: name of every class id; an id beyond them is shown as a number.
        masks: (D, H, W) bool, laid over the objects half transparent; None: boxes only.
        zoom: see :func:`efpn_d2.visualization.draw.draw_marks`.

    Returns:
        (H * zoom, W * zoom, 3) uint8 RGB, a new array.
    """
    image = image.copy()
    order = np.argsort(-np.asarray(scores), kind="stable")
    marks = []
    for d in order:
        color = class_color(int(classes[d]))
        marks.append(
            Mark(tuple(boxes[d]), color, detection_text(classes[d], scores[d], class_names))
        )
        if masks is not None:
            covered = image[masks[d]]
            image[masks[d]] = covered + _MASK_OPACITY * (np.array(color) - covered)
    return draw_marks(image, marks, zoom=zoom)
