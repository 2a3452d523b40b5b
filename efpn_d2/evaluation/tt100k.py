"""Accuracy and recall on traffic signs, by the protocol of Tsinghua-Tencent 100K.

The protocol, of the data set's own tools, for one score threshold:

* Boxes of other classes than the evaluated ones, annotated or detected, are taken out first (so
  a sign of a rare class that is detected as an evaluated one is a false positive), and detections
  below the threshold.
* Of all pairs of an annotated and a detected box of the same image and class with IoU > 0.5
  (strictly), those of the highest IoU are matched first, each box at most once. The score plays no
  part in it.
* In a size bin, annotated boxes outside of it are taken out together with the detections that
  match them, then unmatched detections whose own size is outside.
* Accuracy is the share of the remaining detections that are matched (the precision), recall the
  share of the remaining annotated boxes, both counted over all images and classes together. With
  nothing to divide by they are 1.

Bins are half-open. The data set's size of a box is its long side; the article on EFPN writes of the
square root of the area, which gives other numbers for the same detections. Both are here, by name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, overlaps

SIZE_BINS = {"small": (0, 32), "medium": (32, 96), "large": (96, 400), "all": (0, 400)}
SIZE_RULES = ("long_side", "sqrt_area")
IOU_THRESHOLD = 0.5
CURVE_POINTS = 100


@dataclass(frozen=True)
class OperatingPoint:
    """What one score threshold gives in one size bin; accuracy, recall and F1 in [0, 1]."""

    threshold: float
    accuracy: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of accuracy and recall."""
        total = self.accuracy + self.recall
        return 2 * self.accuracy * self.recall / total if total else 0.0


@dataclass(frozen=True)
class ScoreSweep:
    """Counts of one size bin at every threshold at which they change.

    Attributes:
        scores: (S,) distinct scores, falling. A detection counts at thresholds up to its score.
        matched: (S,) detections in the bin that are matched, with ``scores`` as the threshold.
        kept: (S,) detections that remain in the bin.
        objects: annotated boxes in the bin.
        max_score: the highest score of any detection, of other classes too; NaN without any.
    """

    scores: np.ndarray
    matched: np.ndarray
    kept: np.ndarray
    objects: int
    max_score: float

    def at(self, threshold: float) -> OperatingPoint:
        """Accuracy and recall of the detections with a score of at least ``threshold``."""
        count = int(np.searchsorted(-self.scores, -threshold, side="right"))
        matched, kept = (self.matched[count - 1], self.kept[count - 1]) if count else (0, 0)
        return OperatingPoint(threshold, _share(matched, kept), _share(matched, self.objects))

    def best(self) -> OperatingPoint:
        """The point of the highest F1; of several the one with the highest threshold.

        Without detections it is the empty one, its threshold NaN.
        """
        accuracy = self.matched / np.maximum(self.kept, 1)
        recall = self.matched / max(self.objects, 1)
        # Where nothing is matched or remains, F1 is 0 whatever the other share is.
        total = np.where(self.matched > 0, accuracy + recall, 1.0)
        f1 = 2 * accuracy * recall / total
        return self.at(self.scores[f1.argmax()] if len(f1) else np.nan)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """The accuracy-recall curve as the data set's tools draw it.

        Returns:
            Recall and accuracy, each of 102 points by rising threshold: the end (1, 0), the points
            at 100 thresholds from 0 to the highest score, where an accuracy below the one before is
            raised to it, and the end (0, 1). Without detections, the two ends.
        """
        thresholds: Iterable[float] = (
            [] if np.isnan(self.max_score) else np.linspace(0, self.max_score, CURVE_POINTS)
        )
        points = [self.at(threshold) for threshold in thresholds]
        accuracy = np.maximum.accumulate([0.0, *(point.accuracy for point in points)])
        return (
            np.array([1.0, *(point.recall for point in points), 0.0]),
            np.append(accuracy, 1.0),
        )


def sweep_scores(
    images: Iterable[tuple[ImageBoxes, ImageBoxes]],
    classes: Sequence[int],
    size_rule: str = "long_side",
) -> dict[str, ScoreSweep]:
    """Match detections to objects at every score threshold.

    Args:
        images: annotated and detected boxes of every image; also of those without detections,
            whose objects would be missing in the recall.
        classes: the evaluated classes.
        size_rule: one of ``SIZE_RULES``.

    Returns:
        The counts of each of ``SIZE_BINS``, exact at every threshold: what is matched changes only
        at a score of the image itself, so few matchings are enough.

    Raises:
        ValueError: there is no such size rule.
    """
    if size_rule not in SIZE_RULES:
        raise ValueError(f"The size rule '{size_rule}' is unknown: use {' or '.join(SIZE_RULES)}.")
    objects = np.zeros(len(SIZE_BINS), dtype=np.int64)
    events: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    max_score = np.nan
    for annotated, detected in images:
        if len(detected):
            max_score = np.fmax(max_score, detected.scores.max())
        annotated = annotated[np.isin(annotated.classes, classes)]
        detected = detected[np.isin(detected.classes, classes)]
        objects += _in_bins(annotated.boxes, size_rule).sum(axis=0)
        for label in np.unique(detected.classes):
            there, found = (boxes[boxes.classes == label] for boxes in (annotated, detected))
            events.extend(_changes(there, found, size_rule))
    return _accumulate(events, objects, float(max_score))


def _changes(
    annotated: ImageBoxes, detected: ImageBoxes, size_rule: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What one class in one image adds to the counts, from the highest score down.

    Yields:
        Scores (N,), and what (N, bins) matched and remaining detections become more at them.
    """
    ious = overlaps(annotated.boxes, detected.boxes)
    paired = (ious > IOU_THRESHOLD).any(axis=0)
    in_bins = _in_bins(detected.boxes, size_rule)
    # A detection that no object can match counts in the bins of its own size, whatever else is.
    yield (
        detected.scores[~paired],
        np.zeros_like(in_bins[~paired], int),
        in_bins[~paired].astype(int),
    )
    object_in_bins = _in_bins(annotated.boxes, size_rule)
    before = np.zeros((2, len(SIZE_BINS)), dtype=int)
    for score in np.unique(detected.scores[paired])[::-1]:
        active = paired & (detected.scores >= score)
        match = _match(ious, active)
        matched = object_in_bins[match[match >= 0]].sum(axis=0)
        kept = matched + in_bins[active & (match < 0)].sum(axis=0)
        now = np.stack([matched, kept])
        yield np.array([score]), *(now - before)[:, None]
        before = now


def _match(ious: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Match pairs of the highest IoU first.

    Args:
        ious: (objects, detections).
        active: (detections,) bool, those that take part.

    Returns:
        (detections,) the index of the matched object, or -1.
    """
    match = np.full(ious.shape[1], -1)
    rows, columns = np.nonzero((ious > IOU_THRESHOLD) & active)
    taken = set()
    # Of equal pairs the one of the first object comes first, then of the first detection.
    for pair in np.argsort(-ious[rows, columns], kind="stable"):
        row, column = rows[pair], columns[pair]
        if match[column] < 0 and row not in taken:
            match[column] = row
            taken.add(row)
    return match


def _in_bins(boxes: np.ndarray, size_rule: str) -> np.ndarray:
    """(N, bins) bool: in which of ``SIZE_BINS`` boxes of shape (N, 4) are."""
    sides = boxes[:, 2:]
    size = sides.max(axis=1) if size_rule == "long_side" else np.sqrt(sides.prod(axis=1))
    edges = np.array(list(SIZE_BINS.values()))
    return (size[:, None] >= edges[:, 0]) & (size[:, None] < edges[:, 1])


def _accumulate(
    events: list[tuple[np.ndarray, np.ndarray, np.ndarray]], objects: np.ndarray, max_score: float
) -> dict[str, ScoreSweep]:
    scores = np.concatenate([np.zeros(0), *(event[0] for event in events)])
    changes = np.zeros((0, len(SIZE_BINS)), dtype=int)
    matched, kept = (np.concatenate([changes, *(e[i] for e in events)]) for i in (1, 2))
    order = np.argsort(-scores, kind="stable")
    # Of equal scores, the counts after the last.
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    matched, kept = (counts[order].cumsum(axis=0)[last] for counts in (matched, kept))
    return {
        name: ScoreSweep(scores[order][last], matched[:, b], kept[:, b], int(objects[b]), max_score)
        for b, name in enumerate(SIZE_BINS)
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 1.0
