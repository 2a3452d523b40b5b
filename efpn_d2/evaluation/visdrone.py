"""Average precision by the protocol of VisDrone-DET.

The protocol, of the benchmark's own toolkit:

* First, boxes with at least half of their area in ignored regions are taken out, annotated and
  detected ones. The area is counted in pixels of the image, with the toolkit's roundings.
* Of the rest, the 500 detections of the highest scores in each image count, over all classes
  together (1, 10, 100 and 500 for the recall).
* Detections are matched as in COCO. An annotated box of score 0 is ignored: a detection that finds
  no other may lie on it, by intersection over the detection's own area.
* AP is the area under the precision-recall curve at all its points (VOC from 2010 on), at IoU 0.5,
  0.55, ... 0.95. Oddly, ignored boxes do count as objects in the recall's denominator.
* The mean that is printed weights each class by the number of images that have it.

Boxes of the category "others" do not take part: a detection on one is a false positive.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, overlaps
from efpn_d2.evaluation.score_matching import IGNORED, match_by_score

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100, 500)


@dataclass(frozen=True)
class VisDroneImage:
    """One image, N annotated boxes.

    Attributes:
        objects: annotated boxes of the evaluated classes.
        ignored: (N,) bool, those of score 0.
        regions: (R, 4) ignored regions as x, y, width, height.
        detections: detected boxes.
        height, width: of the image, in pixels.
    """

    objects: ImageBoxes
    ignored: np.ndarray
    regions: np.ndarray
    detections: ImageBoxes
    height: int
    width: int


@dataclass(frozen=True)
class VisDroneResult:
    """Numbers of K classes at T IoU thresholds, in [0, 1].

    Attributes:
        precision: (K, T) average precision.
        recall: (K, T, M) recall at each of ``MAX_DETECTIONS``.
        images: (K,) images that have the class. Classes with none are out of every mean.
        objects: (K,) annotated boxes that count.
    """

    precision: np.ndarray
    recall: np.ndarray
    images: np.ndarray
    objects: np.ndarray

    def mean(self, values: np.ndarray, *, by_images: bool) -> float:
        """Mean over the classes, and IoU thresholds, of (K, ...) values.

        Args:
            by_images: weight each class by the images that have it, as the toolkit does.

        Returns:
            NaN if there is no object.
        """
        weights = self.images if by_images else self.images > 0
        if not weights.any():
            return float("nan")
        per_class = values.reshape(len(weights), -1).mean(axis=1)
        return float(np.average(per_class, weights=weights))


def evaluate_visdrone(images: Iterable[VisDroneImage], classes: Sequence[int]) -> VisDroneResult:
    """Evaluate the detections of all images.

    Args:
        images: every image of the data set, also those without detections.
        classes: K ids of the evaluated classes.
    """
    matches: list[list[tuple[np.ndarray, ...]]] = [[] for _ in classes]
    counts = np.zeros((3, len(classes)), dtype=np.int64)
    for image in images:
        image = drop_ignored(image)
        order = np.argsort(-image.detections.scores, kind="stable")[: MAX_DETECTIONS[-1]]
        detections = image.detections[order]
        for k, label in enumerate(classes):
            of_class = image.objects.classes == label
            ignored = image.ignored[of_class]
            counts[:, k] += of_class.any(), of_class.sum(), np.count_nonzero(~ignored)
            ranks = np.flatnonzero(detections.classes == label)
            overlap = overlaps(
                detections.boxes[ranks], image.objects.boxes[of_class], of_first=ignored
            )
            found = match_by_score(overlap, ignored, IOU_THRESHOLDS)
            matches[k].append((detections.scores[ranks], ranks, found))
    per_class = [_accumulate(m, int(n)) for m, n in zip(matches, counts[1], strict=True)]
    num_iou, num_limits = len(IOU_THRESHOLDS), len(MAX_DETECTIONS)
    precision = np.array([ap for ap, _ in per_class]).reshape(-1, num_iou)
    recall = np.array([recall for _, recall in per_class]).reshape(-1, num_iou, num_limits)
    return VisDroneResult(precision, recall, counts[0], counts[2])


def drop_ignored(image: VisDroneImage) -> VisDroneImage:
    """The image without the boxes that lie at least half in its ignored regions."""
    if not len(image.regions):
        return image
    size = (image.height, image.width)
    keep_objects = ignored_share(image.objects.boxes, image.regions, *size) < 0.5
    keep_found = ignored_share(image.detections.boxes, image.regions, *size) < 0.5
    return VisDroneImage(
        image.objects[keep_objects],
        image.ignored[keep_objects],
        image.regions,
        image.detections[keep_found],
        *size,
    )


def ignored_share(boxes: np.ndarray, regions: np.ndarray, height: int, width: int) -> np.ndarray:
    """Share of each box that ignored regions cover, as the toolkit counts it.

    It takes coordinates as pixel numbers from 1 on, marks one pixel more than a region is wide and
    high, and divides by the area of the whole box even where that leaves the image. All of this is
    kept, for it decides what is dropped.

    Args:
        boxes: (N, 4) x, y, width, height.
        regions: (R, 4) likewise.
        height, width: of the image.

    Returns:
        (N,) shares.
    """
    marked = np.zeros((height + 1, width + 1), dtype=np.int64)
    for x, y, w, h in _pixels(regions):
        marked[y : y + h + 1, x : x + w + 1] = 1
    marked[0], marked[:, 0] = 0, 0
    sums = marked.cumsum(axis=0).cumsum(axis=1)
    x, y, w, h = _pixels(boxes).T
    area = w * h
    x, y = np.minimum(x, width), np.minimum(y, height)
    right, bottom = np.minimum(x + w, width), np.minimum(y + h, height)
    return (sums[bottom, right] - sums[y, right] - sums[bottom, x] + sums[y, x]) / area


def _pixels(boxes: np.ndarray) -> np.ndarray:
    """Rounded half up, and at least 1."""
    return np.maximum(1, np.floor(boxes + 0.5).astype(np.int64))


def _accumulate(
    matches: list[tuple[np.ndarray, ...]], num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) average precision and (T, M) recall of one class from the matches in its images."""
    scores = np.concatenate([np.zeros(0), *(m[0] for m in matches)])
    ranks = np.concatenate([np.zeros(0, int), *(m[1] for m in matches)])
    none = np.zeros((len(IOU_THRESHOLDS), 0), int)
    found = np.concatenate([none, *(m[2] for m in matches)], axis=1)
    order = np.argsort(-scores, kind="stable")
    true = found >= 0
    recall = np.stack([(true & (ranks < n)).sum(axis=1) for n in MAX_DETECTIONS], axis=1)
    objects = max(1, num_objects)
    true = true[:, order]
    hits = true.cumsum(axis=1)
    counted = (true | (found[:, order] != IGNORED)).cumsum(axis=1)
    curves = zip(hits / objects, hits / np.maximum(1, counted), strict=True)
    return np.array([_area_under_curve(*curve) for curve in curves]), recall / objects


def _area_under_curve(recall: np.ndarray, precision: np.ndarray) -> float:
    """With the precision at each point raised to the highest one at higher recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
