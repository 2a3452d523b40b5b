import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efpn_d2.evaluation.boxes import box_iou
from efpn_d2.evaluation.matching import IGNORED, UNMATCHED, match_by_score, match_detections
from tests.evaluation.boxes import boxes as image_boxes
from tests.evaluation.boxes import random_image

pytestmark = pytest.mark.fast

A, B = [0, 0, 10, 10], [20, 0, 30, 10]


def match(boxes, scores, classes, gt_boxes, gt_classes, **kwargs):
    return match_detections(
        np.array(boxes), np.array(scores), np.array(classes), gt_boxes, gt_classes, **kwargs
    )


def test_iou_of_hand_worked_boxes():
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [3, 3, 0, 0]])
    objects = np.array([[0.0, 0, 10, 10], [0, 0, 100, 10]])
    iou = box_iou(boxes, objects, np.array([False, True]))
    np.testing.assert_allclose(iou, [[1, 1], [50 / 150, 1], [0, 0]])
    np.testing.assert_allclose(box_iou(boxes[:2], objects), [[1, 0.1], [50 / 150, 0.1]])
    assert box_iou(boxes[:0], objects).shape == (0, 2)
    assert box_iou(boxes, objects[:0]).shape == (3, 0)


def test_of_equal_ious_the_last_object_is_taken_and_then_the_other():
    iou, crowd = np.array([[0.6, 0.6, 0.5], [0.6, 0.6, 0.5], [0.6, 0.6, 0.5]]), np.zeros(3, bool)
    assert match_by_score(iou, crowd, [0.5, 0.55]).tolist() == [[1, 0, 2], [1, 0, UNMATCHED]]
    twice = match([A, A], [0.9, 0.8], [0, 0], [A, A], [0, 0])
    assert twice.matched_gt.tolist() == [1, 0]


def pycocotools_matches(objects, crowd, found, thresholds):
    """(T, D) like :func:`match_by_score`, of one class; detections by falling score."""
    place = {"image_id": 1, "category_id": 1}
    annotations = [
        {"id": g, **place, "bbox": box.tolist(), "area": 1.0, "iscrowd": int(c)}
        for g, (box, c) in enumerate(zip(objects.boxes, crowd, strict=True), start=1)
    ]
    results = [
        {**place, "bbox": box.tolist(), "score": float(score)}
        for box, score in zip(found.boxes, found.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, "images": [{"id": 1}], "categories": [{"id": 1}]}
        coco.dataset["annotations"] = annotations
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array(thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    (image,) = evaluation.evalImgs
    matches = image["dtMatches"].astype(int) - 1
    return np.where((matches >= 0) & image["dtIgnore"], IGNORED, matches)


@pytest.mark.parametrize("seed", range(30))
def test_matches_are_those_of_pycocotools_with_ties_and_crowds(seed):
    rng = np.random.default_rng(seed)
    objects, found = random_image(rng, num_classes=1, extra=3)
    # Each object twice, so that every IoU ties; detections in the order that they come in.
    objects = objects[np.repeat(np.arange(len(objects)), 2)]
    found = found[np.argsort(-found.scores, kind="stable")]
    crowd = rng.random(len(objects)) < 0.2
    thresholds = (0.1, 0.5, 0.75, 1.0)
    got = match_by_score(box_iou(found.boxes, objects.boxes, crowd), crowd, thresholds)
    np.testing.assert_array_equal(got, pycocotools_matches(objects, crowd, found, thresholds))


def test_threshold_of_one_is_reached_by_a_box_that_is_a_rounding_off():
    (box,) = image_boxes([0.1, 0.2, 0.3, 0.7, 1]).boxes
    iou = np.array([[1 - 1e-12]])
    assert match_by_score(iou, np.array([False]), [1.0]).tolist() == [[0]]
    assert match_by_score(box_iou(box[None], box[None]), np.array([True]), [1.0]) == IGNORED


def test_found_wrong_and_missed():
    result = match([A, [50, 50, 60, 60]], [0.9, 0.8], [1, 1], [A, B], [1, 1])
    assert result.true_positive.tolist() == [True, False]
    assert result.false_positive.tolist() == [False, True]
    assert result.missed.tolist() == [False, True]
    assert result.matched_gt.tolist() == [0, UNMATCHED]


def test_second_detection_of_an_object_is_false_and_the_better_score_wins():
    result = match([[0, 0, 10, 9], A], [0.7, 0.9], [0, 0], [A], [0])
    assert result.matched_gt.tolist() == [UNMATCHED, 0]
    assert result.false_positive.tolist() == [True, False]


def test_class_must_agree():
    result = match([A], [0.9], [2], [A], [1])
    assert result.false_positive.all() and result.missed.all()


def test_iou_threshold_is_inclusive():
    half = [0, 0, 10, 5]  # IoU with A is exactly 0.5
    assert match([half], [0.9], [0], [A], [0]).true_positive.all()
    assert match([[0, 0, 10, 4.99]], [0.9], [0], [A], [0]).false_positive.all()


def test_score_threshold_is_inclusive_and_low_scores_count_neither_way():
    result = match([A, A], [0.5, 0.49], [0, 0], [B], [0], score_threshold=0.5)
    assert result.false_positive.tolist() == [True, False]


def test_crowd_is_never_missed_and_absorbs_any_number_of_detections():
    crowd = [0, 0, 100, 100]
    boxes = [A, B, [200, 0, 210, 10]]
    result = match(boxes, [0.9, 0.8, 0.7], [0, 0, 0], [crowd], [0], gt_crowd=[True])
    assert result.false_positive.tolist() == [False, False, True]
    assert not result.true_positive.any() and not result.missed.any()


def test_countable_object_is_preferred_over_a_better_overlapping_crowd():
    result = match([[0, 0, 10, 8]], [0.9], [0], [A, [0, 0, 50, 50]], [0, 0], gt_crowd=[0, 1])
    assert result.matched_gt.tolist() == [0]


@pytest.mark.parametrize("detections, objects", [(0, 0), (0, 2), (2, 0)])
def test_empty_sides(detections, objects):
    result = match(
        [A, B][:detections], [0.9] * detections, [0] * detections, [A, B][:objects], [0] * objects
    )
    assert result.false_positive.sum() == (0 if objects else detections)
    assert result.missed.sum() == (0 if detections else objects)


def test_disagreeing_lengths_are_named():
    with pytest.raises(ValueError, match="2 detections, but 1 entries in 'scores'"):
        match([A, B], [0.9], [0, 0], [A], [0])


def slow_reference(boxes, scores, classes, gts, score_threshold, iou_threshold):
    """One detection and one object at a time, in plain Python."""

    def area(b):
        return max(b[2] - b[0], 0) * max(b[3] - b[1], 0)

    def overlap(b, gt):
        g = gt["box"]
        cut = area([max(b[0], g[0]), max(b[1], g[1]), min(b[2], g[2]), min(b[3], g[3])])
        whole = area(b) if gt["crowd"] else area(b) + area(g) - cut
        return cut / whole if whole else 0.0

    verdict, used = ["-"] * len(boxes), set()
    for d in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if scores[d] < score_threshold:
            continue
        for countable in (True, False):
            options = []
            for i, gt in enumerate(gts):
                if gt["class"] != classes[d] or countable == gt["crowd"]:
                    continue
                if i in used and not gt["crowd"]:
                    continue
                if overlap(boxes[d], gt) >= iou_threshold:
                    options.append((overlap(boxes[d], gt), i))
            if options:
                used.add(max(options)[1])
                verdict[d] = "TP" if countable else "ignored"
                break
        else:
            verdict[d] = "FP"
    missed = [i not in used and not g["crowd"] for i, g in enumerate(gts)]
    return verdict, missed


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_slow_reference_on_crowded_scenes(seed):
    rng = np.random.default_rng(seed)
    count, objects = rng.integers(0, 30), rng.integers(0, 15)
    corner = rng.integers(0, 20, (objects, 2))
    gt_boxes = np.hstack([corner, corner + rng.integers(3, 15, (objects, 2))])
    gt_classes, crowd = rng.integers(0, 3, objects), rng.random(objects) < 0.2
    if objects:
        boxes = gt_boxes[rng.integers(0, objects, count)] + rng.integers(-2, 3, (count, 4))
    else:
        boxes = rng.integers(0, 20, (count, 4))
    scores, classes = rng.random(count).round(1), rng.integers(0, 3, count)

    got = match_detections(boxes, scores, classes, gt_boxes, gt_classes, crowd, score_threshold=0.3)
    gts = [{"box": gt_boxes[i], "class": gt_classes[i], "crowd": crowd[i]} for i in range(objects)]
    verdict, missed = slow_reference(boxes, scores, classes, gts, 0.3, 0.5)
    assert got.true_positive.tolist() == [v == "TP" for v in verdict]
    assert got.false_positive.tolist() == [v == "FP" for v in verdict]
    assert got.missed.tolist() == missed
