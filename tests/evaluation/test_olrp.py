"""oLRP by hand and against its definition, threshold by threshold."""

import math

import numpy as np
import pytest

from efpn_d2.evaluation.olrp import optimal_lrp
from tests.evaluation.boxes import boxes, random_image

pytestmark = pytest.mark.fast


def no_crowds(images):
    return [(truth, np.zeros(len(truth), bool), found) for truth, found in images]


def iou(a, b, crowd):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0
    whole = a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - width * height
    return width * height / whole


def error_at(images, label, threshold, tau, limit):
    """LRP and its components with the detections of at least one score alone."""
    tp, fp, fn, distance = 0, 0, 0, 0.0
    for truth, crowd, found in images:
        targets = [
            {"box": box, "crowd": c, "free": True}
            for box, c, k in zip(truth.boxes, crowd, truth.classes, strict=True)
            if k == label
        ]
        rows = [
            (s, b)
            for s, b, k in zip(found.scores, found.boxes, found.classes, strict=True)
            if k == label
        ]
        rows = sorted(rows, key=lambda row: -row[0])[:limit]
        for score, box in rows:
            if score < threshold:
                continue
            values = [
                (iou(box, t["box"], False), i)
                for i, t in enumerate(targets)
                if t["free"] and not t["crowd"]
            ]
            best, index = max(values, default=(0, None))
            if best >= tau:
                targets[index]["free"] = False
                tp, distance = tp + 1, distance + 1 - best
            elif not any(t["crowd"] and iou(box, t["box"], True) >= tau for t in targets):
                fp += 1
        fn += sum(t["free"] and not t["crowd"] for t in targets)
    if not tp + fn:
        return None
    total = (distance / (1 - tau) + fp + fn) / (tp + fp + fn)
    if not tp:
        return total, math.nan, math.nan, 1.0
    return total, distance / tp, fp / (tp + fp), fn / (tp + fn)


@pytest.mark.parametrize("tau", [0.5, 0.75])
@pytest.mark.parametrize("seed", range(4))
def test_least_error_over_all_thresholds(seed, tau):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(8):
        truth, found = random_image(rng, extra=2)
        images.append((truth, rng.random(len(truth)) < 0.15, found))
    limit = (3, 100)[seed % 2]
    result = optimal_lrp(images, [1, 2, 3, 4], iou_threshold=tau, max_dets=limit)
    for k, label in enumerate([1, 2, 3]):
        errors = [error_at(images, label, t, tau, limit) for t in np.arange(0, 11) / 10]
        best = min(errors, key=lambda error: error[0])
        got = [x[k] for x in (result.error, result.localisation)]
        got += [x[k] for x in (result.false_positive, result.false_negative)]
        assert got == pytest.approx(best, abs=1e-12)
        at = error_at(images, label, result.threshold[k], tau, limit)
        assert at[0] == pytest.approx(best[0], abs=1e-12)
    assert np.isnan(result.error[3])


def test_by_hand():
    """Of two objects one is found at IoU 0.8, then there is a false alarm of a lower score."""
    truth = boxes([0, 0, 10, 10, 1], [50, 0, 10, 10, 1])
    found = boxes([0, 0, 8, 10, 1], [200, 0, 9, 9, 1], scores=[0.9, 0.3])
    result = optimal_lrp(no_crowds([(truth, found)]), [1])
    assert result.error[0] == pytest.approx((0.2 / 0.5 + 1) / 2)
    assert result.localisation[0] == pytest.approx(0.2)
    assert (result.false_positive[0], result.false_negative[0]) == (0, 0.5)
    assert result.threshold[0] == 0.9
    means = {"oLRP": 70, "oLRPLoc": 20, "oLRPFP": 0, "oLRPFN": 50}
    assert result.means() == pytest.approx(means)


def test_a_threshold_takes_all_of_its_score():
    """Without the false alarm of the same score the error would be 0."""
    truth, rows = boxes([0, 0, 10, 10, 1]), ([0, 0, 10, 10, 1], [200, 0, 9, 9, 1])
    for order in (rows, rows[::-1]):
        result = optimal_lrp(no_crowds([(truth, boxes(*order, scores=[0.5, 0.5]))]), [1])
        assert result.error[0] == 0.5
        assert result.false_positive[0] == 0.5


def test_classes_that_are_never_found_or_not_there():
    """The first counts as 1 in the mean of the errors and has no localisation, the second none."""
    truth = boxes([0, 0, 10, 10, 1], [50, 0, 10, 10, 2])
    found = boxes([0, 0, 10, 10, 1], [90, 90, 9, 9, 3], scores=[0.9, 0.9])
    result = optimal_lrp(no_crowds([(truth, found)]), [1, 2, 3])
    assert result.error[:2].tolist() == [0, 1]
    assert np.isnan(result.error[2])
    assert result.means() == {"oLRP": 50, "oLRPLoc": 0, "oLRPFP": 0, "oLRPFN": 50}


def test_a_detection_on_a_crowd_does_not_count():
    truth = boxes([0, 0, 100, 100, 1], [200, 0, 10, 10, 1])
    found = boxes([20, 20, 9, 9, 1], [40, 20, 9, 9, 1], [200, 0, 10, 10, 1], scores=[0.9, 0.8, 0.7])
    result = optimal_lrp([(truth, np.array([True, False]), found)], [1])
    assert (result.error[0], result.threshold[0]) == (0, 0.7)


def test_nothing_at_all():
    for images in ([], no_crowds([(boxes(), boxes())])):
        assert all(math.isnan(value) for value in optimal_lrp(images, [1]).means().values())
        assert all(math.isnan(value) for value in optimal_lrp(images, []).means().values())
