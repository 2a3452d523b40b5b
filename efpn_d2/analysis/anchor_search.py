"""Anchor sizes that fit the objects of a data set: coordinate ascent on the overlap."""

from collections.abc import Sequence

import numpy as np
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from efpn_d2.analysis.anchors import best_overlaps, grid_sizes
from efpn_d2.analysis.detector import anchor_levels
from efpn_d2.analysis.objects import ObjectTable

_STEPS_PER_OCTAVE = 4
_LEAST_RATIO = 2**0.5  # of one level's size to the next finer one's
EQUAL = 1e-6  # scores that close are equal
_MAX_ROUNDS = 50


class AnchorSearch:
    """Looks for one size per level; further sizes of a level divide the octave above it evenly.

    The score of a choice is the share of objects that have an anchor which is not background (IoU
    of the lower threshold or more), plus the mean IoU of all objects with their best anchor, which
    counts up to the upper threshold, for more is no better. (The share that reaches the upper one
    would be a bad score: it gives up all objects that cannot.) Each octave of sizes counts by the
    square root of its number of objects, so that few are not given up for many. Sizes are tried in
    steps of a quarter octave. From each of several series, those that are there now and those whose
    sizes double, or grow by half an octave, one level after the other is moved to where the score
    is highest, between its neighbours, until none moves; the best end counts. A level that no
    object needs stays next to the others.
    """

    def __init__(
        self,
        objects: ObjectTable,
        strides: Sequence[float],
        aspect_ratios: Sequence[Sequence[float]],
        *,
        sizes_per_level: Sequence[int],
        offset: float,
        size_divisibility: int,
        thresholds: tuple[float, float],
        start: Sequence[float],
        max_objects: int = 20000,
    ) -> None:
        """
        Args:
            objects: of these, ``max_objects`` evenly spread over the list are looked at.
            strides: of the levels, from fine to coarse.
            aspect_ratios: h / w of the anchors of each level.
            sizes_per_level: number of anchor sizes of each level.
            offset: ``MODEL.ANCHOR_GENERATOR.OFFSET``.
            size_divisibility: images are padded to multiples of it.
            thresholds: IoU below which an anchor is background, and from which it is an object.
            start: the present size of each level, the least where it has more.
        """
        chosen = np.unique(np.linspace(0, len(objects.boxes) - 1, max_objects).astype(int))
        self._boxes = objects.boxes[chosen]
        self._weights = octave_weights(objects.sizes[chosen])
        self._image_sizes = objects.image_sizes[objects.images[chosen]]
        self._strides = list(strides)
        self._ratios = [list(ratios) for ratios in aspect_ratios]
        self._steps = [[2 ** (i / count) for i in range(count)] for count in sizes_per_level]
        self._offset = offset
        self._divisibility = size_divisibility
        self._thresholds = thresholds
        low, high = np.log2(np.quantile(objects.sizes, (0.005, 0.995))).tolist()
        exponents = np.arange(low - 0.5, high + len(self._strides), 1 / _STEPS_PER_OCTAVE)
        self._sizes = np.unique([*start, *(rounded(2**x) for x in exponents)])
        self._start = list(start)

    def run(self) -> list[list[float]]:
        """The anchor sizes of each level, in pixels of the network's input."""
        ious = [self._candidate_ious(level) for level in range(len(self._strides))]
        ends = [self._ascend(ious, series) for series in self._series(ious)]
        choice = max(ends, key=lambda end: self._total(ious, end))
        return [
            [rounded(self._sizes[k] * step) for step in steps]
            for k, steps in zip(choice, self._steps, strict=True)
        ]

    def _series(self, ious: list[np.ndarray]) -> list[list[int]]:
        """Where to start: the present sizes, and of each ratio the best geometric series."""
        starts = [[int(np.searchsorted(self._sizes, size)) for size in self._start]]
        for ratio in (_LEAST_RATIO, 2.0):
            powers = ratio ** np.arange(len(ious))
            series = [
                [int(np.abs(self._sizes - size * power).argmin()) for power in powers]
                for size in self._sizes
            ]
            starts.append(max(series, key=lambda choice: self._total(ious, choice)))
        return starts

    def _ascend(self, ious: list[np.ndarray], choice: list[int]) -> list[int]:
        """Move one level after the other until none moves."""
        for _ in range(_MAX_ROUNDS):
            before = choice
            for level in range(len(choice)):
                best = self._best_size(ious, choice, level)
                choice = [*choice[:level], best, *choice[level + 1 :]]
            if choice == before:
                break
        return choice

    def _total(self, ious: list[np.ndarray], choice: list[int]) -> float:
        return float(self._score(np.max([ious[i][k] for i, k in enumerate(choice)], axis=0)))

    def _candidate_ious(self, level: int) -> np.ndarray:
        """Best IoU (K, G) of each object with the anchors of a level, for each of K sizes."""
        stride = self._strides[level]
        grid = grid_sizes(self._image_sizes, stride, self._divisibility)
        ious = np.empty((len(self._sizes), len(self._boxes)), np.float32)
        for k, size in enumerate(self._sizes):
            generator = DefaultAnchorGenerator(
                sizes=[[float(rounded(size * step)) for step in self._steps[level]]],
                aspect_ratios=[self._ratios[level]],
                strides=[stride],
                offset=self._offset,
            )
            (anchors,) = anchor_levels(generator, [""])
            ious[k] = best_overlaps(self._boxes, grid, anchors).max(axis=1)
        return ious

    def _score(self, best: np.ndarray) -> np.ndarray:
        """Of the best IoUs (..., G) of all objects."""
        return overlap_score(best, self._thresholds, self._weights)

    def _best_size(self, ious: list[np.ndarray], choice: list[int], level: int) -> int:
        """The best size of a level between its neighbours, the present one if none is better."""
        low = self._sizes[choice[level - 1]] * _LEAST_RATIO if level else 0.0
        last = level + 1 == len(choice)
        high = np.inf if last else self._sizes[choice[level + 1]] / _LEAST_RATIO
        others = [ious[i][k] for i, k in enumerate(choice) if i != level]
        rest = np.max(others, axis=0) if others else np.zeros(len(self._boxes))
        allowed = np.flatnonzero((self._sizes >= low) & (self._sizes <= high))
        if not len(allowed):
            return choice[level]
        scores = self._score(np.maximum(ious[level][allowed], rest))
        present = self._score(np.maximum(ious[level][choice[level]], rest))
        # The smallest of equals: a level that no object needs stays next to the others.
        best = int(allowed[np.flatnonzero(scores >= scores.max() - EQUAL)[0]])
        better = scores.max() > present + EQUAL or best < choice[level]
        return best if better else choice[level]


def overlap_score(
    best: np.ndarray, thresholds: tuple[float, float], weights: np.ndarray
) -> np.ndarray:
    """What :class:`AnchorSearch` makes the most of.

    Args:
        best: (..., G), IoU of each object with its best anchor.
        thresholds: see :class:`AnchorSearch`.
        weights: (G,) of the objects, see :func:`octave_weights`.

    Returns:
        (...), from 0 to 1 plus the upper threshold.
    """
    low, high = thresholds
    return ((best >= low) + np.minimum(best, high)) @ weights


def octave_weights(sizes: np.ndarray) -> np.ndarray:
    """Weights (G,) with sum 1, in which each octave of sizes has the root of its number of objects.

    Args:
        sizes: (G,) sqrt(w h).
    """
    _, octaves, counts = np.unique(
        np.floor(np.log2(sizes)), return_inverse=True, return_counts=True
    )
    weights = 1 / np.sqrt(counts[octaves])
    return weights / weights.sum()


def rounded(size: float) -> float:
    """A size that reads well: halves below 16 pixels, whole numbers above."""
    return round(size * 2) / 2 if size < 16 else float(round(size))
