"""Random boxes for the tests of the evaluators."""

import numpy as np

from efpn_d2.evaluation.boxes import ImageBoxes


def boxes(*rows, scores=None):
    """From rows of x, y, width, height and class."""
    table = np.array(rows, dtype=float).reshape(-1, 5)
    scores = np.ones(len(table)) if scores is None else np.array(scores, dtype=float)
    return ImageBoxes(table[:, :4], table[:, 4].astype(np.int64), scores)


def random_image(rng, num_classes=3, objects=12, extra=6):
    """Annotated boxes, and detections of which many overlap them, with ties of scores and boxes.

    Returns:
        Two :class:`ImageBoxes`; all numbers are multiples of 1/2, so IoUs tie and thresholds
        are hit exactly.
    """
    count = rng.integers(0, objects + 1)
    sides = rng.choice([4, 8, 16, 30, 32, 40, 96, 120], (count, 2)).astype(float)
    places = rng.integers(0, 200, (count, 2)).astype(float)
    annotated = np.hstack([places, sides])
    classes = rng.integers(1, num_classes + 1, count)
    picked = rng.integers(0, count, rng.integers(0, 2 * count + 1)) if count else np.zeros(0, int)
    moved = annotated[picked] + rng.choice([-2, -1, 0, 0, 0.5, 1], (len(picked), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    away = np.hstack([rng.integers(0, 300, (extra, 2)), rng.choice([6, 24, 64, 100], (extra, 2))])
    detected = np.vstack([moved, away])
    labels = np.concatenate([classes[picked], rng.integers(1, num_classes + 1, extra)])
    scores = rng.integers(0, 11, len(detected)) / 10
    order = rng.permutation(len(detected))
    found = ImageBoxes(detected[order], labels[order].astype(np.int64), scores[order])
    return ImageBoxes(annotated, classes.astype(np.int64), np.ones(count)), found
