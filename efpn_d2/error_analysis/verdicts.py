"""Classify every detection and every object as found or as a type of error.

The types follow the idea of TIDE (Bolya et al., 2020). With IoU in [0, 1] and the thresholds
``foreground_iou`` and ``background_iou`` (0.5 and 0.1), a detection is the first of these that
applies:

* found: matched to an object of its class by COCO's rule (best score first, each object once);
* a duplicate: IoU >= foreground with an object of its class that a better detection has found;
* a classification error: IoU >= foreground with an object of another class;
* a localization error: background <= IoU < foreground with an object of its class;
* both: background <= IoU < foreground with an object of another class;
* background: IoU < background with every object.

An unmatched detection on a crowd region of its class is ignored. An object is missed if no
detection found it and no classification or localization error is assigned to it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from detectron2.structures import BoxMode

from efpn_d2.evaluation.boxes import box_iou
from efpn_d2.evaluation.coco_arrays import Detections, GroundTruth, box_sizes
from efpn_d2.evaluation.matching import IGNORED, UNMATCHED, match_by_score

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


class Kind(IntEnum):
    """Verdict on a detection, or, for MISSED, on an object."""

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
    """Verdicts on the N detections of a run and the M objects of its dataset.

    ``found_score`` has one column for each of the T IoU thresholds: the score of the detection that
    found the object at that IoU, or -inf.
    """

    truth: GroundTruth
    detections: Detections
    kind: np.ndarray  # (N,) Kind, at the foreground IoU
    partner: np.ndarray  # (N,) int, the object to which it is assigned, else UNMATCHED
    partner_iou: np.ndarray  # (N,) IoU with that object
    found_by: np.ndarray  # (M,) int, the detection that found the object, else UNMATCHED
    found_score: np.ndarray  # (M, T)
    covered_score: np.ndarray  # (M,) best score of its classification or localization errors
    iou_thresholds: tuple[float, ...]

    @property
    def sizes(self) -> np.ndarray:
        """(N,) size of the assigned object, or of the detection itself at background."""
        own = box_sizes(self.detections.boxes)
        if not len(self.truth.sizes):
            return own
        return np.where(self.partner == UNMATCHED, own, self.truth.sizes[self.partner])

    def false_positive(self) -> np.ndarray:
        """Return (N,) bool: detections that are neither found nor ignored."""
        return (self.kind != Kind.FOUND) & (self.kind != Kind.IGNORED)

    def found(self, threshold: float) -> np.ndarray:
        """Return (M,) bool: objects found by a detection with a score of at least ``threshold``."""
        by = self.found_by
        if not len(self.detections.scores):
            return np.zeros(len(by), dtype=bool)
        return (by != UNMATCHED) & (self.detections.scores[by] >= threshold)

    def missed(self, threshold: float) -> np.ndarray:
        """Return (M,) bool: missed objects at that score threshold, without crowds."""
        covered = self.covered_score >= threshold
        return ~self.found(threshold) & ~covered & ~self.truth.crowd


def analyze_run(
    truth: GroundTruth,
    detections: Detections,
    *,
    iou_thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    background_iou: float = 0.1,
) -> RunAnalysis:
    """Match the detections of all images and classify every error.

    No score threshold is needed: the verdicts above a threshold do not depend on detections below
    it.

    Args:
        truth: ground truth.
        detections: detections in the same images.
        iou_thresholds: ascending; the first one is ``foreground_iou``, all of them define the
            columns of ``found_score``.
        background_iou: see the module.

    Raises:
        ValueError: if the thresholds are not ascending from above ``background_iou``.
    """
    _check_ascending(background_iou, iou_thresholds)
    limits = (iou_thresholds[0], background_iou)
    n, m = len(detections.scores), len(truth.sizes)
    kind, partner = np.full(n, int(Kind.BACKGROUND)), np.full(n, UNMATCHED)
    partner_iou, found_by = np.zeros(n), np.full(m, UNMATCHED)
    found_score = np.full((m, len(iou_thresholds)), -np.inf)
    covered_score = np.full(m, -np.inf)
    object_bounds, bounds = truth.bounds(), detections.bounds(len(truth.images))
    all_boxes, all_objects = (
        BoxMode.convert(x.boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) for x in (detections, truth)
    )
    for i in np.flatnonzero(np.diff(object_bounds)):
        objects, dets = slice(*object_bounds[i : i + 2]), slice(*bounds[i : i + 2])
        crowd, scores = truth.crowd[objects], detections.scores[dets]
        iou = box_iou(all_boxes[dets], all_objects[objects], crowd)
        same = detections.classes[dets][:, None] == truth.classes[objects][None]
        matched = match_by_score(np.where(same, iou, 0.0), crowd, iou_thresholds)
        kind[dets], local = _verdicts(iou, same, crowd, matched[0], *limits)
        first = object_bounds[i]
        partner[dets] = np.where(local == UNMATCHED, UNMATCHED, local + first)
        if len(scores):
            partner_iou[dets] = np.where(local == UNMATCHED, 0, iou[np.arange(len(scores)), local])
        for t, by_detection in enumerate(matched):
            hits = np.flatnonzero(by_detection >= 0)
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


def _check_ascending(background_iou: float, iou_thresholds: tuple[float, ...]) -> None:
    limits = (background_iou, *iou_thresholds)
    if len(limits) < 2 or any(a >= b for a, b in zip(limits, limits[1:], strict=False)):
        raise ValueError(f"The background IoU and the IoU thresholds, {limits}, must be ascending.")


def _verdicts(
    iou: np.ndarray,
    same: np.ndarray,
    crowd: np.ndarray,
    matched: np.ndarray,
    foreground: float,
    background: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of each of D detections of an image, and the object it is assigned to."""
    own = np.where(same & ~crowd, iou, -1.0)
    other = np.where(~same & ~crowd, iou, -1.0)
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    conditions = [
        matched >= 0,
        matched == IGNORED,
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
