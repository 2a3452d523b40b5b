"""Ground truth and detections of COCO files as flat arrays, checked while they are read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GroundTruth:
    """The I images of a data set and their M objects, sorted by image."""

    images: list[dict[str, Any]]  # COCO's entries: id, file_name, width, height
    class_names: list[str]  # K names, in the order of the category ids
    category_ids: list[int]
    image: np.ndarray  # (M,) int, index into ``images``
    boxes: np.ndarray  # (M, 4) XYXY in pixels
    classes: np.ndarray  # (M,) int, index into ``class_names``
    sizes: np.ndarray  # (M,) sqrt of the annotated area, in pixels
    crowd: np.ndarray  # (M,) bool

    def bounds(self) -> np.ndarray:
        """(I + 1,) int: the objects of image i are those from entry i up to entry i + 1."""
        return np.searchsorted(self.image, np.arange(len(self.images) + 1))


@dataclass(frozen=True)
class Detections:
    """N detections, sorted by image and within it by falling score."""

    image: np.ndarray  # (N,) int, index into the ground truth's images
    boxes: np.ndarray  # (N, 4) XYXY in pixels
    classes: np.ndarray  # (N,) int
    scores: np.ndarray  # (N,)

    def bounds(self, num_images: int) -> np.ndarray:
        """(I + 1,) int: the detections of image i are those from entry i up to entry i + 1."""
        return np.searchsorted(self.image, np.arange(num_images + 1))


def load_ground_truth(json_file: str | Path, excused_fields: Sequence[str] = ()) -> GroundTruth:
    """Read a COCO JSON.

    Args:
        json_file: the file.
        excused_fields: annotations with one of these set are treated like crowds.

    Raises:
        ValueError: the file is no COCO JSON, or an annotation in it has no image, no known category
            or no finite box; the message names the first such annotation.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
        images, annotations = content["images"], content["annotations"]
        categories = sorted(content["categories"], key=lambda entry: entry["id"])
        names = [str(entry["name"]) for entry in categories]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{json_file} is no COCO JSON: it needs the lists images, annotations and categories "
            f"({type(error).__name__}: {error})."
        ) from error
    category_ids = [entry["id"] for entry in categories]
    where = f"annotation {{}} of {json_file}"
    image, boxes, classes = _columns(annotations, images, category_ids, where)
    area = np.array([a.get("area", np.nan) for a in annotations], dtype=np.float64)
    area = np.where(np.isfinite(area), area, _areas(boxes))
    excuses = ("iscrowd", *excused_fields)
    crowd = np.array([any(a.get(key) for key in excuses) for a in annotations], dtype=bool)
    order = np.argsort(image, kind="stable")
    columns = (image, boxes, classes, np.sqrt(area.clip(min=0)), crowd)
    return GroundTruth(images, names, category_ids, *(column[order] for column in columns))


def load_detections(
    json_file: str | Path, truth: GroundTruth, *, max_dets: int = 100
) -> Detections:
    """Read the list of results that COCO evaluators write, with ``bbox`` in each entry.

    Args:
        json_file: e.g. ``coco_instances_results.json``.
        truth: the data set that the results are of.
        max_dets: how many per image and class count, best scores first.

    Raises:
        ValueError: the file is no such list, or an entry in it does not fit the data set; the
            message names the first one.
        OSError: the file cannot be read.
    """
    try:
        entries = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{json_file} is no JSON: {error}.") from error
    try:
        if not isinstance(entries, list):
            raise TypeError(f"a list is needed, not {type(entries).__name__}")
        scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{json_file} is no file of COCO results: each entry needs image_id, category_id, bbox "
            f"and score ({type(error).__name__}: {error})."
        ) from error
    where = f"result {{}} of {json_file}"
    image, boxes, classes = _columns(entries, truth.images, truth.category_ids, where)
    _check_finite(scores[:, None], "score", where)

    order = np.lexsort((-scores, image))
    order = order[
        _rank_in_groups(image[order] * len(truth.class_names) + classes[order]) < max_dets
    ]
    return Detections(image[order], boxes[order], classes[order], scores[order])


def _columns(
    entries: Sequence[dict[str, Any]],
    images: Sequence[dict[str, Any]],
    category_ids: Sequence[int],
    where: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image index, XYXY box and class index of annotations or results."""
    image_index = {image["id"]: i for i, image in enumerate(images)}
    class_index = {category: i for i, category in enumerate(category_ids)}
    columns = []
    for key, index in (("image_id", image_index), ("category_id", class_index)):
        for number, entry in enumerate(entries):
            if entry.get(key) not in index:
                raise ValueError(
                    f"{where.format(number)} has the {key} {entry.get(key)!r}, which the data set "
                    "does not have: use the data set that the results were made on."
                )
        columns.append(np.array([index[entry[key]] for entry in entries], dtype=np.int64))
    for number, entry in enumerate(entries):
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise ValueError(
                f"{where.format(number)} needs a bbox of four numbers [x, y, width, height]."
            )
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    _check_finite(boxes, "bbox", where)
    for number in np.flatnonzero((boxes[:, 2:] < 0).any(axis=1)):
        raise ValueError(
            f"{where.format(number)} has the bbox {boxes[number].tolist()}, whose width or height "
            "is negative: write boxes as [x, y, width, height]."
        )
    boxes[:, 2:] += boxes[:, :2]
    return columns[0], boxes, columns[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_finite(values: np.ndarray, key: str, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{where.format(bad[0])} has the {key} {values[bad[0]].tolist()}; numbers must be "
            f"finite ({len(bad)} such entries)."
        )


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """(N,) sqrt(width * height) of (N, 4) XYXY boxes."""
    return np.sqrt(_areas(boxes))


def _rank_in_groups(groups: np.ndarray) -> np.ndarray:
    """How many entries with the same value stand before each entry."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(groups) else order
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return ranks
