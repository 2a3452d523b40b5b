"""Accuracy and recall of traffic signs by the protocol of Tsinghua-Tencent 100K.

The protocol, from the dataset's own tools, for one score threshold:

* Annotated and detected boxes of classes that are not evaluated are removed first, so a sign of a
  rare class that is detected as an evaluated class is a false positive. Detections below the
  threshold are removed too.
* Pairs of an annotated and a detected box of the same image and class with IoU > 0.5 (strictly) are
  matched in order of falling IoU, each box at most once. Scores are not used.
* For a size bin, annotated boxes outside it are removed together with the detections matched to
  them, then unmatched detections whose own size is outside.
* Accuracy is the share of the remaining detections that are matched (the precision), recall the
  share of the remaining annotated boxes, both counted over all images and classes together. If the
  denominator is 0, they are 1.

Bins are half-open. The dataset defines the size of a box as its long side; the EFPN paper uses the
square root of the area, which gives different numbers for the same detections. Both are available
by name.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, box_iou

SIZE_BINS = {"small": (0, 32), "medium": (32, 96), "large": (96, 400), "all": (0, 400)}
SIZE_RULES = ("long_side", "sqrt_area")
IOU_THRESHOLD = 0.5
CURVE_POINTS = 100


@dataclass(frozen=True)
class OperatingPoint:
    """Accuracy, recall and F1 in [0, 1] at one score threshold in one size bin."""

    threshold: float
    accuracy: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of accuracy and recall."""
        total = self.accuracy + self.recall
        return 2 * self.accuracy * self.recall / total if total else 0.0


@dataclass(frozen=True)
class ScoreSweep:
    """Counts in one size bin at every threshold at which they change.

    Attributes:
        scores: (S,) distinct scores, falling. A detection is counted at thresholds up to its score.
        matched: (S,) number of matched detections in the bin with ``scores`` as the threshold.
        kept: (S,) number of detections that remain in the bin.
        objects: number of annotated boxes in the bin.
        max_score: the highest score of any detection, including other classes; NaN without any.
    """

    scores: np.ndarray
    matched: np.ndarray
    kept: np.ndarray
    objects: int
    max_score: float

    def at(self, threshold: float) -> OperatingPoint:
        """Compute accuracy and recall of the detections with a score of at least ``threshold``."""
        count = int(np.searchsorted(-self.scores, -threshold, side="right"))
        matched, kept = (self.matched[count - 1], self.kept[count - 1]) if count else (0, 0)
        return OperatingPoint(threshold, _share(matched, kept), _share(matched, self.objects))

    def best(self) -> OperatingPoint:
        """Return the point with the highest F1; ties go to the highest threshold.

        Without detections, the threshold of the result is NaN.
        """
        accuracy = self.matched / np.maximum(self.kept, 1)
        recall = self.matched / max(self.objects, 1)
        # F1 is 0 if nothing is matched.
        total = np.where(self.matched > 0, accuracy + recall, 1.0)
        f1 = 2 * accuracy * recall / total
        return self.at(self.scores[f1.argmax()] if len(f1) else np.nan)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the accuracy-recall curve as the dataset's tools draw it.

        Returns:
            Recall and accuracy, each of 102 points by rising threshold: the end (1, 0), the points
            at 100 thresholds from 0 to the highest score, with accuracy made non-decreasing, and
            the end (0, 1). Without detections, the two ends.
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
        images: annotated and detected boxes of every image, including images without detections.
        classes: the evaluated classes.
        size_rule: one of ``SIZE_RULES``.

    Returns:
        The counts for each of ``SIZE_BINS``, exact at every threshold. In an image, matches change
        only at the scores of its own detections, so few matchings are needed.

    Raises:
        ValueError: if the size rule is unknown.
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
    """Compute how one class of one image changes the counts, from the highest score down.

    Yields:
        Scores (N,), and the changes (N, bins) of matched and of remaining detections at them.
    """
    ious = box_iou(annotated.boxes, detected.boxes)
    paired = (ious > IOU_THRESHOLD).any(axis=0)
    in_bins = _in_bins(detected.boxes, size_rule)
    # A detection without any object to match is always counted in the bins of its own size.
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
    """Match the pairs of highest IoU first.

    Args:
        ious: (objects, detections).
        active: (detections,) bool, the detections to match.

    Returns:
        (detections,) the index of the matched object, or -1.
    """
    match = np.full(ious.shape[1], -1)
    rows, columns = np.nonzero((ious > IOU_THRESHOLD) & active)
    taken = set()
    # Ties are ordered by object, then by detection.
    for pair in np.argsort(-ious[rows, columns], kind="stable"):
        row, column = rows[pair], columns[pair]
        if match[column] < 0 and row not in taken:
            match[column] = row
            taken.add(row)
    return match


def _in_bins(boxes: np.ndarray, size_rule: str) -> np.ndarray:
    """Return (N, bins) bool: which of ``SIZE_BINS`` contain the boxes of shape (N, 4)."""
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
    # For equal scores, take the counts after the last one.
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    matched, kept = (counts[order].cumsum(axis=0)[last] for counts in (matched, kept))
    return {
        name: ScoreSweep(scores[order][last], matched[:, b], kept[:, b], int(objects[b]), max_score)
        for b, name in enumerate(SIZE_BINS)
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 1.0
