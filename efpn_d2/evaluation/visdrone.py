"""Average precision by the protocol of VisDrone-DET.

The protocol, from the benchmark's own toolkit:

* Annotated and detected boxes with at least half of their area in ignored regions are removed
  first. The area is counted in pixels of the image, with the toolkit's rounding.
* Then the 500 detections with the highest scores in each image are counted, over all classes
  together (1, 10, 100 and 500 for the recall).
* Detections are matched as in COCO. An annotated box of score 0 is ignored: an otherwise unmatched
  detection may match it, by the intersection over the detection's own area.
* AP is the area under the precision-recall curve at all its points (as in VOC since 2010), at IoU
  0.5, 0.55, ... 0.95. In contrast to COCO, ignored boxes are counted in the recall's denominator.
* The printed mean weights each class by the number of images that contain it.

Boxes of the category "others" are removed, so a detection on one is a false positive.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, box_iou
from efpn_d2.evaluation.matching import IGNORED, match_by_score

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100, 500)


@dataclass(frozen=True)
class VisDroneImage:
    """One image with N annotated boxes.

    Attributes:
        objects: annotated boxes of the evaluated classes.
        ignored: (N,) bool, boxes of score 0.
        regions: (R, 4) ignored regions as x, y, width, height.
        detections: detected boxes.
        height: height of the image in pixels.
        width: width of the image in pixels.
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
        images: (K,) number of images with the class. Classes without images are excluded from all
            means.
        objects: (K,) number of annotated boxes that are not ignored.
    """

    precision: np.ndarray
    recall: np.ndarray
    images: np.ndarray
    objects: np.ndarray

    def mean(self, values: np.ndarray, *, by_images: bool) -> float:
        """Average (K, ...) values over the classes and IoU thresholds.

        Args:
            values: the values.
            by_images: weight each class by the number of images with it, as the toolkit does.

        Returns:
            The mean; NaN if there are no objects.
        """
        weights = self.images if by_images else self.images > 0
        if not weights.any():
            return float("nan")
        per_class = values.reshape(len(weights), -1).mean(axis=1)
        return float(np.average(per_class, weights=weights))


def evaluate_visdrone(images: Iterable[VisDroneImage], classes: Sequence[int]) -> VisDroneResult:
    """Evaluate the detections of all images.

    Args:
        images: every image of the dataset, including images without detections.
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
            overlap = box_iou(detections.boxes[ranks], image.objects.boxes[of_class], ignored)
            found = match_by_score(overlap, ignored, IOU_THRESHOLDS)
            matches[k].append((detections.scores[ranks], ranks, found))
    per_class = [_accumulate(m, int(n)) for m, n in zip(matches, counts[1], strict=True)]
    num_iou, num_limits = len(IOU_THRESHOLDS), len(MAX_DETECTIONS)
    precision = np.array([ap for ap, _ in per_class]).reshape(-1, num_iou)
    recall = np.array([recall for _, recall in per_class]).reshape(-1, num_iou, num_limits)
    return VisDroneResult(precision, recall, counts[0], counts[2])


def drop_ignored(image: VisDroneImage) -> VisDroneImage:
    """Remove boxes that lie at least half in the ignored regions of the image."""
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
    """Compute the share of each box that ignored regions cover, as the toolkit does.

    The toolkit uses pixel numbers from 1 on, marks one pixel more than a region is wide and high,
    and divides by the area of the whole box even if that leaves the image. All of this is
    reproduced, since it decides which boxes are removed.

    Args:
        boxes: (N, 4) x, y, width, height.
        regions: (R, 4) x, y, width, height.
        height: height of the image.
        width: width of the image.

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
    """Round half up, to at least 1."""
    return np.maximum(1, np.floor(boxes + 0.5).astype(np.int64))


def _accumulate(
    matches: list[tuple[np.ndarray, ...]], num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (T,) average precision and (T, M) recall of one class from its matches."""
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
    """Integrate the precision, made non-increasing, over the recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
