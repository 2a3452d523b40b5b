"""The protocol of VisDrone-DET, by hand and against a slow implementation of its rules."""

import functools

import numpy as np
import pytest

from efpn_d2.evaluation.visdrone import VisDroneImage, evaluate_visdrone, ignored_share
from tests.evaluation.boxes import boxes, random_image

pytestmark = pytest.mark.fast

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def image(objects, detections, ignored=(), regions=(), height=300, width=400):
    flags = np.zeros(len(objects), bool)
    flags[list(ignored)] = True
    regions = np.array(regions, float).reshape(-1, 4)
    return VisDroneImage(objects, flags, regions, detections, height, width)


def slow_share(box, regions, height, width):
    """Pixel by pixel, counted from 1: the box begins after its corner, a region at it."""
    corners = [[max(1, int(np.floor(v + 0.5))) for v in region] for region in regions]
    x, y, w, h = (max(1, int(np.floor(v + 0.5))) for v in box)
    x, y = min(width, x), min(height, y)
    pixels = [
        (a, b)
        for a in range(x + 1, min(width, x + w) + 1)
        for b in range(y + 1, min(height, y + h) + 1)
    ]
    marked = sum(
        any(p <= a <= p + r and q <= b <= q + s for p, q, r, s in corners) for a, b in pixels
    )
    return marked / (w * h)


def slow_overlap(found, annotated, ignored):
    width = min(found[0] + found[2], annotated[0] + annotated[2]) - max(found[0], annotated[0])
    height = min(found[1] + found[3], annotated[1] + annotated[3]) - max(found[1], annotated[1])
    if width <= 0 or height <= 0:
        return 0
    area = found[2] * found[3]
    union = area + annotated[2] * annotated[3] - width * height
    return width * height / (area if ignored else union)


@functools.cache
def slow_drop(box, regions, height, width):
    return slow_share(box, regions, height, width) >= 0.5


def slow_class(images, label, threshold, limit):
    """AP and recall of one class at one threshold, with ``limit`` detections per image."""
    verdicts, objects, with_class = [], 0, 0
    for entry in images:
        size = (tuple(map(tuple, entry.regions)), entry.height, entry.width)
        truth = [
            {"box": box, "ignored": ignored, "free": True}
            for box, c, ignored in zip(
                entry.objects.boxes, entry.objects.classes, entry.ignored, strict=True
            )
            if c == label and not slow_drop(tuple(box), *size)
        ]
        with_class += bool(truth)
        objects += len(truth)
        found = [
            (score, box, c)
            for box, c, score in zip(
                entry.detections.boxes,
                entry.detections.classes,
                entry.detections.scores,
                strict=True,
            )
            if not slow_drop(tuple(box), *size)
        ]
        found = sorted(found, key=lambda entry: -entry[0])[:limit]
        for score, box, _ in (entry for entry in found if entry[2] == label):
            verdict, best = "false", threshold
            hit = None
            for target in truth:
                overlap = slow_overlap(box, target["box"], False)
                if target["free"] and not target["ignored"] and overlap >= best:
                    hit, best = target, overlap
            if hit is not None:
                verdict, hit["free"] = "true", False
            elif any(
                t["ignored"] and slow_overlap(box, t["box"], True) >= threshold for t in truth
            ):
                verdict = "ignored"
            verdicts.append((score, verdict))
    verdicts.sort(key=lambda entry: -entry[0])
    curve, hits, misses = [], 0, 0
    for _, verdict in verdicts:
        hits += verdict == "true"
        misses += verdict == "false"
        curve.append((hits / max(1, objects), hits / max(1, hits + misses)))
    area, last = 0, 0
    for i, (recall, _) in enumerate(curve):
        area += (recall - last) * max(precision for _, precision in curve[i:])
        last = recall
    return area, last, with_class


def random_case(seed):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        objects, detections = random_image(rng, objects=8, extra=4)
        ignored = np.flatnonzero(rng.random(len(objects)) < 0.2)
        regions = np.hstack([rng.integers(0, 200, (2, 2)), rng.integers(10, 90, (2, 2))])
        regions = regions[: rng.integers(0, 3)]
        images.append(image(objects, detections, ignored, regions, 210, 230))
    return images


@pytest.mark.parametrize("seed", range(3))
def test_against_the_slow_implementation(seed):
    images = random_case(seed)
    result = evaluate_visdrone(images, [1, 2, 3, 4])
    for k, label in enumerate([1, 2, 3, 4]):
        for t in (0, 1, 5, 9):
            for m, limit in ((0, 1), (1, 10), (3, 500)):
                area, recall, with_class = slow_class(images, label, THRESHOLDS[t], limit)
                assert result.recall[k, t, m] == pytest.approx(recall, abs=1e-12)
            assert result.precision[k, t] == pytest.approx(area, abs=1e-12)
        assert result.images[k] == with_class
    assert result.precision[:3].max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_share_in_ignored_regions_against_counting_pixels(seed):
    rng = np.random.default_rng(seed)
    regions = np.hstack([rng.integers(-3, 40, (3, 2)), rng.integers(0, 30, (3, 2))]).astype(float)
    table = rng.uniform(-5, 60, (40, 4)).round(1)
    table[:, 2:] = np.abs(table[:, 2:])
    expected = [slow_share(box, regions, 40, 50) for box in table]
    np.testing.assert_allclose(ignored_share(table, regions, 40, 50), expected, atol=1e-12)
    assert 0 < sum(share > 0 for share in expected) < 40


def test_half_in_an_ignored_region_is_dropped():
    """Both the annotated and the detected box; they would be a match and a miss otherwise."""
    inside = [100, 100, 20, 20, 1]
    hits = boxes(inside, [300, 100, 20, 20, 1], scores=[0.9, 0.8])
    truth = boxes(inside, [300, 100, 20, 20, 1])
    # 20 columns of the box follow its corner; the region marks those up to its own end.
    for x, dropped in ((90, True), (89, False)):
        region = [x, 90, 20, 40]
        result = evaluate_visdrone([image(truth, hits, regions=[region])], [1])
        assert result.objects.tolist() == [1 if dropped else 2]
        assert result.precision[0].tolist() == [1] * 10


def test_the_limit_is_across_classes():
    """500 detections of class 2 with higher scores leave none of class 1."""
    truth = boxes([0, 0, 20, 20, 1])
    crowd = [[200, 100, 30, 30, 2]] * 500
    found = boxes(*crowd, [0, 0, 20, 20, 1], scores=[0.9] * 500 + [0.5])
    assert evaluate_visdrone([image(truth, found)], [1, 2]).precision[0].max() == 0
    found = boxes(*crowd[:499], [0, 0, 20, 20, 1], scores=[0.9] * 499 + [0.5])
    result = evaluate_visdrone([image(truth, found)], [1, 2])
    assert result.precision[0].tolist() == [1] * 10
    assert result.recall[0, 0].tolist() == [0, 0, 0, 1]


def test_dropped_detections_do_not_use_up_the_limit():
    region = [200, 100, 50, 50]
    found = boxes(*[[205, 105, 30, 30, 1]] * 600, [0, 0, 20, 20, 1], scores=[0.9] * 600 + [0.5])
    entry = image(boxes([0, 0, 20, 20, 1]), found, regions=[region])
    assert evaluate_visdrone([entry], [1]).precision[0].tolist() == [1] * 10


def test_both_means():
    """Class 1 is found and in one image, class 2 is missed and in three."""
    images = [image(boxes([0, 0, 20, 20, 1]), boxes([0, 0, 20, 20, 1], scores=[1]))]
    images += [image(boxes([0, 0, 20, 20, 2]), boxes())] * 3
    result = evaluate_visdrone(images, [1, 2, 3])
    assert result.mean(result.precision, by_images=True) == 1 / 4
    assert result.mean(result.precision, by_images=False) == 1 / 2
    assert result.mean(result.precision[:, 0], by_images=True) == 1 / 4
    assert result.images.tolist() == [1, 3, 0]


def test_average_precision_by_hand():
    """Hit, miss, hit on three objects: 1/3 at precision 1, 1/3 at 2/3."""
    truth = boxes([0, 0, 20, 20, 1], [50, 0, 20, 20, 1], [100, 0, 20, 20, 1])
    found = boxes(
        [0, 0, 20, 20, 1], [200, 200, 9, 9, 1], [50, 0, 20, 20, 1], scores=[0.9, 0.8, 0.7]
    )
    result = evaluate_visdrone([image(truth, found)], [1])
    assert result.precision[0] == pytest.approx([1 / 3 + 2 / 9] * 10)
    assert result.recall[0, 0].tolist() == [1 / 3, 2 / 3, 2 / 3, 2 / 3]


def test_boxes_of_score_0_neither_punish_nor_find_but_count_in_the_recall():
    truth = boxes([0, 0, 20, 20, 1], [100, 0, 100, 100, 1])
    found = boxes(
        [120, 20, 20, 20, 1], [140, 20, 20, 20, 1], [0, 0, 20, 20, 1], scores=[0.9, 0.8, 0.7]
    )
    result = evaluate_visdrone([image(truth, found, ignored=[1])], [1])
    # Precision 1, for both large scores lie on the ignored box; recall 1 of 2.
    assert result.precision[0].tolist() == [0.5] * 10
    assert result.objects.tolist() == [1]


def test_equal_scores_keep_the_order_of_the_results():
    truth = boxes([0, 0, 20, 20, 1])
    hit, miss = [0, 0, 20, 20, 1], [100, 0, 20, 20, 1]
    for order, expected in (((hit, miss), 1), ((miss, hit), 0.5)):
        result = evaluate_visdrone([image(truth, boxes(*order, scores=[0.5, 0.5]))], [1])
        assert result.precision[0, 0] == expected


def test_of_equal_overlaps_the_last_object_is_taken():
    truth = boxes([0, 0, 20, 20, 1], [0, 0, 20, 20, 1])
    found = boxes([0, 0, 20, 20, 1], [0, 0, 20, 20, 1], [0, 0, 20, 20, 1], scores=[3, 2, 1])
    result = evaluate_visdrone([image(truth, found)], [1])
    assert result.precision[0].tolist() == [1] * 10
    assert result.recall[0, 9].tolist() == [0.5, 1, 1, 1]


def test_nothing_at_all():
    for images in ([], [image(boxes(), boxes())], [image(boxes(), boxes([0, 0, 9, 9, 1]))]):
        result = evaluate_visdrone(images, [1, 2])
        assert np.isnan(result.mean(result.precision, by_images=True))
        assert np.isnan(result.mean(result.precision, by_images=False))
    missed = evaluate_visdrone([image(boxes([0, 0, 9, 9, 1]), boxes())], [1])
    assert missed.mean(missed.precision, by_images=True) == 0


def test_a_region_beyond_the_image():
    entry = image(boxes([0, 0, 9, 9, 1]), boxes(), regions=[[500, 500, 9, 9]])
    assert evaluate_visdrone([entry], [1]).objects.tolist() == [1]
