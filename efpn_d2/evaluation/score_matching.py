"""Which detection finds which object, best scores first: the rule of COCO and of VisDrone."""

import numpy as np

UNMATCHED, IGNORED = -1, -2


def match_by_score(overlap: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Match the detections of one class in one image, at several thresholds at once.

    A detection takes the free object of the highest overlap that reaches the threshold, of equal
    ones the last. Only if there is none may it lie on an ignored one, which is never used up.

    Args:
        overlap: (D, G) of detections by falling score and objects.
        ignored: (G,) bool, objects that neither count nor punish.
        thresholds: (T,) least overlaps, all above 0.

    Returns:
        (T, D) int: the index of the object, ``IGNORED`` or ``UNMATCHED``.
    """
    real = np.flatnonzero(~ignored)
    limits = thresholds[:, None]
    on_ignored = overlap[:, ignored].max(axis=1, initial=0.0) >= limits
    result = np.where(on_ignored, IGNORED, UNMATCHED)
    overlap = overlap[:, real]
    free = np.ones((len(thresholds), len(real)), dtype=bool)
    rows = np.arange(len(thresholds))
    for d in np.flatnonzero(overlap.max(axis=1, initial=0.0) >= thresholds.min()):
        values = np.where(free, overlap[d], -1.0)
        best = len(real) - 1 - values[:, ::-1].argmax(axis=1)
        found = values[rows, best] >= thresholds
        result[found, d] = real[best[found]]
        free[rows[found], best[found]] = False
    return result
