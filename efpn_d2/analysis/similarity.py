"""Constants of the similarities that anchors can be assigned to objects by."""

from typing import NamedTuple

import numpy as np

from efpn_d2.analysis.anchors import grid_sizes
from efpn_d2.analysis.detector import DetectorGeometry
from efpn_d2.analysis.objects import ObjectTable


class SimilarityConstants(NamedTuple):
    """``MODEL.EFPN.SIMILARITY_CONSTANTS`` of each similarity."""

    nwd: list[float]
    simd: list[float]


def similarity_constants(objects: ObjectTable, geometry: DetectorGeometry) -> SimilarityConstants:
    """Those of a data set and a detector, rounded to three decimals."""
    nwd, simd = [nwd_constant(objects)], simd_constants(objects, geometry)
    return SimilarityConstants(*([round(x, 3) for x in values] for values in (nwd, simd)))


def nwd_constant(objects: ObjectTable) -> float:
    """Mean sqrt(w h) of the objects, in pixels of the network's input.

    Of AI-TOD, whose mean size is 12.8 px, it is what the authors of NWD take.
    """
    return float(objects.sizes.mean())


def simd_constants(objects: ObjectTable, geometry: DetectorGeometry) -> tuple[float, float]:
    """The means of abs(dx) / (w + w') and abs(dy) / (h + h'), over all pairs in an image.

    A pair is an object and an anchor of any level and cell of its padded image, as in the article
    on SimD; dx and dy are the distances of their centres, w and h their sides.
    """
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    centres = (objects.boxes[:, 2:] + objects.boxes[:, :2]) / 2
    image_sizes = objects.image_sizes[objects.images]
    total, pairs = np.zeros(2), 0
    for level in geometry.anchors:
        rows, columns = grid_sizes(image_sizes, level.stride, geometry.size_divisibility).T
        for x1, y1, x2, y2 in level.boxes:
            first, own = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1])
            cells = (centres - first) / level.stride
            sums = np.stack(
                [
                    rows * _sum_of_distances(cells[:, 0], columns),
                    columns * _sum_of_distances(cells[:, 1], rows),
                ],
                axis=1,
            )
            total += (level.stride * sums / (sides + own)).sum(axis=0)
            pairs += int((rows * columns).sum())
    m, n = total / pairs
    return float(m), float(n)


def _sum_of_distances(position: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Of positions (G,) to all of 0, 1, ... ``number`` - 1 (G,): (G,)."""
    before = np.clip(np.floor(position) + 1, 0, number)  # cells that are not behind the position
    sum_before, sum_all = before * (before - 1) / 2, number * (number - 1) / 2
    return (2 * before - number) * position + sum_all - 2 * sum_before
