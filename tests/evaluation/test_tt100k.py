"""The protocol of TT100K, by hand and against a slow implementation written from its rules."""

import math

import numpy as np
import pytest

from efpn_d2.evaluation.tt100k import SIZE_BINS, SIZE_RULES, sweep_scores
from tests.evaluation.boxes import boxes, random_image

pytestmark = pytest.mark.fast


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def slow_evaluation(images, classes, threshold, low, high, rule):
    """Accuracy and recall at one threshold, rule after rule, with every box as a dict."""
    total = {"matched": 0, "kept": 0, "objects": 0}
    for annotated, detected in images:
        signs = [
            {"box": b, "label": c, "erased": c not in classes, "partner": None}
            for b, c in zip(annotated.boxes, annotated.classes, strict=True)
        ]
        found = [
            {"box": b, "label": c, "erased": c not in classes or s < threshold, "partner": None}
            for b, c, s in zip(detected.boxes, detected.classes, detected.scores, strict=True)
        ]
        pairs = [
            (iou(sign["box"], hit["box"]), sign, hit)
            for sign in signs
            for hit in found
            if not sign["erased"] and not hit["erased"] and sign["label"] == hit["label"]
        ]
        for overlap, sign, hit in sorted(pairs, key=lambda pair: pair[0], reverse=True):
            if overlap > 0.5 and sign["partner"] is None and hit["partner"] is None:
                sign["partner"], hit["partner"] = hit, sign
        for sign in signs:
            if not low <= size(sign["box"], rule) < high:
                sign["erased"] = True
                if sign["partner"] is not None:
                    sign["partner"]["erased"] = True
        for hit in found:
            if hit["partner"] is None and not low <= size(hit["box"], rule) < high:
                hit["erased"] = True
        kept = [hit for hit in found if not hit["erased"]]
        total["matched"] += sum(hit["partner"] is not None for hit in kept)
        total["kept"] += len(kept)
        total["objects"] += sum(not sign["erased"] for sign in signs)
    return [total["matched"] / total[x] if total[x] else 1 for x in ("kept", "objects")]


def size(box, rule):
    return max(box[2], box[3]) if rule == "long_side" else math.sqrt(box[2] * box[3])


@pytest.mark.parametrize("rule", SIZE_RULES)
@pytest.mark.parametrize("seed", range(4))
def test_every_threshold_against_the_slow_implementation(rule, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(12)]
    sweeps = sweep_scores(images, [1, 3], rule)
    for name, (low, high) in SIZE_BINS.items():
        best = 0
        for threshold in np.linspace(0, 1.05, 22):
            point = sweeps[name].at(threshold)
            expected = slow_evaluation(images, [1, 3], threshold, low, high, rule)
            assert [point.accuracy, point.recall] == expected
            if sum(expected):
                best = max(best, 2 * math.prod(expected) / sum(expected))
        # All scores are tenths, so the best of these thresholds is the best of all.
        assert sweeps[name].best().f1 == pytest.approx(best, abs=1e-12)


def test_by_hand():
    """Two signs, one of them hit twice, and a false alarm; small by the long side is < 32."""
    signs = boxes([0, 0, 20, 20, 1], [100, 0, 50, 20, 1])
    hits = boxes(
        [0, 0, 20, 20, 1],
        [0, 0, 20, 18, 1],
        [100, 0, 50, 20, 1],
        [200, 0, 31, 31, 1],
        scores=[0.9, 0.8, 0.7, 0.6],
    )
    sweep = sweep_scores([(signs, hits)], [1])
    assert (sweep["all"].at(0.5).accuracy, sweep["all"].at(0.5).recall) == (2 / 4, 1)
    assert sweep["all"].at(0.65).accuracy == 2 / 3
    assert (sweep["small"].at(0.5).accuracy, sweep["small"].at(0.5).recall) == (1 / 3, 1)
    assert (sweep["small"].objects, sweep["medium"].objects, sweep["large"].objects) == (1, 1, 0)
    assert sweep["all"].best().threshold == 0.7
    assert sweep["all"].best().f1 == pytest.approx(2 * (2 / 3) / (5 / 3))
    # By its area, 50 x 20 is small too.
    assert sweep_scores([(signs, hits)], [1], "sqrt_area")["small"].objects == 2


def test_an_overlap_of_exactly_one_half_is_no_match():
    signs = boxes([0, 0, 20, 20, 1])
    for width, accuracy in ((10, 0), (10.01, 1)):
        hits = boxes([0, 0, width, 20, 1], scores=[1])
        assert sweep_scores([(signs, hits)], [1])["all"].at(0).accuracy == accuracy


def test_nor_is_it_one_for_a_detection_whose_better_sign_is_taken():
    signs = boxes([0, 0, 20, 20, 1], [0, 0, 10, 20, 1])
    hits = boxes([0, 0, 20, 20, 1], [0, 0, 20, 20, 1], scores=[1, 1])
    point = sweep_scores([(signs, hits)], [1])["all"].at(0)
    assert (point.accuracy, point.recall) == (0.5, 0.5)


def test_the_higher_overlap_is_matched_first_not_the_higher_score():
    """The wide hit overlaps both signs; by score it would take the first and leave one missed."""
    signs = boxes([0, 0, 20, 20, 1], [8, 0, 20, 20, 1])
    hits = boxes([5, 0, 20, 20, 1], [0, 0, 20, 20, 1], scores=[0.9, 0.1])
    sweep = sweep_scores([(signs, hits)], [1])["all"]
    assert (sweep.at(0).recall, sweep.at(0).accuracy) == (1, 1)
    assert (sweep.at(0.5).recall, sweep.at(0.5).accuracy) == (0.5, 1)


def test_a_lower_threshold_can_take_a_match_away():
    """Small hit of score .9 on the small sign; a better box of score .1 belongs to it instead."""
    signs = boxes([0, 0, 31, 31, 1])
    hits = boxes([0, 0, 33, 31, 1], [0, 0, 31, 31, 1], scores=[0.9, 0.1])
    sweep = sweep_scores([(signs, hits)], [1])
    assert (sweep["small"].at(0.5).accuracy, sweep["medium"].at(0.5).accuracy) == (1, 1)
    # Now the wider hit is unmatched, and false in the bin of its own size.
    assert (sweep["small"].at(0).accuracy, sweep["medium"].at(0).accuracy) == (1, 0)


def test_sizes_at_the_edges_belong_to_the_upper_bin():
    for side, name in ((31.99, "small"), (32, "medium"), (96, "large"), (400, None)):
        sweep = sweep_scores([(boxes([0, 0, side, 1, 1]), boxes())], [1])
        counts = {x: sweep[x].objects for x in ("small", "medium", "large") if sweep[x].objects}
        assert counts == ({name: 1} if name else {})
        assert sweep["all"].objects == (name is not None)


def test_detection_on_a_sign_of_another_class_is_false():
    """Whether that class is evaluated or not."""
    for label in (2, 99):
        images = [(boxes([0, 0, 20, 20, label]), boxes([0, 0, 20, 20, 1], scores=[1]))]
        assert sweep_scores(images, [1, 2])["all"].at(0).accuracy == 0


def test_detections_of_other_classes_do_not_count():
    images = [(boxes([0, 0, 20, 20, 1]), boxes([0, 0, 20, 20, 99], scores=[1]))]
    assert sweep_scores(images, [1])["all"].at(0).accuracy == 1


def test_images_without_detections_lower_the_recall():
    sign = boxes([0, 0, 20, 20, 1])
    images = [(sign, boxes([0, 0, 20, 20, 1], scores=[1])), (sign, boxes()), (boxes(), boxes())]
    assert sweep_scores(images, [1])["all"].at(0).recall == 0.5


def test_nothing_at_all():
    for images in ([], [(boxes(), boxes())]):
        sweep = sweep_scores(images, [1])["all"]
        assert (sweep.at(0.4).accuracy, sweep.at(0.4).recall, sweep.objects) == (1, 1, 0)
        assert [list(x) for x in sweep.curve()] == [[1, 0], [0, 1]]
    missed = sweep_scores([(boxes([0, 0, 9, 9, 1]), boxes())], [1])["all"].best()
    assert (missed.accuracy, missed.recall, missed.f1) == (1, 0, 0)
    assert math.isnan(missed.threshold)


def test_curve():
    """Accuracy at a higher threshold is never below that at a lower one."""
    signs = boxes([0, 0, 20, 20, 1], [100, 0, 20, 20, 1])
    hits = boxes([0, 0, 20, 20, 1], [300, 0, 9, 9, 1], [9, 9, 9, 9, 99], scores=[0.5, 0.8, 0.99])
    recall, accuracy = sweep_scores([(signs, hits)], [1])["all"].curve()
    assert len(recall) == len(accuracy) == 102
    assert (recall[0], accuracy[0], recall[-1], accuracy[-1]) == (1, 0, 0, 1)
    # The thresholds are hundredths of 0.99: 51 of them are up to 0.5, 30 more up to 0.8. In those
    # the accuracy is 0 and raised to the 1/2 before; above, nothing is left and it is 1.
    assert recall[1:-1].tolist() == [0.5] * 51 + [0] * 49
    assert accuracy[1:-1].tolist() == [0.5] * 81 + [1] * 19


@pytest.mark.parametrize("seed", range(3))
def test_curve_against_the_slow_implementation(seed):
    rng = np.random.default_rng(10 + seed)
    images = [random_image(rng, objects=4, extra=2) for _ in range(3)]
    recall, accuracy = sweep_scores(images, [1, 2])["all"].curve()
    highest = max(detected.scores.max() for _, detected in images)
    expected = [(0, 1)]
    for threshold in np.linspace(0, highest, 100):
        point = slow_evaluation(images, [1, 2], threshold, 0, 400, "long_side")
        expected.append((max(point[0], expected[-1][0]), point[1]))
    assert list(zip(accuracy, recall, strict=True)) == [*expected, (1, 0)]


def test_unknown_size_rule():
    with pytest.raises(ValueError, match="'area' is unknown: use long_side or sqrt_area"):
        sweep_scores([], [1], "area")
