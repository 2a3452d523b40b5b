"""Counts and curves from the verdicts of :mod:`error_analysis`, by object size and class.

A false detection counts in the size of the object it failed at, or at background in its own.
Accuracy is TP / (TP + FP), what others call precision; all counts run over all classes together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efpn_d2.evaluation.error_analysis import FALSE_KINDS, Kind, RunAnalysis

NO_BIN = -1


class Rates(NamedTuple):
    """Accuracy, recall and F1 in [0, 1]; NaN where nothing is there to divide by."""

    objects: int
    true_positives: int
    false_positives: int

    @property
    def accuracy(self) -> float:
        """Share of the detections that are right: the precision."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the objects that are found."""
        return _ratio(self.true_positives, self.objects)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        found = 2 * self.true_positives
        return _ratio(found, self.objects + self.true_positives + self.false_positives)


class Selection(NamedTuple):
    """Which objects (M,) and detections (N,) count."""

    objects: np.ndarray
    detections: np.ndarray


def bin_index(sizes: np.ndarray, edges: Sequence[float] | np.ndarray) -> np.ndarray:
    """(N,) int: which half-open bin between ascending edges a size lies in, else NO_BIN."""
    index = np.searchsorted(np.asarray(edges), sizes, side="right") - 1
    return np.where((index < 0) | (index >= len(edges) - 1), NO_BIN, index)


def select(
    run: RunAnalysis, low: float = 0.0, high: float = math.inf, class_index: int | None = None
) -> Selection:
    """Objects that are no crowd and detections that are not ignored, of a size and a class.

    Args:
        run: the verdicts.
        low, high: ends of the half-open size bin in pixels.
        class_index: one class, by what the object is and what the detection says; None: all.
    """
    sizes, truth = run.sizes, run.truth
    objects = ~truth.crowd & (truth.sizes >= low) & (truth.sizes < high)
    detections = (run.kind != Kind.IGNORED) & (sizes >= low) & (sizes < high)
    if class_index is not None:
        objects &= truth.classes == class_index
        detections &= run.detections.classes == class_index
    return Selection(objects, detections)


def rates(run: RunAnalysis, selection: Selection, threshold: float) -> Rates:
    """Accuracy, recall and F1 of detections with at least the score ``threshold``."""
    counted = selection.detections & (run.detections.scores >= threshold)
    true = int((counted & (run.kind == Kind.FOUND)).sum())
    return Rates(int(selection.objects.sum()), true, int(counted.sum()) - true)


def best_threshold(run: RunAnalysis) -> float:
    """The score from which on detections have the highest F1; 0.5 if none is right."""
    everything = select(run)
    scores, true, false = _sweep(run, everything)
    objects = int(everything.objects.sum())
    if not len(scores) or not true[-1]:
        return 0.5
    return float(scores[np.argmax(2 * true / (objects + true + false))])


def _sweep(run: RunAnalysis, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each score that occurs, falling, with the true and false positives from it on."""
    scores = run.detections.scores[selection.detections]
    true = run.kind[selection.detections] == Kind.FOUND
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], true[order]
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else order
    return scores[last], np.cumsum(true)[last], np.cumsum(~true)[last]


class Curve(NamedTuple):
    """Points of a curve, by falling score; each (P,)."""

    recall: np.ndarray
    accuracy: np.ndarray
    score: np.ndarray


def accuracy_recall(run: RunAnalysis, selection: Selection, max_points: int = 240) -> Curve:
    """Accuracy against recall while the score threshold falls; empty without objects.

    Nothing is smoothed or interpolated; of more points than ``max_points`` a selection remains
    that is even in recall and has both ends.
    """
    scores, true, false = _sweep(run, selection)
    objects = int(selection.objects.sum())
    if not objects or not len(scores):
        return Curve(*(np.zeros(0),) * 3)
    recall, accuracy = true / objects, true / (true + false)
    at = np.arange(len(scores))
    if len(scores) > max_points:
        even = np.searchsorted(recall, np.linspace(recall[0], recall[-1], max_points))
        at = np.unique(np.r_[0, even, len(scores) - 1])
    return Curve(recall[at], accuracy[at], scores[at])


def error_counts(run: RunAnalysis, edges: Sequence[float], threshold: float) -> np.ndarray:
    """(bins, 7) int: how often each :class:`Kind` but IGNORED occurs in each size bin."""
    truth, counted = run.truth, run.detections.scores >= threshold
    counts = np.zeros((len(edges) - 1, len(Kind) - 1), dtype=int)
    object_bin, detection_bin = bin_index(truth.sizes, edges), bin_index(run.sizes, edges)
    for b in range(len(counts)):
        for kind in (Kind.FOUND, *FALSE_KINDS):
            chosen = counted & (run.kind == kind) & (detection_bin == b)
            counts[b, kind] = np.count_nonzero(chosen)
        counts[b, Kind.MISSED] = np.count_nonzero(run.missed(threshold) & (object_bin == b))
    return counts


class SizeRecall(NamedTuple):
    """Recall of objects in B narrow size bins; NaN without an object."""

    edges: np.ndarray  # (B + 1,) pixels
    objects: np.ndarray  # (B,) int
    recall: np.ndarray  # (B,) at the first IoU threshold, with all detections
    average_recall: np.ndarray  # (B,) mean over the IoU thresholds, with all detections
    recall_at_threshold: np.ndarray  # (B,) at the first IoU threshold, from the score threshold on


def size_edges(sizes: np.ndarray, bins: int = 14) -> np.ndarray:
    """(B + 1,) edges for a curve over object size, about even on a logarithmic axis.

    They are whole numbers of pixels, from at most the smallest size (itself, if that is below one)
    to above the largest one. Bins are joined until each has a fair number of objects, at least 1
    of 200, so there may be fewer than asked for. [0, 1] without an object.
    """
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return np.array([0.0, 1.0])
    low, high = max(1.0, math.floor(sizes.min())), math.floor(sizes.max()) + 1
    edges = np.unique(np.round(np.geomspace(low, max(high, low + 1), bins + 1)))
    edges[0] = min(edges[0], sizes.min())
    kept = [edges[0]]
    for edge in edges[1:]:
        if np.sum((sizes >= kept[-1]) & (sizes < edge)) >= max(1, len(sizes) / 200):
            kept.append(edge)
    kept[-1] = edges[-1]
    return np.array(kept)


def recall_by_size(run: RunAnalysis, edges: np.ndarray, threshold: float) -> SizeRecall:
    """Recall against object size, the article's Figure 1(b)."""
    truth = run.truth
    bins = np.where(truth.crowd, NO_BIN, bin_index(truth.sizes, edges))
    count = len(edges) - 1
    objects = np.bincount(bins[bins >= 0], minlength=count)

    def mean(values: np.ndarray) -> np.ndarray:
        """Mean of values of the objects in each bin."""
        total = np.bincount(bins[bins >= 0], weights=values[bins >= 0], minlength=count)
        return np.divide(total, objects, out=np.full(count, np.nan), where=objects > 0)

    hit = np.isfinite(run.found_score)
    return SizeRecall(
        np.asarray(edges),
        objects,
        mean(hit[:, 0]),
        mean(hit.mean(axis=1)),
        mean(run.found(threshold)),
    )


def score_histogram(run: RunAnalysis, selection: Selection, bins: int = 20) -> np.ndarray:
    """(2, bins) int: true and false positives by score, in equal steps from 0 to 1."""
    index = np.clip((run.detections.scores * bins).astype(int), 0, bins - 1)
    true, false = run.kind == Kind.FOUND, run.false_positive()
    return np.array(
        [np.bincount(index[selection.detections & k], minlength=bins) for k in (true, false)]
    )


def confusion(run: RunAnalysis, threshold: float) -> np.ndarray:
    """(K + 1, K + 1) int: what objects (rows) were taken for (columns).

    Found objects are on the diagonal, classification errors off it. The last column has the missed
    objects, the last row the detections at background. Other errors are not in it.
    """
    truth, detections = run.truth, run.detections
    k = len(truth.class_names)
    matrix = np.zeros((k + 1, k + 1), dtype=int)
    counted = detections.scores >= threshold
    at_object = counted & ((run.kind == Kind.FOUND) | (run.kind == Kind.CLASSIFICATION))
    rows = truth.classes[run.partner[at_object]] if len(truth.classes) else np.zeros(0, dtype=int)
    np.add.at(matrix, (rows, detections.classes[at_object]), 1)
    np.add.at(matrix, (truth.classes[run.missed(threshold)], k), 1)
    np.add.at(matrix, (k, detections.classes[counted & (run.kind == Kind.BACKGROUND)]), 1)
    return matrix


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
