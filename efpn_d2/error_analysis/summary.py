"""Counts and curves from the verdicts of :mod:`error_analysis`, by object size and class.

A false detection is counted in the size of the object to which it is assigned, a detection at
background in its own size. Accuracy is TP / (TP + FP), also called precision; all counts are over
all classes together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efpn_d2.error_analysis.verdicts import FALSE_KINDS, Kind, RunAnalysis

NO_BIN = -1


class Rates(NamedTuple):
    """Accuracy, recall and F1 in [0, 1]; NaN if the denominator is 0."""

    objects: int
    true_positives: int
    false_positives: int

    @property
    def accuracy(self) -> float:
        """Share of correct detections (precision)."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of objects that are found."""
        return _ratio(self.true_positives, self.objects)

    @property
    def f1(self) -> float:
        """Harmonic mean of accuracy and recall."""
        found = 2 * self.true_positives
        return _ratio(found, self.objects + self.true_positives + self.false_positives)


class Selection(NamedTuple):
    """Masks of the objects (M,) and detections (N,) that are counted."""

    objects: np.ndarray
    detections: np.ndarray


def bin_index(sizes: np.ndarray, edges: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return (N,) int: the half-open bin between ascending edges of each size, or NO_BIN."""
    index = np.searchsorted(np.asarray(edges), sizes, side="right") - 1
    return np.where((index < 0) | (index >= len(edges) - 1), NO_BIN, index)


def select(
    run: RunAnalysis, low: float = 0.0, high: float = math.inf, class_index: int | None = None
) -> Selection:
    """Select objects and detections by size and class, without crowds and ignored detections.

    Args:
        run: the verdicts.
        low: lower end of the half-open size bin in pixels.
        high: upper end of the bin.
        class_index: class of the objects and predicted class of the detections; None: all.
    """
    sizes, truth = run.sizes, run.truth
    objects = ~truth.crowd & (truth.sizes >= low) & (truth.sizes < high)
    detections = (run.kind != Kind.IGNORED) & (sizes >= low) & (sizes < high)
    if class_index is not None:
        objects &= truth.classes == class_index
        detections &= run.detections.classes == class_index
    return Selection(objects, detections)


def rates(run: RunAnalysis, selection: Selection, threshold: float) -> Rates:
    """Compute accuracy, recall and F1 of detections with a score of at least ``threshold``."""
    counted = selection.detections & (run.detections.scores >= threshold)
    true = int((counted & (run.kind == Kind.FOUND)).sum())
    return Rates(int(selection.objects.sum()), true, int(counted.sum()) - true)


def best_threshold(run: RunAnalysis) -> float:
    """Return the score threshold with the highest F1; 0.5 if no detection is correct."""
    everything = select(run)
    scores, true, false = _sweep(run, everything)
    objects = int(everything.objects.sum())
    if not len(scores) or not true[-1]:
        return 0.5
    return float(scores[np.argmax(2 * true / (objects + true + false))])


def _sweep(run: RunAnalysis, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each distinct score, falling, with the true and false positives at that threshold."""
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
    """Compute accuracy against recall for falling score thresholds; empty without objects.

    The curve is not smoothed or interpolated. Above ``max_points``, a subset is kept that is evenly
    spaced in recall and includes both ends.
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
    """Return (bins, 7) int: counts of each :class:`Kind` except IGNORED in each size bin."""
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
    """Recall of objects in B narrow size bins; NaN without objects."""

    edges: np.ndarray  # (B + 1,) pixels
    objects: np.ndarray  # (B,) int
    recall: np.ndarray  # (B,) at the first IoU threshold, with all detections
    average_recall: np.ndarray  # (B,) mean over the IoU thresholds, with all detections
    recall_at_threshold: np.ndarray  # (B,) at the first IoU threshold and the score threshold


def size_edges(sizes: np.ndarray, bins: int = 14) -> np.ndarray:
    """Return (B + 1,) edges for a curve over object size, nearly even on a logarithmic axis.

    The edges are whole pixels, except a smallest size below one, and span all sizes. Bins are
    merged until each has at least 1 in 200 of the objects, so there may be fewer than ``bins``.
    Without objects the edges are [0, 1].
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
    """Compute recall against object size [paper Fig. 1(b)]."""
    truth = run.truth
    bins = np.where(truth.crowd, NO_BIN, bin_index(truth.sizes, edges))
    count = len(edges) - 1
    objects = np.bincount(bins[bins >= 0], minlength=count)

    def mean(values: np.ndarray) -> np.ndarray:
        """Average the values of the objects in each bin."""
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
    """Return (2, bins) int: true and false positives by score, in equal steps from 0 to 1."""
    index = np.clip((run.detections.scores * bins).astype(int), 0, bins - 1)
    true, false = run.kind == Kind.FOUND, run.false_positive()
    return np.array(
        [np.bincount(index[selection.detections & k], minlength=bins) for k in (true, false)]
    )


def confusion(run: RunAnalysis, threshold: float) -> np.ndarray:
    """Return (K + 1, K + 1) int: counts of objects (rows) by predicted class (columns).

    Found objects are on the diagonal, classification errors off it. The last column counts missed
    objects, the last row detections at background. Other errors are not included.
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
