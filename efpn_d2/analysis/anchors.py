"""How well anchors overlap objects: on the whole grid of cells, without going through it.

The overlap of two boxes of given sides falls with the distance of their centres in x, and in y. So
the best anchor of a shape is in the cell that is nearest, and in each row of cells those above a
threshold are neighbours, whose ends can be computed.
"""

import math
from typing import NamedTuple

import numpy as np

_ROUNDING = 1e-6  # cells; a position that close to the end of a range is in it


class AnchorLevel(NamedTuple):
    """The anchors of one level of a pyramid."""

    name: str
    stride: float  # pixels of the network's input from a cell to the next
    boxes: np.ndarray  # (A, 4) XYXY, the anchors of the first cell


class Overlaps(NamedTuple):
    """What the anchors of all levels offer to each of G objects."""

    best: np.ndarray  # (G,) IoU with the best anchor
    level: np.ndarray  # (G,) index of the level that has it, the finest of equals
    counts: np.ndarray  # (G,) anchors whose IoU reaches the threshold


def measure_overlaps(
    boxes: np.ndarray,
    image_sizes: np.ndarray,
    levels: list[AnchorLevel],
    size_divisibility: int,
    threshold: float,
) -> Overlaps:
    """Compare objects with all anchors of their image.

    Args:
        boxes: (G, 4) XYXY in pixels of the network's input.
        image_sizes: (G, 2), height and width of each object's image in the same pixels.
        levels: from fine to coarse.
        size_divisibility: images are padded to multiples of it; 0: not at all.
        threshold: least IoU of an anchor that counts.
    """
    best, count = [], np.zeros(len(boxes), int)
    for level in levels:
        grid = grid_sizes(image_sizes, level.stride, size_divisibility)
        best.append(best_overlaps(boxes, grid, level).max(axis=1))
        count += count_overlaps(boxes, grid, level, threshold).sum(axis=1)
    per_level = np.stack(best)
    return Overlaps(per_level.max(axis=0), per_level.argmax(axis=0), count)


def grid_sizes(image_sizes: np.ndarray, stride: float, size_divisibility: int) -> np.ndarray:
    """Rows and columns of cells (G, 2) on images of (G, 2) pixels, padded."""
    if size_divisibility:
        image_sizes = np.ceil(image_sizes / size_divisibility) * size_divisibility
    return np.ceil(image_sizes / stride).astype(int)


def best_overlaps(boxes: np.ndarray, grid: np.ndarray, level: AnchorLevel) -> np.ndarray:
    """IoU (G, A) of each object with the best anchor of each shape of a level.

    Args:
        boxes: (G, 4) XYXY.
        grid: (G, 2), rows and columns of cells of each object's image.
        level: its A anchors.
    """
    sides, centres = _sides(boxes), _centres(boxes)
    ious = np.empty((len(boxes), len(level.boxes)))
    for a, (own_sides, first) in enumerate(
        zip(_sides(level.boxes), _centres(level.boxes), strict=True)
    ):
        cells = np.rint((centres - first) / level.stride).clip(0, grid[:, ::-1] - 1)
        distance = np.abs(centres - first - cells * level.stride)
        common = _common_sides(sides, own_sides, distance).prod(axis=1)
        ious[:, a] = common / (sides.prod(axis=1) + own_sides.prod() - common)
    return ious


def count_overlaps(
    boxes: np.ndarray, grid: np.ndarray, level: AnchorLevel, threshold: float
) -> np.ndarray:
    """Anchors (G, A) of each shape of a level whose IoU with the object is ``threshold`` or more.

    Args: as :func:`best_overlaps`; ``threshold`` is above 0.
    """
    counts = np.empty((len(boxes), len(level.boxes)), int)
    for a, shape in enumerate(zip(_sides(level.boxes), _centres(level.boxes), strict=True)):
        counts[:, a] = _count_shape(boxes, grid, level.stride, *shape, threshold)
    return counts


def _count_shape(
    boxes: np.ndarray,
    grid: np.ndarray,
    stride: float,
    own_sides: np.ndarray,
    first: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Anchors of one shape, with its first centre, that reach the threshold: (G,)."""
    sides = _sides(boxes)
    centres = (_centres(boxes) - first) / stride  # in cells
    # IoU >= t is the same as this common area or more.
    area = threshold / (1 + threshold) * (sides.prod(axis=1) + own_sides.prod())
    widest, highest = np.minimum(sides, own_sides).T
    reach = (sides + own_sides) / 2
    half = (reach[:, 1] - area / widest) / stride
    possible = area <= widest * highest * (1 + _ROUNDING)
    first_row, last_row = _cells(centres[:, 1], half, grid[:, 0])
    count = np.zeros(len(boxes), int)
    rows = int((last_row - first_row)[possible].max(initial=-1)) + 1
    for row in range(rows):
        distance = np.abs(centres[:, 1] - first_row - row) * stride
        height = np.minimum(reach[:, 1] - distance, highest)
        inside = possible & (first_row + row <= last_row) & (height > 0)
        width = np.divide(area, height, out=np.full(len(boxes), math.inf), where=inside)
        start, end = _cells(centres[:, 0], (reach[:, 0] - width) / stride, grid[:, 1])
        count += np.where(inside, np.maximum(end - start + 1, 0), 0).astype(int)
    return count


def _cells(centre: np.ndarray, half: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, ...]:
    """First and last cell of a row of ``number`` that is within ``half`` of the centre."""
    start = np.maximum(np.ceil(centre - half - _ROUNDING), 0)
    return start, np.minimum(np.floor(centre + half + _ROUNDING), number - 1)


def _common_sides(sides: np.ndarray, own: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Sides (G, 2) of the intersection of boxes whose centres are that far apart."""
    return np.minimum((sides + own) / 2 - distance, np.minimum(sides, own)).clip(min=0)


def _sides(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:] - boxes[:, :2]


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] + boxes[:, :2]) / 2
