"""Optimal localization-recall-precision error (oLRP) of Oksuz et al.

If the detections of a class with a score of at least s are matched to objects at an IoU of at least
tau, the LRP error is

    LRP(s) = (sum over matches of (1 - IoU) / (1 - tau)  +  FP  +  FN) / (TP + FP + FN),

0 for a perfect detector and 1 for one that finds nothing. oLRP is its minimum over s. Its three
components are taken at the minimum: localization is the mean of 1 - IoU of the matches, the others
are 1 - precision and 1 - recall.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, box_iou
from efpn_d2.evaluation.matching import IGNORED, match_by_score


@dataclass(frozen=True)
class OptimalLRP:
    """Errors of K classes in [0, 1]; lower is better.

    A class without objects has NaN everywhere. A class that is never found has ``error`` and
    ``false_negative`` 1 and NaN elsewhere.
    """

    error: np.ndarray
    localisation: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    threshold: np.ndarray  # the score s of the minimum error

    def means(self) -> dict[str, float]:
        """Return each error in percent, the mean over the classes where it is not NaN."""
        values = {
            "oLRP": self.error,
            "oLRPLoc": self.localisation,
            "oLRPFP": self.false_positive,
            "oLRPFN": self.false_negative,
        }
        known = {name: value[~np.isnan(value)] for name, value in values.items()}
        return {name: float(100 * v.mean()) if v.size else np.nan for name, v in known.items()}


def optimal_lrp(
    images: Iterable[tuple[ImageBoxes, np.ndarray, ImageBoxes]],
    classes: Sequence[int],
    *,
    iou_threshold: float = 0.5,
    max_dets: int = 100,
) -> OptimalLRP:
    """Compute oLRP of the detections of all images.

    Args:
        images: for each image, annotated boxes, a mask (N,) of the crowds among them, and detected
            boxes. Crowds are ignored, as in COCO.
        classes: K category ids.
        iou_threshold: tau, in (0, 1).
        max_dets: limit of detections per image and class, best scores first.
    """
    matches: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in classes]
    objects = np.zeros(len(classes), dtype=int)
    for annotated, crowd, detected in images:
        for k, label in enumerate(classes):
            of_class = annotated.classes == label
            ignored = crowd[of_class]
            objects[k] += np.count_nonzero(~ignored)
            found = detected[detected.classes == label]
            if not len(found):
                continue
            found = found[np.argsort(-found.scores, kind="stable")[:max_dets]]
            overlap = box_iou(found.boxes, annotated.boxes[of_class], ignored)
            (match,) = match_by_score(overlap, ignored, [iou_threshold])
            counts = match != IGNORED
            rows = np.arange(len(match))
            iou = np.append(overlap, np.zeros((len(match), 1)), axis=1)[rows, match]
            matches[k].append((found.scores[counts], np.where(match >= 0, iou, -1.0)[counts]))
    columns = [_optimum(m, n, iou_threshold) for m, n in zip(matches, objects, strict=True)]
    return OptimalLRP(*np.array(columns, dtype=float).reshape(-1, 5).T)


def _optimum(
    matches: list[tuple[np.ndarray, np.ndarray]], objects: int, tau: float
) -> tuple[float, float, float, float, float]:
    """Return the error, its components and the threshold of one class.

    Args:
        matches: scores and IoU of its detections, with IoU -1 for false positives.
        objects: number of its objects.
        tau: minimum IoU of a match.
    """
    nan = float("nan")
    if not objects:
        return nan, nan, nan, nan, nan
    scores = np.concatenate([np.zeros(0), *(scores for scores, _ in matches)])
    ious = np.concatenate([np.zeros(0), *(iou for _, iou in matches)])
    order = np.argsort(-scores, kind="stable")
    scores, ious = scores[order], ious[order]
    # A threshold includes all detections of the same score.
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    true = ious >= 0
    tp = true.cumsum()[last]
    if not tp.size or not tp[-1]:
        return 1.0, nan, nan, 1.0, nan
    fp = (~true).cumsum()[last]
    distance = np.where(true, 1 - ious, 0.0).cumsum()[last]
    errors = (distance / (1 - tau) + fp + objects - tp) / (fp + objects)
    # Without a match the error is 1, with one it is at most 1: take the minimum over the latter.
    best = np.where(tp > 0, errors, np.inf).argmin()
    tp, fp, distance = tp[best], fp[best], distance[best]
    return errors[best], distance / tp, fp / (tp + fp), 1 - tp / objects, scores[last[best]]
