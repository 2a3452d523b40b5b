"""The objects of a data set, in pixels of the network's input."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import BoxMode


class ObjectTable(NamedTuple):
    """G objects of N images."""

    boxes: np.ndarray  # (G, 4) XYXY, pixels of the network's input, within the image
    images: np.ndarray  # (G,) index of the object's image
    image_sizes: np.ndarray  # (N, 2) height and width of the network's input
    scales: np.ndarray  # (N,) pixels of the input per pixel of the file
    left_out: dict[str, int]  # why objects are not in the table, and how many

    @property
    def sizes(self) -> np.ndarray:
        """(G,) sqrt(w h), pixels of the network's input."""
        return box_sizes(self.boxes)

    @property
    def file_sizes(self) -> np.ndarray:
        """(G,) sqrt(w h), pixels of the file."""
        return self.sizes / self.scales[self.images]

    @property
    def objects_per_image(self) -> np.ndarray:
        """(N,) number of objects."""
        return np.bincount(self.images, minlength=len(self.image_sizes))


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """sqrt(w h) of boxes (R, 4) XYXY: (R,)."""
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def read_objects(
    records: Sequence[dict[str, Any]], min_size: int, max_size: int, name: str = "The data set"
) -> ObjectTable:
    """The objects that training and evaluation would see at an input scale.

    Crowds are left out, as Detectron2's training does, and so are boxes without area in the image.

    Args:
        records: a data set in Detectron2's format.
        min_size, max_size: ``INPUT.MIN_SIZE_TEST`` and ``INPUT.MAX_SIZE_TEST``.
        name: of the data set, for messages.

    Raises:
        ValueError: an image has no size, a box is none, or there are no objects.
    """
    file_sizes = np.array([_image_size(record, name) for record in records]).reshape(-1, 2)
    image_sizes = np.array([_input_size(h, w, min_size, max_size) for h, w in file_sizes.tolist()])
    boxes, images, crowds = _read_boxes(records, name)
    height_width = image_sizes[images] if len(boxes) else np.zeros((0, 2))
    if len(boxes):
        ratio = image_sizes[images] / file_sizes[images]
        limits = np.tile(height_width[:, ::-1], 2)
        boxes = np.clip(boxes * np.tile(ratio[:, ::-1], 2), 0, limits)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not kept.any():
        raise ValueError(f"{name} has no object with a box in its image: there is nothing to do.")
    return ObjectTable(
        boxes=boxes[kept],
        images=images[kept],
        image_sizes=image_sizes,
        scales=np.sqrt((image_sizes / file_sizes).prod(axis=1)),
        left_out={
            "marked as crowd": crowds,
            "boxes without area in their image": int((~kept).sum()),
        },
    )


def _image_size(record: dict[str, Any], name: str) -> tuple[int, int]:
    size = record.get("height"), record.get("width")
    if not all(isinstance(side, int | float) and side > 0 for side in size):
        raise ValueError(
            f"{name}: the image '{record.get('file_name')}' has the height {size[0]} and the width "
            f"{size[1]}: write its size into the annotations."
        )
    return record["height"], record["width"]


def _input_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    if min_size == 0:  # Detectron2's word for no scaling
        return height, width
    return ResizeShortestEdge.get_output_shape(height, width, min_size, max_size)


def _read_boxes(records: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Boxes (G, 4) XYXY in pixels of the file, their images (G,), and the number of crowds."""
    by_mode: dict[BoxMode, tuple[list[Sequence[float]], list[int]]] = defaultdict(lambda: ([], []))
    crowds = 0
    for index, record in enumerate(records):
        for annotation in record.get("annotations", ()):
            if annotation.get("iscrowd", 0):
                crowds += 1
                continue
            boxes, images = by_mode[annotation["bbox_mode"]]
            boxes.append(annotation["bbox"])
            images.append(index)
    parts = [_to_corners(*part, mode, records, name) for mode, part in by_mode.items()]
    if not parts:
        return np.zeros((0, 4)), np.zeros(0, int), crowds
    corners, of_images = map(np.concatenate, zip(*parts, strict=True))
    return corners, of_images, crowds


def _to_corners(
    boxes: list[Sequence[float]],
    images: list[int],
    mode: BoxMode,
    records: Sequence[dict[str, Any]],
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    for box, image in zip(boxes, images, strict=True):
        if len(box) != 4 or not np.isfinite(np.array(box, dtype=float)).all():
            raise ValueError(
                f"{name}: the image '{records[image].get('file_name')}' has the box {list(box)}, "
                "which is not four finite numbers: correct or remove it."
            )
    corners = BoxMode.convert(np.array(boxes, dtype=float), mode, BoxMode.XYXY_ABS)
    return corners, np.array(images)
