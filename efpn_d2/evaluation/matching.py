"""Match the detections of an image to its objects."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from detectron2.structures import BoxMode

from efpn_d2.evaluation.boxes import box_iou

UNMATCHED, IGNORED = -1, -2

_TO_XYWH = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


class MatchResult(NamedTuple):
    """Verdicts on the D detections and G ground-truth objects of one image.

    A detection below the score threshold or on a crowd region is neither a true nor a false
    positive.
    """

    true_positive: np.ndarray  # (D,) bool
    false_positive: np.ndarray  # (D,) bool
    missed: np.ndarray  # (G,) bool; False for crowd regions
    matched_gt: np.ndarray  # (D,) int, index of the matched object, else UNMATCHED


def match_by_score(
    iou: np.ndarray, crowd: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Match the detections of one image at several IoU thresholds at once, as pycocotools does.

    A detection is matched to the unmatched object with the highest IoU that reaches the threshold;
    ties go to the last object. If there is none, it may match a crowd, which can be matched
    repeatedly.

    Args:
        iou: (D, G) of detections by falling score and objects; 0 where a pair must not match, e.g.
            if the classes differ.
        crowd: (G,) bool, objects on which detections are ignored.
        thresholds: (T,) minimum IoUs, in (0, 1].

    Returns:
        (T, D) int: the index of the object, ``IGNORED`` or ``UNMATCHED``.
    """
    # An IoU of exactly 1 may be rounded to slightly less.
    limits = np.minimum(thresholds, 1 - 1e-10)
    real = np.flatnonzero(~crowd)
    on_crowd = iou[:, crowd].max(axis=1, initial=0.0) >= limits[:, None]
    result = np.where(on_crowd, IGNORED, UNMATCHED)
    iou = iou[:, real]
    free = np.ones((len(limits), len(real)), dtype=bool)
    rows = np.arange(len(limits))
    for d in np.flatnonzero(iou.max(axis=1, initial=0.0) >= limits.min()):
        values = np.where(free, iou[d], -1.0)
        best = len(real) - 1 - values[:, ::-1].argmax(axis=1)
        found = values[rows, best] >= limits
        result[found, d] = real[best[found]]
        free[rows[found], best[found]] = False
    return result


def match_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    gt_boxes: np.ndarray,
    gt_classes: np.ndarray,
    gt_crowd: np.ndarray | None = None,
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> MatchResult:
    """Match detections to the objects of one image, class by class, best score first.

    See :func:`match_by_score`; a detection on a crowd region is ignored.

    Args:
        boxes: (D, 4) XYXY in pixels.
        scores: (D,).
        classes: (D,) class ids.
        gt_boxes: (G, 4) XYXY in pixels.
        gt_classes: (G,) class ids.
        gt_crowd: (G,) bool, COCO's ``iscrowd``; None: no crowds.
        score_threshold: detections with lower scores are ignored.
        iou_threshold: minimum IoU of a match, in (0, 1].

    Raises:
        ValueError: if the lengths of the arrays disagree.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    gt_boxes = np.asarray(gt_boxes, dtype=np.float64).reshape(-1, 4)
    scores, classes = np.asarray(scores), np.asarray(classes)
    gt_classes = np.asarray(gt_classes)
    crowd = np.zeros(len(gt_boxes), bool) if gt_crowd is None else np.asarray(gt_crowd, bool)
    _check_lengths("detections", len(boxes), scores=scores, classes=classes)
    _check_lengths("objects", len(gt_boxes), gt_classes=gt_classes, gt_crowd=crowd)

    first, second = (BoxMode.convert(x, *_TO_XYWH) for x in (boxes, gt_boxes))
    iou = box_iou(first, second, crowd)
    iou[classes[:, None] != gt_classes[None]] = 0.0
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= score_threshold]
    (match,) = match_by_score(iou[order], crowd, [iou_threshold])
    matched_gt = np.full(len(boxes), UNMATCHED)
    matched_gt[order] = np.where(match == IGNORED, UNMATCHED, match)
    false_positive = np.zeros(len(boxes), dtype=bool)
    false_positive[order] = match == UNMATCHED
    true_positive = matched_gt != UNMATCHED
    missed = ~crowd
    missed[matched_gt[true_positive]] = False
    return MatchResult(true_positive, false_positive, missed, matched_gt)


def _check_lengths(what: str, length: int, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if len(array) != length:
            raise ValueError(f"There are {length} {what}, but {len(array)} entries in '{name}'.")
