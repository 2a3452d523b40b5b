"""What became of every detection and every object: found, or lost to which kind of error.

The kinds are in the spirit of TIDE (Bolya et al., 2020). With IoU in [0, 1], ``foreground_iou`` and
``background_iou`` (0.5 and 0.1), a detection is, in this order,

* found: matched to an object of its class by COCO's rule (best score first, each object once);
* a duplicate: IoU >= foreground with an object of its class that a better one has found;
* a classification error: IoU >= foreground with an object of another class;
* a localisation error: background <= IoU < foreground with an object of its class;
* both: background <= IoU < foreground with an object of another class;
* background: IoU < background with every object.

What lies on a crowd region of its class, and matches nothing, is ignored. An object is missed if no
detection found it and none is a classification or localisation error at it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from efpn_d2.evaluation.coco_arrays import Detections, GroundTruth, box_sizes
from efpn_d2.visualization.matching import UNMATCHED, pairwise_iou

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


class Kind(IntEnum):
    """Verdict on a detection; MISSED alone is one on an object."""

    FOUND = 0
    MISSED = 1
    BACKGROUND = 2
    CLASSIFICATION = 3
    LOCALISATION = 4
    BOTH = 5
    DUPLICATE = 6
    IGNORED = 7


ERROR_KINDS = tuple(kind for kind in Kind if kind not in (Kind.FOUND, Kind.IGNORED))
FALSE_KINDS = tuple(kind for kind in ERROR_KINDS if kind != Kind.MISSED)


@dataclass(frozen=True)
class RunAnalysis:
    """Verdicts on the N detections of a run and on the M objects of its data set.

    ``found_score`` has a column for each of the T IoU thresholds and holds the score of the
    detection that found the object at that IoU, -inf without one.
    """

    truth: GroundTruth
    detections: Detections
    kind: np.ndarray  # (N,) of Kind, at the foreground IoU
    partner: np.ndarray  # (N,) int, the object it found or failed at, else UNMATCHED
    partner_iou: np.ndarray  # (N,) IoU with it
    found_by: np.ndarray  # (M,) int, the detection that found the object, else UNMATCHED
    found_score: np.ndarray  # (M, T)
    covered_score: np.ndarray  # (M,) best score of classification or localisation errors at it
    iou_thresholds: tuple[float, ...]

    @property
    def sizes(self) -> np.ndarray:
        """(N,) size that a detection counts in: its object's, or its own at background."""
        own = box_sizes(self.detections.boxes)
        if not len(self.truth.sizes):
            return own
        return np.where(self.partner == UNMATCHED, own, self.truth.sizes[self.partner])

    def false_positive(self) -> np.ndarray:
        """(N,) bool: neither right nor ignored."""
        return (self.kind != Kind.FOUND) & (self.kind != Kind.IGNORED)

    def found(self, threshold: float) -> np.ndarray:
        """(M,) bool: objects found by a detection with at least that score."""
        by = self.found_by
        if not len(self.detections.scores):
            return np.zeros(len(by), dtype=bool)
        return (by != UNMATCHED) & (self.detections.scores[by] >= threshold)

    def missed(self, threshold: float) -> np.ndarray:
        """(M,) bool: objects that no detection with at least that score found or failed at."""
        covered = self.covered_score >= threshold
        return ~self.found(threshold) & ~covered & ~self.truth.crowd


def analyze_run(
    truth: GroundTruth,
    detections: Detections,
    *,
    iou_thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    background_iou: float = 0.1,
) -> RunAnalysis:
    """Match the detections of all images and name every error.

    The score threshold comes later: what is found above one does not depend on what lies below.

    Args:
        truth: ground truth.
        detections: of the same images.
        iou_thresholds: ascending; the first one is ``foreground_iou``, the others give
            ``found_score``.
        background_iou: see the module.

    Raises:
        ValueError: the thresholds are not ascending from above ``background_iou``.
    """
    limits = (background_iou, *iou_thresholds)
    if len(limits) < 2 or any(a >= b for a, b in zip(limits, limits[1:], strict=False)):
        raise ValueError(f"IoU thresholds {limits} must ascend, the background's first.")
    n, m = len(detections.scores), len(truth.sizes)
    kind, partner = np.full(n, int(Kind.BACKGROUND)), np.full(n, UNMATCHED)
    partner_iou, found_by = np.zeros(n), np.full(m, UNMATCHED)
    found_score = np.full((m, len(iou_thresholds)), -np.inf)
    covered_score = np.full(m, -np.inf)
    object_bounds, bounds = truth.bounds(), detections.bounds(len(truth.images))
    for i in np.flatnonzero(np.diff(object_bounds)):
        objects, dets = slice(*object_bounds[i : i + 2]), slice(*bounds[i : i + 2])
        crowd, scores = truth.crowd[objects], detections.scores[dets]
        iou = pairwise_iou(detections.boxes[dets], truth.boxes[objects], crowd)
        same = detections.classes[dets][:, None] == truth.classes[objects][None]
        matched = match_in_order(np.where(same & ~crowd, iou, 0.0), iou_thresholds)
        kind[dets], local = _verdicts(iou, same, crowd, matched[0], iou_thresholds[0], limits[0])
        first = object_bounds[i]
        partner[dets] = np.where(local == UNMATCHED, UNMATCHED, local + first)
        if len(scores):
            partner_iou[dets] = np.where(local == UNMATCHED, 0, iou[np.arange(len(scores)), local])
        for t, by_detection in enumerate(matched):
            hits = np.flatnonzero(by_detection != UNMATCHED)
            found_score[first + by_detection[hits], t] = scores[hits]
            if t == 0:
                found_by[first + by_detection[hits]] = bounds[i] + hits
    covers = (kind == Kind.CLASSIFICATION) | (kind == Kind.LOCALISATION)
    np.maximum.at(covered_score, partner[covers], detections.scores[covers])
    return RunAnalysis(
        truth,
        detections,
        kind,
        partner,
        partner_iou,
        found_by,
        found_score,
        covered_score,
        tuple(iou_thresholds),
    )


def match_in_order(iou: np.ndarray, thresholds: tuple[float, ...]) -> np.ndarray:
    """COCO's greedy matching at several IoU thresholds at once.

    Args:
        iou: (D, G), best score first, 0 where detection and object must not match.
        thresholds: T of them, ascending.

    Returns:
        (T, D) int, the object that each detection takes: the free one with the highest IoU of at
        least the threshold; else UNMATCHED.
    """
    least = np.array(thresholds)[:, None]
    matched = np.full((len(thresholds), len(iou)), UNMATCHED)
    free = np.ones((len(thresholds), iou.shape[1]), dtype=bool)
    steps = np.arange(len(thresholds))
    for d in np.flatnonzero((iou >= thresholds[0]).any(axis=1)):
        overlap = np.where(free & (iou[d] >= least), iou[d], -1.0)
        best = overlap.argmax(axis=1)
        hit = overlap[steps, best] > 0
        matched[hit, d] = best[hit]
        free[steps[hit], best[hit]] = False
    return matched


def _verdicts(
    iou: np.ndarray,
    same: np.ndarray,
    crowd: np.ndarray,
    matched: np.ndarray,
    foreground: float,
    background: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each of D detections of an image, and the object it found or failed at."""
    own = np.where(same & ~crowd, iou, -1.0)
    other = np.where(~same & ~crowd, iou, -1.0)
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    on_crowd = np.where(same & crowd, iou, -1.0).max(axis=1) >= foreground
    conditions = [
        matched != UNMATCHED,
        on_crowd,
        best_own >= foreground,
        best_other >= foreground,
        best_own >= background,
        best_other >= background,
    ]
    kinds = [
        Kind.FOUND,
        Kind.IGNORED,
        Kind.DUPLICATE,
        Kind.CLASSIFICATION,
        Kind.LOCALISATION,
        Kind.BOTH,
    ]
    nobody = np.full(len(iou), UNMATCHED)
    at_own, at_other = own.argmax(axis=1), other.argmax(axis=1)
    partners = [matched, nobody, at_own, at_other, at_own, at_other]
    kind = np.select(conditions, [int(k) for k in kinds], int(Kind.BACKGROUND))
    return kind, np.select(conditions, partners, UNMATCHED)
