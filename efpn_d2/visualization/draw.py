"""Boxes and labels that leave the object itself uncovered, whatever its size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from efpn_d2.visualization.fonts import draw_text, fit_text, text_length
from efpn_d2.visualization.labels import leader_line, place_labels
from efpn_d2.visualization.matching import MatchResult

GREEN, BLUE, RED = (40, 225, 70), (70, 145, 255), (255, 55, 55)
YELLOW, GREY, DARK = (255, 214, 50), (185, 185, 185), (18, 18, 22)
FONT_SIZE = 11
_DASH = 4  # pixels on, pixels off
_AROUND = 4  # pixels of a label's ground left and right of its text, together


class Mark(NamedTuple):
    """One box to draw."""

    box: tuple[float, float, float, float]  # XYXY in pixels of the image as given
    color: tuple[int, int, int]  # RGB
    text: str = ""
    dashed: bool = False  # alternating with dark


def draw_marks(
    image: np.ndarray,
    marks: Sequence[Mark],
    *,
    zoom: int = 1,
    line_width: int | None = None,
) -> np.ndarray:
    """Enlarge an image and draw boxes around, and labels beside, its objects.

    Every line lies outside its box and labels keep clear of all boxes, so no pixel of an object is
    painted by its own mark. Labels that find no free place are left out; those that are wider than
    the picture end in an ellipsis.

    Args:
        image: (H, W, 3) uint8 RGB.
        marks: boxes, in the pixels of ``image``; labels of the first ones are placed first.
        zoom: whole factor >= 1 by which the image is enlarged before drawing: every pixel becomes
            a square.
        line_width: of the outlines, in pixels of the result; None: 1, or 2 if enlarged.

    Returns:
        (H * zoom, W * zoom, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the image is not (H, W, 3) uint8 or zoom is not a whole number >= 1.
    """
    canvas = enlarge(image, zoom)
    line_width = line_width or min(zoom, 2)
    outlines = [outline_box(mark.box, zoom, line_width) for mark in marks]
    for mark, outline in zip(marks, outlines, strict=True):
        _paint_outline(canvas, outline, mark, line_width)

    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    texts = [fit_text(mark.text, canvas.shape[1] - _AROUND, FONT_SIZE) for mark in marks]
    sizes = [text_size(text) for text in texts]
    places = place_labels(np.array(outlines).reshape(-1, 4), np.array(sizes), canvas.shape[:2])
    for mark, outline, size, place in zip(marks, outlines, sizes, places, strict=True):
        line = place and leader_line(np.array(outline), place, size)
        if line:
            pen.line(line, fill=mark.color)
    for mark, text, place in zip(marks, texts, places, strict=True):
        if place:
            write_text(pen, place, text, mark.color)
    return np.array(picture)


def match_marks(
    result: MatchResult,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    gt_boxes: np.ndarray,
    gt_classes: np.ndarray,
    class_names: Sequence[str],
) -> list[Mark]:
    """Marks for one matched image: red dashed missed, blue false positive, green true positive.

    Args:
        result, boxes, scores, classes, gt_boxes, gt_classes: see
            :func:`efpn_d2.visualization.matching.match_detections`.
        class_names: name of every class id; an id beyond them is shown as a number.

    Returns:
        The marks, those that need attention first. Detections that count neither way are left out.
    """
    marks = []
    for g in np.flatnonzero(result.missed):
        name = class_name(gt_classes[g], class_names)
        marks.append(Mark(tuple(gt_boxes[g]), RED, name, dashed=True))
    for flags, color in ((result.false_positive, BLUE), (result.true_positive, GREEN)):
        for d in np.flatnonzero(flags):
            text = detection_text(classes[d], scores[d], class_names)
            marks.append(Mark(tuple(boxes[d]), color, text))
    return marks


def class_name(class_id: int, class_names: Sequence[str]) -> str:
    """The name of a class, or its id as text where no name is known."""
    return class_names[class_id] if 0 <= class_id < len(class_names) else str(int(class_id))


def detection_text(class_id: int, score: float, class_names: Sequence[str]) -> str:
    """Short label of a detection: class name and score in percent."""
    return f"{class_name(class_id, class_names)} {round(100 * float(score))}%"


def enlarge(image: np.ndarray, zoom: int) -> np.ndarray:
    """Enlarge an (H, W, 3) uint8 image by a whole factor; see :func:`draw_marks`."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
    if zoom < 1 or zoom != int(zoom):
        raise ValueError(f"zoom must be a whole number >= 1, got {zoom}")
    return image.repeat(int(zoom), axis=0).repeat(int(zoom), axis=1)


def outline_box(
    box: Sequence[float], zoom: int = 1, line_width: int = 1
) -> tuple[int, int, int, int]:
    """Outer edge of the outline of a box, XYXY in pixels of the enlarged image.

    The box is rounded outward and grown by the line's width and one pixel of air.
    """
    grow = line_width + 1
    x0, y0 = (int(np.floor(v * zoom)) - grow for v in box[:2])
    x1, y1 = (int(np.ceil(v * zoom)) + grow for v in box[2:])
    return x0, y0, x1, y1


def _paint_outline(
    canvas: np.ndarray, outline: tuple[int, int, int, int], mark: Mark, width: int
) -> None:
    height, canvas_width = canvas.shape[:2]
    x0, y0, x1, y1 = outline
    # An object at the border of the image keeps a visible outline: it moves onto the border.
    x0, x1 = np.clip([x0, x1], 0, canvas_width)
    y0, y1 = np.clip([y0, y1], 0, height)
    sides = (
        (slice(y0, y0 + width), slice(x0, x1)),
        (slice(max(y1 - width, 0), y1), slice(x0, x1)),
        (slice(y0, y1), slice(x0, x0 + width)),
        (slice(y0, y1), slice(max(x1 - width, 0), x1)),
    )
    for rows, columns in sides:
        side = canvas[rows, columns]
        side[:] = mark.color
        if mark.dashed:
            y, x = np.indices(side.shape[:2])
            side[(x + y) // _DASH % 2 == 1] = DARK


def text_size(text: str) -> tuple[int, int]:
    """Width and height in pixels that a label takes, its dark ground included; (0, 0) if empty."""
    if not text:
        return 0, 0
    return int(np.ceil(text_length(text, FONT_SIZE))) + _AROUND, FONT_SIZE + 3


def write_text(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, color: tuple[int, int, int]
) -> None:
    """Write a label in its colour on a dark ground, ``place`` being its top left corner."""
    x, y = place
    width, height = text_size(text)
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=DARK)
    middle = (x + _AROUND // 2, y + height / 2)
    draw_text(pen, middle, text, fill=color, size=FONT_SIZE, anchor="lm")
