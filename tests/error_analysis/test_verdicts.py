import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from efpn_d2.error_analysis.verdicts import IOU_THRESHOLDS, Kind, analyze_run
from efpn_d2.evaluation.matching import UNMATCHED
from tests.evaluation.random_data import detections, ground_truth, random_data

pytestmark = pytest.mark.fast

# One object of class 0, 10 x 10 px, at the origin; a strip of it is a box with that IoU.
OBJECT = [0, 0, 10, 10]


def strip(iou: float) -> list[float]:
    return [0, 0, 10, 10 * iou]


def kinds_of(boxes, classes, scores, objects=(OBJECT,), object_classes=(0,), crowd=None):
    truth = ground_truth([0] * len(objects), objects, object_classes, 1, 3, crowd)
    run = analyze_run(truth, detections([0] * len(boxes), boxes, classes, scores))
    return [Kind(k).name for k in run.kind], run


@pytest.mark.parametrize(
    ("box", "class_index", "expected"),
    [
        (strip(0.5), 0, "FOUND"),
        (strip(0.49), 0, "LOCALISATION"),
        (strip(0.1), 0, "LOCALISATION"),
        (strip(0.09), 0, "BACKGROUND"),
        (strip(0.5), 1, "CLASSIFICATION"),
        (strip(0.49), 1, "BOTH"),
        (strip(0.1), 1, "BOTH"),
        (strip(0.09), 1, "BACKGROUND"),
        ([20, 20, 30, 30], 0, "BACKGROUND"),
    ],
)
def test_kind_of_one_detection(box, class_index, expected):
    kinds, run = kinds_of([box], [class_index], [0.9])
    assert kinds == [expected]
    assert run.partner[0] == (UNMATCHED if expected == "BACKGROUND" else 0)
    covered = expected in ("FOUND", "LOCALISATION", "CLASSIFICATION")
    assert run.missed(0.9).tolist() == [not covered]
    assert run.missed(0.91).tolist() == [True]


def test_the_better_detection_finds_the_object_and_the_other_is_a_duplicate():
    kinds, run = kinds_of([strip(1.0), strip(0.6)], [0, 0], [0.3, 0.8])
    assert kinds == ["FOUND", "DUPLICATE"]  # by falling score
    assert run.detections.scores[run.found_by[0]] == 0.8
    assert run.partner_iou.tolist() == [0.6, 1.0]
    assert run.found(0.8).tolist() == [True] and run.found(0.81).tolist() == [False]


def test_an_object_of_its_class_goes_before_one_of_another():
    # IoU 0.6 with both objects: a duplicate at its own class's, not a classification error.
    kinds, _ = kinds_of(
        [OBJECT, strip(0.6)], [0, 0], [0.9, 0.8], objects=(OBJECT, OBJECT), object_classes=(0, 1)
    )
    assert kinds == ["FOUND", "DUPLICATE"]
    # IoU 0.4 with the own class's, 0.5 with the other's: the box fits the other one.
    kinds, run = kinds_of([strip(0.4)], [0], [0.9], (OBJECT, strip(0.8)), (0, 1))
    assert kinds == ["CLASSIFICATION"] and run.partner.tolist() == [1]
    assert run.missed(0.5).tolist() == [True, False]


def test_a_detection_on_a_crowd_of_its_class_does_not_count():
    crowd = ([0, 0, 50, 50],)
    kinds, run = kinds_of([[5, 5, 9, 9], [5, 5, 9, 9]], [0, 1], [0.9, 0.8], crowd, (0,), [True])
    assert kinds == ["IGNORED", "BACKGROUND"]
    assert run.false_positive().tolist() == [False, True]
    assert run.missed(0.0).tolist() == [False]


def test_size_is_the_objects_or_at_background_the_detections_own():
    _, run = kinds_of([strip(0.5), [40, 40, 44, 44]], [1, 0], [0.9, 0.8])
    assert run.sizes.tolist() == [10, 4]


def test_higher_thresholds_need_better_boxes():
    _, run = kinds_of([strip(0.72)], [0], [0.9])
    assert np.isfinite(run.found_score[0]).tolist() == [t <= 0.72 for t in IOU_THRESHOLDS]


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.05,)])
def test_thresholds_must_ascend(thresholds):
    truth, found = random_data(0)
    with pytest.raises(ValueError, match="must be ascending"):
        analyze_run(truth, found, iou_thresholds=thresholds)


def test_nothing_to_match():
    truth = ground_truth([], [], [], 2, 1)
    run = analyze_run(truth, detections([1], [OBJECT], [0], [0.5]))
    assert run.kind.tolist() == [Kind.BACKGROUND] and run.sizes.tolist() == [10]
    truth = ground_truth([0], [OBJECT], [0], 1, 1)
    run = analyze_run(truth, detections([], [], [], []))
    assert run.found(0.0).tolist() == [False] and run.missed(0.0).tolist() == [True]


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_pycocotools_at_every_threshold(seed):
    truth, found = random_data(seed)
    run = analyze_run(truth, found)
    expected = pycocotools_found_scores(truth, found)
    ours = np.where(np.isfinite(run.found_score), run.found_score, np.nan)
    np.testing.assert_array_equal(ours[~truth.crowd], expected[~truth.crowd])
    assert np.isfinite(ours).sum() > 50


def pycocotools_found_scores(truth, found) -> np.ndarray:
    """(M, T) score of the detection that found each object, NaN without one."""
    xywh = [np.r_[b[:2], b[2:] - b[:2]].tolist() for b in truth.boxes]
    annotations = [
        {"id": m + 1, "image_id": int(i), "category_id": int(k), "bbox": b, "area": 1.0}
        | {"iscrowd": int(c)}
        for m, (i, k, b, c) in enumerate(
            zip(truth.image, truth.classes, xywh, truth.crowd, strict=True)
        )
    ]
    results = [
        {"image_id": int(i), "category_id": int(k), "score": float(s)}
        | {"bbox": np.r_[b[:2], b[2:] - b[:2]].tolist()}
        for i, k, s, b in zip(found.image, found.classes, found.scores, found.boxes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": truth.images,
            "categories": [{"id": k} for k in truth.category_ids],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    scores = np.full((len(truth.sizes), len(IOU_THRESHOLDS)), np.nan)
    for image in filter(None, evaluation.evalImgs):
        by_id = dict(zip(image["dtIds"], image["dtScores"], strict=True))
        for t, matches in enumerate(image["gtMatches"]):
            for object_id, match in zip(image["gtIds"], matches, strict=True):
                if match:
                    scores[object_id - 1, t] = by_id[int(match)]
    return scores


@pytest.mark.parametrize("seed", range(4))
def test_kinds_are_those_of_a_slow_reading_of_the_definitions(seed):
    truth, found = random_data(seed)
    run = analyze_run(truth, found)
    expected = [kind for i in range(len(truth.images)) for kind in slow_kinds(truth, found, i)]
    assert [Kind(k).name for k in run.kind] == expected
    assert set(expected) == {kind.name for kind in Kind} - {"MISSED"}


def slow_kinds(truth, found, image):
    """The definitions word by word, for the detections of an image by falling score."""
    objects = [m for m in range(len(truth.sizes)) if truth.image[m] == image]
    taken = set()
    for d in (d for d in range(len(found.scores)) if found.image[d] == image):
        own = [m for m in objects if truth.classes[m] == found.classes[d]]
        crowds = [m for m in own if truth.crowd[m]]
        own = [m for m in own if not truth.crowd[m]]
        other = [m for m in objects if m not in own and not truth.crowd[m]]
        overlap = {m: slow_iou(found.boxes[d], truth.boxes[m]) for m in own + other}
        free = [m for m in own if m not in taken and overlap[m] >= 0.5]
        inside = [slow_overlap(found.boxes[d], truth.boxes[m]) for m in crowds]
        area = slow_overlap(found.boxes[d], found.boxes[d])
        if free:
            taken.add(max(free, key=overlap.get))
            yield "FOUND"
        elif any(part >= 0.5 * area for part in inside):
            yield "IGNORED"
        elif any(overlap[m] >= 0.5 for m in own):
            yield "DUPLICATE"
        elif any(overlap[m] >= 0.5 for m in other):
            yield "CLASSIFICATION"
        elif any(overlap[m] >= 0.1 for m in own):
            yield "LOCALISATION"
        elif any(overlap[m] >= 0.1 for m in other):
            yield "BOTH"
        else:
            yield "BACKGROUND"


def slow_overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def slow_iou(a, b) -> float:
    shared = slow_overlap(a, b)
    return shared / (slow_overlap(a, a) + slow_overlap(b, b) - shared)
