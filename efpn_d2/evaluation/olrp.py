"""The optimal localisation-recall-precision error (oLRP) of Oksuz et al.

With the detections of a class whose score is at least s, matched to objects at an IoU of at least
tau, the LRP error is

    LRP(s) = (sum over matches of (1 - IoU) / (1 - tau)  +  FP  +  FN) / (TP + FP + FN),

0 for a perfect detector and 1 for one that finds nothing. oLRP is its least value over s, and its
three components are taken there: localisation is the mean of 1 - IoU of the matches, the others are
1 - precision and 1 - recall.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes, overlaps
from efpn_d2.evaluation.score_matching import IGNORED, match_by_score


@dataclass(frozen=True)
class OptimalLRP:
    """Errors of K classes in [0, 1], lower is better.

    A class without an object has NaN everywhere. One that is never found has error and
    ``false_negative`` 1 and NaN else.
    """

    error: np.ndarray
    localisation: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    threshold: np.ndarray  # the score s of the least error

    def means(self) -> dict[str, float]:
        """In percent, each the mean over the classes that have it."""
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
    """Evaluate the detections of all images.

    Args:
        images: annotated boxes, which of them are crowds (N,), and detected boxes of each image.
            Crowds neither count nor punish, as in COCO.
        classes: K ids.
        iou_threshold: tau, in (0, 1).
        max_dets: how many detections per image and class count, best scores first.
    """
    matches: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in classes]
    objects = np.zeros(len(classes), dtype=int)
    tau = np.array([iou_threshold])
    for annotated, crowd, detected in images:
        for k, label in enumerate(classes):
            of_class = annotated.classes == label
            ignored = crowd[of_class]
            objects[k] += np.count_nonzero(~ignored)
            found = detected[detected.classes == label]
            if not len(found):
                continue
            found = found[np.argsort(-found.scores, kind="stable")[:max_dets]]
            overlap = overlaps(found.boxes, annotated.boxes[of_class], of_first=ignored)
            (match,) = match_by_score(overlap, ignored, tau)
            counts = match != IGNORED
            rows = np.arange(len(match))
            iou = np.append(overlap, np.zeros((len(match), 1)), axis=1)[rows, match]
            matches[k].append((found.scores[counts], np.where(match >= 0, iou, -1.0)[counts]))
    columns = [_optimum(m, n, iou_threshold) for m, n in zip(matches, objects, strict=True)]
    return OptimalLRP(*np.array(columns, dtype=float).reshape(-1, 5).T)


def _optimum(
    matches: list[tuple[np.ndarray, np.ndarray]], objects: int, tau: float
) -> tuple[float, float, float, float, float]:
    """Error, its components and the threshold of one class.

    Args:
        matches: scores and IoU of its detections, the IoU -1 for false positives.
    """
    nan = float("nan")
    if not objects:
        return nan, nan, nan, nan, nan
    scores = np.concatenate([np.zeros(0), *(scores for scores, _ in matches)])
    ious = np.concatenate([np.zeros(0), *(iou for _, iou in matches)])
    order = np.argsort(-scores, kind="stable")
    scores, ious = scores[order], ious[order]
    # A threshold takes all detections of its score or none.
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    true = ious >= 0
    tp = true.cumsum()[last]
    if not tp.size or not tp[-1]:
        return 1.0, nan, nan, 1.0, nan
    fp = (~true).cumsum()[last]
    distance = np.where(true, 1 - ious, 0.0).cumsum()[last]
    errors = (distance / (1 - tau) + fp + objects - tp) / (fp + objects)
    # Where there is no match the error is 1, and so it may be, at most, where there is one.
    best = np.where(tp > 0, errors, np.inf).argmin()
    tp, fp, distance = tp[best], fp[best], distance[best]
    return errors[best], distance / tp, fp / (tp + fp), 1 - tp / objects, scores[last[best]]
