import math

import numpy as np
import pytest

from efpn_d2.evaluation.error_analysis import FALSE_KINDS, Kind, analyze_run
from efpn_d2.evaluation.error_summary import (
    NO_BIN,
    Rates,
    accuracy_recall,
    best_threshold,
    bin_index,
    confusion,
    error_counts,
    rates,
    recall_by_size,
    score_histogram,
    select,
    size_edges,
)
from tests.evaluation.random_data import detections, ground_truth, random_data

pytestmark = pytest.mark.fast

EDGES = [0, 8, 16, math.inf]


@pytest.fixture
def small():
    """Objects of 4, 10 and 20 px; the 10 px one found at 0.9, the 4 px one taken for class 1 at
    0.6, the 20 px one found only at 0.2; at 0.5 a detection of 5 px at background."""
    objects = [[0, 0, 4, 4], [20, 20, 30, 30], [50, 50, 70, 70]]
    truth = ground_truth([0, 0, 1], objects, [0, 0, 1], 2, 2)
    boxes = [objects[1], objects[0], objects[2], [80, 0, 85, 5]]
    return analyze_run(truth, detections([0, 0, 1, 1], boxes, [0, 1, 1, 1], [0.9, 0.6, 0.2, 0.5]))


def test_bins_hold_their_lower_edge():
    assert bin_index(np.array([-1, 0, 7.9, 8, 1e9]), EDGES).tolist() == [NO_BIN, 0, 0, 1, 2]
    assert bin_index(np.array([3, 8]), [4, 8]).tolist() == [NO_BIN, NO_BIN]


def test_rates(small):
    assert rates(small, select(small), 0.5) == Rates(3, 1, 2)
    assert rates(small, select(small), 0.5).accuracy == pytest.approx(1 / 3)
    assert rates(small, select(small), 0.5).f1 == pytest.approx(2 / 6)
    assert rates(small, select(small), 0.2) == Rates(3, 2, 2)
    # The classification error counts in the object's size, and in the class that it says.
    assert rates(small, select(small, 0, 8), 0.55) == Rates(1, 0, 1)
    assert rates(small, select(small, class_index=1), 0.55) == Rates(1, 0, 1)
    assert math.isnan(rates(small, select(small, 100), 0).recall)
    assert math.isnan(rates(small, select(small), 0.95).accuracy)


def test_error_counts(small):
    at_half = error_counts(small, EDGES, 0.5)
    assert at_half[:, Kind.FOUND].tolist() == [0, 1, 0]
    assert at_half[:, Kind.MISSED].tolist() == [0, 0, 1]
    assert at_half[:, Kind.CLASSIFICATION].tolist() == [1, 0, 0]
    assert at_half[:, Kind.BACKGROUND].tolist() == [1, 0, 0]
    assert at_half.sum() == 4
    # Above the classification error's score its object is missed.
    assert error_counts(small, EDGES, 0.7)[:, Kind.MISSED].tolist() == [1, 0, 1]


def test_confusion(small):
    #      as 0, as 1, missed
    expected = [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert confusion(small, 0.5).tolist() == expected


def test_recall_by_size(small):
    curve = recall_by_size(small, np.array(EDGES), 0.5)
    assert curve.objects.tolist() == [1, 1, 1]
    assert curve.recall.tolist() == [0, 1, 1]
    assert curve.average_recall.tolist() == [0, 1, 1]
    assert curve.recall_at_threshold.tolist() == [0, 1, 0]


def test_best_threshold(small):
    # F1 from 0.9 on: 2 / (3 + 1); from 0.2 on: 4 / (3 + 4); in between it is lower.
    assert best_threshold(small) == 0.2
    truth = ground_truth([0], [[0, 0, 4, 4]], [0], 1, 1)
    assert best_threshold(analyze_run(truth, detections([], [], [], []))) == 0.5


def test_score_histogram(small):
    true, false = score_histogram(small, select(small), bins=10)
    assert true.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert false.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_size_edges_hold_all_objects():
    sizes = np.exp(np.random.default_rng(0).uniform(np.log(3.3), np.log(90), 500))
    edges = size_edges(sizes)
    assert edges[0] == 3 and edges[-1] > sizes.max()
    counts = np.histogram(sizes, edges)[0]
    assert counts.sum() == 500 and counts.min() >= 3
    assert np.diff(edges).min() > 0 and (edges == np.round(edges)).all()
    assert size_edges(np.zeros(0)).tolist() == [0, 1]
    assert size_edges(np.array([0.5, 2.5])).tolist() == [0.5, 2, 3]
    assert np.histogram([5.0], size_edges(np.array([5.0])))[0].sum() == 1


@pytest.mark.parametrize("seed", range(3))
def test_curve_and_counts_agree_with_counting_one_by_one(seed):
    truth, found = random_data(seed)
    run = analyze_run(truth, found)
    for low, high in ((0, math.inf), (8, 16)):
        selection = select(run, low, high)
        curve = accuracy_recall(run, selection, max_points=10**6)
        for recall, accuracy, score in zip(*curve, strict=True):
            counted = rates(run, selection, score)
            assert (counted.recall, counted.accuracy) == (recall, accuracy)
        thin = accuracy_recall(run, selection, max_points=8)
        assert len(thin.recall) <= 10
        assert thin.recall[0] == curve.recall[0] and thin.recall[-1] == curve.recall[-1]


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8])
def test_every_object_and_detection_is_in_one_place(threshold):
    truth, found = random_data(5)
    run = analyze_run(truth, found)
    counts = error_counts(run, EDGES, threshold).sum(axis=0)
    everything = rates(run, select(run), threshold)
    assert counts[Kind.FOUND] == everything.true_positives
    assert counts[list(FALSE_KINDS)].sum() == everything.false_positives
    matrix = confusion(run, threshold)
    k = len(truth.class_names)
    assert np.trace(matrix[:k, :k]) == counts[Kind.FOUND]
    assert matrix[:k, k].sum() == counts[Kind.MISSED]
    assert matrix[k].sum() == counts[Kind.BACKGROUND]
    assert matrix[:k, :k].sum() == counts[Kind.FOUND] + counts[Kind.CLASSIFICATION]


def test_a_perfect_run_has_a_perfect_curve():
    truth, _ = random_data(1)
    kept = ~truth.crowd
    scores = np.linspace(0.1, 1, kept.sum())
    found = detections(truth.image[kept], truth.boxes[kept], truth.classes[kept], scores)
    run = analyze_run(truth, found)
    curve = accuracy_recall(run, select(run))
    assert (curve.accuracy == 1).all() and curve.recall[-1] == 1
    assert best_threshold(run) == scores.min()


def test_no_objects_no_curve():
    truth = ground_truth([], [], [], 1, 1)
    run = analyze_run(truth, detections([0], [[0, 0, 4, 4]], [0], [0.5]))
    assert len(accuracy_recall(run, select(run)).recall) == 0
