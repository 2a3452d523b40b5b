"""Place the labels of boxes without covering an object or another label."""

import numpy as np

# Distances between box and label to try, in multiples of the label's height.
_RINGS = (0.0, 0.6, 1.3, 2.2, 3.4)


def place_labels(
    boxes: np.ndarray,
    sizes: np.ndarray,
    canvas: tuple[int, int],
) -> list[tuple[int, int] | None]:
    """Find the nearest free place outside every box for the label of each box.

    Neither a label nor the leader line from a distant one to its box crosses another box or label.
    Labels are placed in the given order, so put important ones first. A label without a free place
    is left out: in a crowd, visible objects are worth more than names.

    Args:
        boxes: (B, 4) XYXY in canvas pixels; no label covers any of them.
        sizes: (B, 2) width and height of each label; 0 width means that the box has none.
        canvas: (height, width); labels are inside.

    Returns:
        For each box the (x, y) of its label's top left corner, or None.
    """
    height, width = canvas
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    occupied = boxes
    places: list[tuple[int, int] | None] = []
    for box, (w, h) in zip(boxes, sizes, strict=True):
        place = None
        if w > 0:
            corners = _candidates(box, w, h)
            # Wide labels of boxes near a side fit only if they are moved inward.
            moved = np.column_stack([corners[:, 0].clip(0, max(width - w, 0)), corners[:, 1]])
            corners = np.concatenate([corners, moved])
            inside = (corners >= 0).all(axis=1)
            inside &= (corners[:, 0] + w <= width) & (corners[:, 1] + h <= height)
            areas = np.hstack([corners, corners + (w, h)])
            for i in np.flatnonzero(inside & ~_covers_any(areas, occupied)):
                line = leader_line(box, tuple(corners[i]), (w, h))
                if line is None or not _crosses_any(line, occupied):
                    place = tuple(corners[i].astype(int).tolist())
                    occupied = np.vstack([occupied, areas[i : i + 1]])
                    break
        places.append(place)
    return places


def _candidates(box: np.ndarray, w: float, h: float) -> np.ndarray:
    """Return top left corners (M, 2) around the box, from best to worst."""
    x0, y0, x1, y1 = np.floor(box[0]), np.floor(box[1]), np.ceil(box[2]), np.ceil(box[3])
    middle_x, middle_y = (x0 + x1 - w) // 2, (y0 + y1 - h) // 2
    corners = []
    for ring in _RINGS:
        gap = np.round(ring * h)
        above, below, left, right = y0 - h - gap, y1 + gap, x0 - w - gap - 1, x1 + gap + 1
        corners += [(x0, above), (x1 - w, above), (middle_x, above)]
        corners += [(x0, below), (x1 - w, below), (middle_x, below)]
        corners += [(right, middle_y), (left, middle_y), (right, y0), (left, y0)]
        corners += [(right, above), (left, above), (right, below), (left, below)]
    return np.array(corners)


def _covers_any(areas: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """Return which of the (M, 4) areas overlap any of the (K, 4) occupied ones, as (M,) bool."""
    a, b = areas[:, None], occupied[None]
    apart = (a[..., 2] <= b[..., 0]) | (b[..., 2] <= a[..., 0])
    apart |= (a[..., 3] <= b[..., 1]) | (b[..., 3] <= a[..., 1])
    return np.asarray((~apart).any(axis=1))


def _crosses_any(line: tuple[float, float, float, float], occupied: np.ndarray) -> bool:
    """Return whether the inner part of a line crosses any of the (K, 4) boxes."""
    start, end = np.array(line[:2]), np.array(line[2:])
    points = start + np.linspace(0.05, 0.95, 32)[:, None] * (end - start)
    inside = (points[:, None] > occupied[None, :, :2]) & (points[:, None] < occupied[None, :, 2:])
    return bool(inside.all(axis=2).any())


def leader_line(
    box: np.ndarray, place: tuple[int, int], size: tuple[int, int], least: float = 2
) -> tuple[float, float, float, float] | None:
    """Return the shortest line from label to box; None if their distance is at most ``least``.

    Args:
        box: (4,) XYXY.
        place: top left corner of the label.
        size: width and height of the label.
        least: distance in pixels up to which no line is needed.

    Returns:
        (x, y) at the box, then (x, y) at the label.
    """
    ends = [
        _nearest(box[axis], box[axis + 2], place[axis], place[axis] + size[axis]) for axis in (0, 1)
    ]
    (box_x, label_x), (box_y, label_y) = ends
    if max(abs(box_x - label_x), abs(box_y - label_y)) <= least:
        return None
    return box_x, box_y, label_x, label_y


def _nearest(a0: float, a1: float, b0: float, b1: float) -> tuple[float, float]:
    """Return the nearest points of two intervals, or the middle of their intersection."""
    if a1 < b0:
        return a1, b0
    if b1 < a0:
        return a0, b1
    middle = (max(a0, b0) + min(a1, b1)) / 2
    return middle, middle
