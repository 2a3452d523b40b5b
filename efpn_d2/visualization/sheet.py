"""One picture of many: ground truth on the left, what was found and missed on the right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from efpn_d2.visualization.draw import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    RED,
    YELLOW,
    Mark,
    class_name,
    draw_marks,
    match_marks,
)
from efpn_d2.visualization.fonts import draw_text, fit_text, load_font
from efpn_d2.visualization.matching import MatchResult, match_detections

_MARGIN, _CAPTION, _HEADER = 8, 22, 64
_LEAST_SHOWN = 14  # pixels of the sheet that the lower quartile of the objects should span
_MAX_ZOOM = 4


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4))


def _no_values() -> np.ndarray:
    return np.zeros(0)


def _no_classes() -> np.ndarray:
    return np.zeros(0, dtype=int)


@dataclass
class ImageRecord:
    """An image with its ground truth and its detections; all boxes XYXY in its pixels."""

    image: str | Path | np.ndarray  # a file, or (H, W, 3) uint8 RGB
    gt_boxes: np.ndarray = field(default_factory=_no_boxes)  # (G, 4)
    gt_classes: np.ndarray = field(default_factory=_no_classes)  # (G,)
    boxes: np.ndarray = field(default_factory=_no_boxes)  # (D, 4)
    scores: np.ndarray = field(default_factory=_no_values)  # (D,)
    classes: np.ndarray = field(default_factory=_no_classes)  # (D,)
    gt_crowd: np.ndarray | None = None  # (G,) bool
    name: str = ""  # for the caption; the file's name if empty

    def __post_init__(self) -> None:
        self.gt_boxes = np.asarray(self.gt_boxes, dtype=np.float64).reshape(-1, 4)
        self.boxes = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4)
        if not self.name and not isinstance(self.image, np.ndarray):
            self.name = Path(self.image).name

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB.

        Raises:
            OSError: the file is missing or no image; the message names it.
            ValueError: it has more than 8 bits per channel; the message names it.
        """
        if isinstance(self.image, np.ndarray):
            return self.image
        from efpn_d2.data.image_reading import read_image  # only here: importing this stays cheap

        return read_image(self.image, "RGB")

    def match(self, score_threshold: float) -> MatchResult:
        """Match the detections to the ground truth at IoU 0.5."""
        return match_detections(
            self.boxes,
            self.scores,
            self.classes,
            self.gt_boxes,
            self.gt_classes,
            self.gt_crowd,
            score_threshold=score_threshold,
        )


def write_image_sheet(
    path: str | Path,
    records: Sequence[ImageRecord],
    class_names: Sequence[str],
    *,
    title: str = "Ground truth and detections",
    max_images: int = 6,
    width: int = 1600,
    panel_height: int = 480,
    score_threshold: float = 0.5,
    max_bytes: int = 2_000_000,
) -> list[int]:
    """Draw the most telling images as pairs of panels and write them as one PNG.

    A panel shows its image enlarged by a whole factor so that small objects stay visible; an image
    that does not fit is cut to the window with the most errors and objects (the caption says so).

    Args:
        path: the PNG; its folder is made.
        records: all images to choose from.
        class_names: name of every class id.
        title: first line of the header; the counts over all records follow it.
        max_images: at most this many images are shown.
        width: of the sheet in pixels.
        panel_height: greatest height of a panel in pixels.
        score_threshold: detections below it are not drawn and not counted.
        max_bytes: a larger file is reduced to 256 colours.

    Returns:
        The indices of the records shown, in their order on the sheet.

    Raises:
        ValueError: there are no records.
        OSError: an image cannot be read.
    """
    if not records:
        raise ValueError("an image sheet needs at least one image, got none")
    results = [record.match(score_threshold) for record in records]
    shown = select_informative(results, max_images)
    panel = ((width - 3 * _MARGIN) // 2, panel_height)
    rows = [_row(*_pair(records[i], results[i], class_names, panel), width) for i in shown]
    sheet = np.concatenate([_header(title, results, len(shown), score_threshold, width), *rows])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet)
    picture.save(path, format="PNG", optimize=True)
    if path.stat().st_size > max_bytes:
        _reduce_colors(picture).save(path, format="PNG", optimize=True)
    return shown


def select_informative(results: Sequence[MatchResult], count: int) -> list[int]:
    """Choose images that tell most: in turn the most missed, the most objects, the most clean.

    A clean image has found objects, no miss and no false positive. What is left of ``count`` goes
    to the images with the most false positives. Ties go to the earlier image, so the choice depends
    on nothing but the results.

    Returns:
        Up to ``count`` different indices.
    """
    missed = np.array([r.missed.sum() for r in results])
    found = np.array([r.true_positive.sum() for r in results])
    false = np.array([r.false_positive.sum() for r in results])
    clean = np.where((missed == 0) & (false == 0), found, 0)
    rankings = [_descending(missed), _descending(missed + found), _descending(clean)]
    chosen: list[int] = []
    turn = 0
    while any(rankings) and len(chosen) < count:
        ranking = rankings[turn % len(rankings)]
        turn += 1
        while ranking:
            index = ranking.pop(0)
            if index not in chosen:
                chosen.append(index)
                break
    rest = np.argsort(-false, kind="stable").tolist()
    return chosen + [i for i in rest if i not in chosen][: count - len(chosen)]


def _descending(values: np.ndarray) -> list[int]:
    """Indices of the positive values, largest first, ties in order."""
    return [i for i in np.argsort(-values, kind="stable").tolist() if values[i] > 0]


def choose_zoom(boxes: np.ndarray, image_size: tuple[int, int], panel: tuple[int, int]) -> int:
    """Whole factor at which a panel shows an image.

    The whole image as large as it fits, but never so small that the lower quartile of the objects
    spans less than 14 pixels.

    Args:
        boxes: (B, 4) XYXY.
        image_size: (width, height).
        panel: greatest (width, height) on the sheet.
    """
    fits = min(panel[0] // image_size[0], panel[1] // image_size[1])
    needed = 1
    if len(boxes):
        side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))
        needed = int(np.ceil(_LEAST_SHOWN / max(np.percentile(side, 25), 1.0)))
    return int(np.clip(max(fits, needed), 1, _MAX_ZOOM))


def best_window(
    boxes: np.ndarray, weights: np.ndarray, image_size: tuple[int, int], window: tuple[int, int]
) -> tuple[int, int]:
    """Place a window where the boxes that lie wholly inside weigh most.

    Args:
        boxes: (B, 4) XYXY.
        weights: (B,) >= 0.
        image_size: (width, height) of the image.
        window: (width, height) of the window, not larger than the image.

    Returns:
        (x, y) of the window's top left corner; it lies inside the image.
    """
    free = np.array(image_size) - np.array(window)
    if not len(boxes):
        return int(free[0] // 2), int(free[1] // 2)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    # Each box in the middle, and each pair of boxes around it: enough to frame a cluster.
    middles = np.concatenate([centers, (centers[:, None] + centers[None]).reshape(-1, 2) / 2])
    corners = np.clip(np.round(middles - np.array(window) / 2), 0, free)
    inside = (boxes[None, :, :2] >= corners[:, None]).all(axis=2)
    inside &= (boxes[None, :, 2:] <= corners[:, None] + np.array(window)).all(axis=2)
    x, y = corners[int((inside * weights).sum(axis=1).argmax())]
    return int(x), int(y)


def _pair(
    record: ImageRecord,
    result: MatchResult,
    class_names: Sequence[str],
    panel: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, str]:
    """Ground-truth panel, detection panel and caption of one image."""
    image = record.pixels()
    truth = [
        Mark(tuple(box), YELLOW, class_name(cls, class_names))
        for box, cls in zip(record.gt_boxes, record.gt_classes, strict=True)
    ]
    for g in np.flatnonzero(np.zeros(0) if record.gt_crowd is None else record.gt_crowd):
        truth[g] = truth[g]._replace(color=GREY, text="crowd")
    verdict = match_marks(
        result,
        record.boxes,
        record.scores,
        record.classes,
        record.gt_boxes,
        record.gt_classes,
        class_names,
    )
    size = (image.shape[1], image.shape[0])
    all_boxes = np.array([m.box for m in truth + verdict]).reshape(-1, 4)
    zoom = choose_zoom(all_boxes, size, panel)
    window = tuple(min(s, p // zoom) for s, p in zip(size, panel, strict=True))
    weights = np.array([1.0] * len(truth) + [1.0 if m.color == GREEN else 2.0 for m in verdict])
    corner = best_window(all_boxes, weights, size, window)
    caption = f"{record.name}   {count_text([result])}   {zoom}x"
    if window != size:
        caption += f", window {window[0]} x {window[1]} of {size[0]} x {size[1]}"
    left, right = (_panel(image, marks, corner, window, zoom) for marks in (truth, verdict))
    return left, right, caption


def _panel(
    image: np.ndarray,
    marks: Sequence[Mark],
    corner: tuple[int, int],
    window: tuple[int, int],
    zoom: int,
) -> np.ndarray:
    """The window of the image, enlarged, with the marks that reach into it."""
    (x, y), (w, h) = corner, window
    inside = [
        mark._replace(box=tuple(np.array(mark.box) - (x, y, x, y)))
        for mark in marks
        if mark.box[0] < x + w and mark.box[2] > x and mark.box[1] < y + h and mark.box[3] > y
    ]
    return draw_marks(image[y : y + h, x : x + w], inside, zoom=zoom, line_width=2)


def count_text(results: Sequence[MatchResult]) -> str:
    """What was found in some images, e.g. ``"12 objects: 9 found, 3 missed, 2 false"``."""
    found = sum(int(r.true_positive.sum()) for r in results)
    missed = sum(int(r.missed.sum()) for r in results)
    false = sum(int(r.false_positive.sum()) for r in results)
    return f"{found + missed} objects: {found} found, {missed} missed, {false} false"


def _header(
    title: str, results: Sequence[MatchResult], shown: int, threshold: float, width: int
) -> np.ndarray:
    picture = Image.new("RGB", (width, _HEADER), (250, 250, 250))
    pen = ImageDraw.Draw(picture)
    title = fit_text(title, width - 2 * _MARGIN, 18, bold=True)
    draw_text(pen, (_MARGIN, 8), title, fill=DARK, size=18, bold=True)
    counts = f"{len(results)} images, {count_text(results)} (score >= {threshold:g}, IoU >= 0.5)"
    counts += f"; {shown} shown: most missed, most objects, clean"
    pen.text((_MARGIN, 38), counts, fill=(70, 70, 70), font=load_font(13))
    x = width - _MARGIN
    legend = (
        ("missed", RED, True),
        ("false positive", BLUE, False),
        ("true positive", GREEN, False),
        ("ground truth", YELLOW, False),
    )
    for text, color, dashed in legend:
        x -= int(load_font(13).getlength(text))
        pen.text((x, 10), text, fill=DARK, font=load_font(13))
        swatch = np.full((18, 18, 3), 120, dtype=np.uint8)
        swatch = draw_marks(swatch, [Mark((5, 5, 13, 13), color, dashed=dashed)], line_width=2)
        x -= 24
        picture.paste(Image.fromarray(swatch), (x, 9))
        x -= 18
    return np.array(picture)


def _row(left: np.ndarray, right: np.ndarray, caption: str, width: int) -> np.ndarray:
    """The two panels of an image side by side, under their caption."""
    height = _CAPTION + left.shape[0] + _MARGIN
    picture = Image.new("RGB", (width, height), (250, 250, 250))
    caption = fit_text(caption, width - 2 * _MARGIN, 12)
    draw_text(ImageDraw.Draw(picture), (_MARGIN, 3), caption, fill=DARK, size=12)
    picture.paste(Image.fromarray(left), (_MARGIN, _CAPTION))
    picture.paste(Image.fromarray(right), ((width + _MARGIN) // 2, _CAPTION))
    return np.array(picture)


def _reduce_colors(picture: Image.Image) -> Image.Image:
    """256 colours, those of the marks kept exactly."""
    fixed = [*GREEN, *BLUE, *RED, *YELLOW, *GREY, *DARK, 250, 250, 250]
    learned = picture.quantize(256 - len(fixed) // 3, method=Image.Quantize.MEDIANCUT)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*fixed, *(learned.getpalette() or [])][:768])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)
