"""Ground truth and detections of COCO files as flat arrays, checked when they are read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efpn_d2.data.coco.names import unique_names
from efpn_d2.data.coco.record_checks import (
    ANNOTATION,
    CATEGORY,
    FLAG,
    IMAGE,
    NAME,
    NUMBER,
    RESULT,
    SIZE,
    Field,
    check_content,
    check_records,
)

_IMAGE = (*IMAGE, Field("file_name", NAME), *SIZE)
_ANNOTATION = (
    *ANNOTATION,
    Field("area", NUMBER, required=False),
    Field("iscrowd", FLAG, required=False),
)


@dataclass(frozen=True)
class GroundTruth:
    """The I images of a dataset and their M objects, sorted by image."""

    images: list[dict[str, Any]]  # COCO's entries: id, file_name, width, height
    class_names: list[str]  # K names, in the order of the category ids
    category_ids: list[int]
    image: np.ndarray  # (M,) int, index into ``images``
    boxes: np.ndarray  # (M, 4) XYXY in pixels
    classes: np.ndarray  # (M,) int, index into ``class_names``
    sizes: np.ndarray  # (M,) sqrt of the annotated area, in pixels
    crowd: np.ndarray  # (M,) bool

    def bounds(self) -> np.ndarray:
        """Return (I + 1,) int: bounds[i] is the first object of image i, bounds[I] is M."""
        return np.searchsorted(self.image, np.arange(len(self.images) + 1))


@dataclass(frozen=True)
class Detections:
    """N detections, sorted by image and by falling score within an image."""

    image: np.ndarray  # (N,) int, index into the images of the ground truth
    boxes: np.ndarray  # (N, 4) XYXY in pixels
    classes: np.ndarray  # (N,) int
    scores: np.ndarray  # (N,)

    def bounds(self, num_images: int) -> np.ndarray:
        """Return (I + 1,) int: bounds[i] is the first detection of image i, bounds[I] is N."""
        return np.searchsorted(self.image, np.arange(num_images + 1))


def load_ground_truth(json_file: str | Path, ignore_fields: Sequence[str] = ()) -> GroundTruth:
    """Read a COCO JSON.

    Args:
        json_file: path of the file.
        ignore_fields: annotations that set one of these fields are treated as crowds.

    Raises:
        ValueError: if the file is not a COCO JSON, or a field of a record is missing or invalid;
            the message names the first such record.
        OSError: if the file cannot be read.
    """
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}.") from error
    lists = {"images": _IMAGE, "categories": CATEGORY, "annotations": _ANNOTATION}
    check_content(content, str(json_file), **lists)
    return ground_truth(content, json_file, ignore_fields)


def ground_truth(
    content: dict[str, Any], json_file: str | Path, ignore_fields: Sequence[str] = ()
) -> GroundTruth:
    """Convert the content of a checked COCO JSON, such as the ``dataset`` of an evaluator.

    Args:
        content: the content.
        json_file: path of the file, for messages.
        ignore_fields: see :func:`load_ground_truth`.

    Raises:
        ValueError: see :func:`load_ground_truth`.
    """
    images, annotations = content["images"], content["annotations"]
    check_records(images, f"images[{{}}] of {json_file}", [Field("file_name", NAME)])
    categories = sorted(content["categories"], key=lambda entry: entry["id"])
    names = unique_names(categories)
    category_ids = [entry["id"] for entry in categories]
    where = f"annotations[{{}}] of {json_file}"
    image, boxes, classes = _columns(annotations, images, category_ids, where)
    area = np.array([a.get("area", np.nan) for a in annotations], dtype=np.float64)
    area = np.where(np.isnan(area), _areas(boxes), area)
    marks = ("iscrowd", *ignore_fields)
    crowd = np.array([any(a.get(key) for key in marks) for a in annotations], dtype=bool)
    order = np.argsort(image, kind="stable")
    columns = (image, boxes, classes, np.sqrt(area.clip(min=0)), crowd)
    return GroundTruth(images, names, category_ids, *(column[order] for column in columns))


def load_detections(
    json_file: str | Path, truth: GroundTruth, *, max_dets: int = 100
) -> Detections:
    """Read the list of results that COCO evaluators write, with ``bbox`` in each entry.

    Args:
        json_file: path of the file, e.g. ``coco_instances_results.json``.
        truth: ground truth of the results.
        max_dets: limit of detections per image and class, best scores first.

    Raises:
        ValueError: if the file is not such a list, or an entry does not match the dataset; the
            message names the first one.
        OSError: if the file cannot be read.
    """
    try:
        entries = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}.") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{json_file} is not a file of COCO results: it must be a list, not "
            f"{type(entries).__name__}."
        )
    where = f"results[{{}}] of {json_file}"
    check_records(entries, where, RESULT)
    image, boxes, classes = _columns(entries, truth.images, truth.category_ids, where)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)

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
    """Return image index, XYXY box and class index of annotations or results."""
    image_index = {image["id"]: i for i, image in enumerate(images)}
    class_index = {category: i for i, category in enumerate(category_ids)}
    columns = []
    for key, index in (("image_id", image_index), ("category_id", class_index)):
        for number, entry in enumerate(entries):
            if entry[key] not in index:
                raise ValueError(
                    f"{where.format(number)} has the {key} {entry[key]!r}, which is not in the "
                    "dataset: use the dataset on which the results were computed."
                )
        columns.append(np.array([index[entry[key]] for entry in entries], dtype=np.int64))
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return columns[0], boxes, columns[1]


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """Return (N,) sqrt(width * height) of (N, 4) XYXY boxes."""
    return np.sqrt(_areas(boxes))


def _rank_in_groups(groups: np.ndarray) -> np.ndarray:
    """Return the number of preceding entries with the same value, for each entry."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(groups) else order
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return ranks
