"""Which detections of an image are right, which are wrong, and which objects were missed."""

from typing import NamedTuple

import numpy as np

UNMATCHED = -1


class MatchResult(NamedTuple):
    """Verdict on the D detections and G ground-truth objects of one image.

    A detection below the score threshold, or one that lies on a crowd region, is neither a
    true nor a false positive.
    """

    true_positive: np.ndarray  # (D,) bool
    false_positive: np.ndarray  # (D,) bool
    missed: np.ndarray  # (G,) bool; never set for a crowd region
    matched_gt: np.ndarray  # (D,) int, index of the object a true positive found, else UNMATCHED


def pairwise_iou(boxes: np.ndarray, gt_boxes: np.ndarray, gt_crowd: np.ndarray) -> np.ndarray:
    """IoU of every detection with every object; for a crowd region, intersection over detection.

    Args:
        boxes: (D, 4) XYXY.
        gt_boxes: (G, 4) XYXY, in the same pixels.
        gt_crowd: (G,) bool.

    Returns:
        (D, G) values in [0, 1]; 0 where both boxes are empty.
    """
    top_left = np.maximum(boxes[:, None, :2], gt_boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], gt_boxes[None, :, 2:])
    intersection = (bottom_right - top_left).clip(min=0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)[:, None]
    gt_area = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clip(min=0).prod(axis=1)[None]
    denominator = np.where(gt_crowd[None], area, area + gt_area - intersection)
    return np.divide(
        intersection, denominator, out=np.zeros_like(intersection), where=denominator > 0
    )


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

    COCO's rule: each detection takes the free object of its class with the highest IoU of at least
    ``iou_threshold``. Only if there is none may it rest on a crowd region, which holds any number
    of detections, and then it counts neither way.

    Args:
        boxes: (D, 4) XYXY in pixels.
        scores: (D,).
        classes: (D,) class ids.
        gt_boxes: (G, 4) XYXY in the same pixels.
        gt_classes: (G,) class ids.
        gt_crowd: (G,) bool, COCO's ``iscrowd``; None: no crowds.
        score_threshold: detections below it are left out.
        iou_threshold: least overlap of a match, in (0, 1].

    Raises:
        ValueError: the lengths of the arrays disagree.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    gt_boxes = np.asarray(gt_boxes, dtype=np.float64).reshape(-1, 4)
    scores, classes = np.asarray(scores), np.asarray(classes)
    gt_classes = np.asarray(gt_classes)
    crowd = np.zeros(len(gt_boxes), bool) if gt_crowd is None else np.asarray(gt_crowd, bool)
    _check_lengths("detections", len(boxes), scores=scores, classes=classes)
    _check_lengths("objects", len(gt_boxes), gt_classes=gt_classes, gt_crowd=crowd)

    iou = pairwise_iou(boxes, gt_boxes, crowd)
    iou[classes[:, None] != gt_classes[None]] = 0.0
    taken = np.zeros(len(gt_boxes), dtype=bool)
    matched_gt = np.full(len(boxes), UNMATCHED)
    false_positive = np.zeros(len(boxes), dtype=bool)
    for d in np.argsort(-scores, kind="stable"):
        if scores[d] < score_threshold:
            break
        g = _best(iou[d], ~taken & ~crowd, iou_threshold)
        if g != UNMATCHED:
            matched_gt[d] = g
            taken[g] = True
        elif _best(iou[d], crowd, iou_threshold) == UNMATCHED:
            false_positive[d] = True
    return MatchResult(matched_gt != UNMATCHED, false_positive, ~taken & ~crowd, matched_gt)


def _best(iou: np.ndarray, candidates: np.ndarray, threshold: float) -> int:
    """Index of the candidate with the highest IoU, or UNMATCHED if that is under the threshold."""
    iou = np.where(candidates, iou, -1.0)
    if not len(iou) or iou.max() < threshold:
        return UNMATCHED
    return int(iou.argmax())


def _check_lengths(what: str, length: int, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if len(array) != length:
            raise ValueError(f"{length} {what} came with {len(array)} entries in '{name}'")
